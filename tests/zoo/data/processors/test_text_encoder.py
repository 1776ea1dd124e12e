"""Texts from tables, and texts to token ids by a real tokenizer."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
from hubmodels import WORDS
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.core.errors import BundleError, DataError
from pocketzoo.zoo.catalog.specs import InputSpec, TextSpec
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.data.processors.text_encoder import TextEncoder

SPEC = TextSpec(vocabulary=len(WORDS), pad=0, max_length=8)


@given(st.lists(st.lists(st.sampled_from(WORDS[4:]), max_size=12).map(" ".join), min_size=1, max_size=6))
def test_ids_are_the_words_between_their_marks_then_padding(files, texts):
    ids = TextEncoder(SPEC, files)(texts)
    assert ids.dtype == np.int64
    assert ids.shape[1] == max(min(len(t.split()) + 2, SPEC.max_length) for t in texts)
    for row, text in zip(ids, texts, strict=True):
        words = text.split()[: SPEC.max_length - 2]
        assert list(row[: len(words) + 2]) == [2, *map(WORDS.index, words), 3]
        assert not row[len(words) + 2 :].any()


def test_a_tokenizer_that_is_missing_or_none(files, tmp_path, refused):
    with refused(BundleError, "no tokenizer.json"):
        TextEncoder(SPEC, {})
    (tmp_path / "t.json").write_text("{}")
    with refused(BundleError, "is not a tokenizer"):
        TextEncoder(SPEC, {"tokenizer.json": tmp_path / "t.json"})


def test_a_table_is_a_data_set_divided_by_class(tmp_path, files):
    rows = [{"text": f"fast model {i}", "label": "ab"[i % 2]} for i in range(40)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = load_data(tmp_path / "a.jsonl", seed=3)
    assert (data.name, data.labels) == ("a", ("a", "b"))
    assert [len(data.split(n)) for n in ("train", "val", "test")] == [24, 8, 8]
    assert np.bincount(data.split("train").targets).tolist() == [12, 12]
    assert load_data(tmp_path / "a.jsonl", seed=3).digest() == data.digest() != load_data(tmp_path / "a.jsonl").digest()
    batches = list(Batches(data.split("train"), SPEC, size=10, limit=15, files=files))
    assert [x["input_ids"].shape for x, _ in batches] == [(10, 5), (5, 5)]
    for (_, y), start in zip(batches, (0, 10), strict=True):
        expected = data.split("train").targets[start : start + len(y)]
        np.testing.assert_array_equal(y, expected)


def test_images_and_texts_are_not_mixed_up(tmp_path, files, refused, photos):
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\nfour\nfive\n")
    images = InputSpec(shape=("batch", 3, 8, 8), mean=(0.0,) * 3, std=(1.0,) * 3, resize=8)
    with refused(DataError, "the data are texts, and this model does not read text"):
        list(Batches(load_data(tmp_path / "a.txt").split("train"), images))
    folder = photos(tmp_path / "photos", {"a": 5, "b": 5})
    with refused(DataError, "cannot read the text", ".png"):
        list(Batches(load_data(folder).split("train"), SPEC, files=files))


def test_many_texts_are_read_in_pieces_and_none_is_left_out(files):
    """Whole they are longer than the model reads; afterwards they are cut again."""
    encoder = TextEncoder(SPEC, files)
    lengths = [i % 14 for i in range(2300)]
    texts = [" ".join([WORDS[4 + i % 3]] * length) for i, length in enumerate(lengths)]
    whole = encoder.whole(texts)
    assert [len(ids) for ids in whole] == [length + 2 for length in lengths]
    assert whole[1001].tolist() == [2, *[4 + 1001 % 3] * (1001 % 14), 3]
    assert encoder.cut(texts) == sum(length + 2 > SPEC.max_length for length in lengths)
    assert encoder(texts[:20]).shape == (20, SPEC.max_length)
    assert encoder.whole([]) == []


def test_a_text_without_a_token_is_padding(files):
    ids = TextEncoder(SPEC, files)(["", WORDS[4]])
    assert ids.tolist() == [[2, 3, 0], [2, 4, 3]]


def test_the_paddings_id_in_a_text_is_refused_by_its_word_where_it_would_be_taken_for_padding(files, refused):
    spec = replace(SPEC, pad=WORDS.index("small"), checked=True)
    with refused(DataError, "the text 'the small model' has the token 'small', which this model takes for padding"):
        TextEncoder(spec, files)(["fast", "the small model"])
    assert TextEncoder(replace(spec, checked=False), files)(["the small model"])[0, 2] == spec.pad


def test_a_token_that_the_model_has_no_row_for_is_refused_by_its_word(files, refused):
    """A tokenizer lists a word that was added after the model was made."""
    spec = replace(SPEC, special=("<new>",))
    with refused(DataError, f"has the token '<new>', which is none of the model's {len(WORDS)}", hint="leave it out"):
        TextEncoder(spec, files)(["the <new> model"])
    assert TextEncoder(replace(spec, vocabulary=0), files)(["the <new> model"])[0, 2] == len(WORDS)
