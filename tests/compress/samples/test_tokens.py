from __future__ import annotations

import numpy as np
import pytest

from pocketzoo.compress.samples.further import further
from pocketzoo.compress.samples.tokens import LENGTHS, TokenMaker, token_input

FIRST, LAST, PAD = 101, 102, 0


def texts(count: int, *, left: bool = False, length: int = 24) -> np.ndarray:
    """Rows (N, T) of a first token, 6 to 20 words of 1000 to 1199, a last token, and padding."""
    generator = np.random.default_rng(0)
    rows = np.full((count, length), PAD, np.int64)
    for row in rows:
        words = [FIRST, *generator.integers(1000, 1200, generator.integers(6, 21)), LAST]
        row[slice(length - len(words), None) if left else slice(len(words))] = words
    return rows


def singles(x: np.ndarray, **others: np.ndarray) -> list[dict[str, np.ndarray]]:
    return [{"ids": x[i : i + 1], **{name: y[i : i + 1] for name, y in others.items()}} for i in range(len(x))]


def made_of(samples: list[dict[str, np.ndarray]], count: int = 60, sources: np.ndarray | None = None):
    maker = TokenMaker.of(samples, np.arange(len(samples)) if sources is None else sources)
    assert maker is not None
    return [maker(np.random.default_rng(i)) for i in range(count)]


def test_words_are_replaced_by_words_and_what_is_around_them_stays():
    x = texts(20)
    changed = 0
    for sample, source in made_of(singles(x)):
        row, before = sample["ids"][0], x[source][x[source] != PAD]
        real = row[: len(before)]
        assert len(row) % LENGTHS == 0
        assert len(row) - len(before) < LENGTHS
        assert (row[len(before) :] == PAD).all()
        assert (real[0], real[-1]) == (FIRST, LAST)
        assert np.isin(real[1:-1], x[x >= 1000]).all()
        changed += int((real != before).any())
    assert changed > 40


def test_padding_on_the_left_stays_where_it_is():
    x = texts(20, left=True)
    for sample, source in made_of(singles(x)):
        row = sample["ids"][0]
        assert row.shape == x[source].shape
        assert np.array_equal(row == PAD, x[source] == PAD)
        assert np.array_equal(np.isin(row, (FIRST, LAST)), np.isin(x[source], (FIRST, LAST)))


def test_masks_and_types_stay_those_of_the_text():
    x = texts(20)
    mask, types = (x != PAD).astype(np.int64), np.zeros_like(x)
    types[:, 9:] = 1
    for sample, source in made_of(singles(x, mask=mask, types=types)):
        assert np.array_equal(sample["mask"][0], mask[source])
        assert np.array_equal(sample["types"][0], types[source])
        assert np.array_equal(sample["ids"][0] != PAD, mask[source] == 1)


def test_columns_of_a_table_stay_within_what_each_has():
    generator = np.random.default_rng(0)
    limits = np.array([3, 200, 5, 90, 12, 1000, 40, 7])
    x = generator.integers(0, limits, (50, 8))
    maker = TokenMaker.of(singles(x), np.arange(50))
    assert maker is not None
    made = np.concatenate([maker(np.random.default_rng(i))[0]["ids"] for i in range(200)])
    assert (made <= x.max(0)).all()
    assert (made >= x.min(0)).all()


X = texts(20)
PLACES = np.broadcast_to(np.arange(24), X.shape).copy()


@pytest.mark.parametrize(
    ("samples", "wanted"),
    [
        (singles(X), "ids"),
        (singles(X, mask=(X != PAD)), "ids"),
        (singles(X, places=PLACES), "ids"),
        (singles(PLACES), None),
        (singles((X != PAD).astype(np.int64)), None),
        (singles(X, other=X + 1), None),  # which of the two goes with which is not known
        (singles(X, weights=X.astype(np.float32)), None),
        (singles(X, other=X[:, :4]), None),
        (singles(np.stack([X, X], 2)), None),
        ([], None),
    ],
)
def test_the_input_of_token_ids_is_told_by_what_it_has(samples, wanted):
    assert token_input(samples) == wanted
    assert (TokenMaker.of(samples, np.arange(len(samples))) is not None) == (wanted is not None)


def test_a_repeated_last_word_is_no_padding():
    x = np.random.default_rng(0).integers(1000, 1200, (20, 16))
    x[3, -2:] = x[4, 5] = 1007
    maker = TokenMaker.of(singles(x), np.arange(20))
    assert maker is not None
    assert maker.padding is None
    assert all(end - start == 14 for start, end in maker.spans)


def test_texts_of_many_lengths_come_in_batches_with_their_sources():
    made = further(singles(texts(30)), 100)
    assert made is not None
    batches = [batch["ids"] for batch in made]
    assert sum(map(len, batches)) == len(made.groups) == 100
    assert len(batches) <= 100 // 8 + 3  # of three lengths
