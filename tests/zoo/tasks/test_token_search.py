"""Greedy and beam search against all texts that a small vocabulary has."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from pocketzoo.zoo.tasks.token_search import beam_search, greedy

END = 3
VOCABULARY = 4


class Chain:
    """What comes next depends on the last token, and a little on how many there are; it notes what it is asked."""

    def __init__(self, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self.table = generator.normal(size=(VOCABULARY, VOCABULARY)).astype(np.float32)
        self.drift = generator.normal(size=VOCABULARY).astype(np.float32) / 4
        self.rows: list[list[int]] = []

    def logits(self, texts: list[list[int]]) -> np.ndarray:
        return np.stack([self.table[t[-1]] + self.drift * np.float32(len(t) % 3) for t in texts])

    def begin(self, ids: np.ndarray) -> np.ndarray:
        self.rows = [ids[0].tolist()]
        return self.logits(self.rows)

    def keep(self, rows: np.ndarray) -> None:
        self.rows = [list(self.rows[i]) for i in rows.tolist()]

    def add(self, ids: np.ndarray) -> np.ndarray:
        assert ids.shape == (len(self.rows), 1)
        self.rows = [[*row, int(i)] for row, (i,) in zip(self.rows, ids.tolist(), strict=True)]
        return self.logits(self.rows)


def probability(chain: Chain, start: list[int], text: tuple[int, ...]) -> float:
    """The logarithm of it."""
    total, before = 0.0, list(start)
    for token in text:
        logits = chain.logits([before])[0].astype(np.float64)
        total += logits[token] - np.log(np.exp(logits).sum())
        before.append(token)
    return total


def texts(longest: int) -> list[tuple[int, ...]]:
    """All that end with their first END, or are as long as can be."""
    return [
        text
        for length in range(1, longest + 1)
        for text in product(range(VOCABULARY), repeat=length)
        if END not in text[:-1] and (text[-1] == END or length == longest)
    ]


@pytest.mark.parametrize("seed", range(8))
def test_greedy_takes_the_likeliest_each_time(seed):
    chain, start = Chain(seed), [0, 1]
    written = greedy(chain, np.array([start]), longest=6, end=(END,))
    before = list(start)
    for token in written:
        assert token == chain.logits([before])[0].argmax()
        before.append(token)
    assert END not in written[:-1]
    assert written[-1] == END or len(written) == 6
    assert greedy(Chain(seed), np.array([start]), longest=1, end=(END,)) == written[:1]


@pytest.mark.parametrize("penalty", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(6))
def test_with_beams_for_all_texts_the_best_of_all_is_found(seed, penalty):
    """It scores the logarithm of its probability divided by its length to the power of the penalty."""
    start, longest = [2, 0], 4
    found = beam_search(
        Chain(seed), np.array([start]), beams=300, longest=longest, end=(END,), length_penalty=penalty,
        early_stopping="never",
    )  # fmt: skip
    chain = Chain(seed)
    score = {text: probability(chain, start, text) / len(text) ** penalty for text in texts(longest)}
    assert score[tuple(found)] == pytest.approx(max(score.values()), abs=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_one_beam_that_stops_early_is_greedy(seed):
    given = {"longest": 5, "end": (END,)}
    start = np.array([[1]])
    assert beam_search(Chain(seed), start, beams=1, early_stopping=True, **given) == greedy(Chain(seed), start, **given)


def test_the_penalty_is_one_where_nothing_is_said():
    given = {"beams": 3, "longest": 6, "end": (END,)}
    found = [
        [beam_search(Chain(seed), np.array([[1]]), **given, **more) for seed in range(30)]
        for more in ({}, {"length_penalty": 1.0}, {"length_penalty": 0.0}, {"early_stopping": True})
    ]
    assert found[0] == found[1]
    assert found[0] != found[2]
    assert found[0] != found[3], "it goes on until no text that is open can be better"


def test_more_beams_find_no_worse_texts():
    for seed in range(20):
        scores = [
            probability(Chain(seed), [0], tuple(text)) / len(text)
            for beams in (1, 300)
            for text in [beam_search(Chain(seed), np.array([[0]]), beams=beams, longest=4, end=(END,),
                                     early_stopping="never")]
        ]  # fmt: skip
        assert scores[1] >= scores[0] - 1e-6
