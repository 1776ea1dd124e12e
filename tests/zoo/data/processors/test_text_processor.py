"""Texts and ids with a real attention mask: what is a token is told by the text, not by its id."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hubmodels import WORDS
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.specs import TextSpec
from pocketzoo.zoo.data.processors.text_processor import TextProcessor

SPEC = TextSpec(vocabulary=len(WORDS), pad=0, max_length=8)
MASKED = replace(SPEC, mask="attention_mask", types="token_type_ids")
TEXTS = st.lists(st.lists(st.sampled_from(WORDS[4:]), max_size=12).map(" ".join), min_size=1, max_size=5)


def test_inputs_are_as_the_spec_says(files):
    assert [t.name for t in TextProcessor(SPEC, files).inputs] == ["input_ids"]
    inputs = TextProcessor(replace(MASKED, dtype="int32"), files).inputs
    assert [(t.name, t.dtype) for t in inputs] == [
        ("input_ids", "int32"), ("attention_mask", "int32"), ("token_type_ids", "int32")
    ]  # fmt: skip


@given(TEXTS)
def test_the_mask_has_ones_where_a_text_has_tokens(files, texts):
    arrays = TextProcessor(MASKED, files)(texts)
    lengths = [min(len(text.split()) + 2, 8) for text in texts]
    assert arrays["input_ids"].shape == arrays["attention_mask"].shape == (len(texts), max(lengths))
    assert arrays["attention_mask"].sum(1).tolist() == lengths
    assert not arrays["token_type_ids"].any()
    assert np.array_equal(TextProcessor(SPEC, files)(texts)["input_ids"], arrays["input_ids"])


def test_a_token_with_the_id_of_the_padding_is_seen(files):
    """As in GPT-2, whose padding is its end of text."""
    spec = replace(MASKED, pad=WORDS.index("model"))
    arrays = TextProcessor(spec, files)(["model", "a small model is fast"])
    assert arrays["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0, 0], [1] * 7]
    assert arrays["input_ids"][0, 1] == spec.pad
    assert (arrays["input_ids"][0, 3:] == spec.pad).all()


def test_a_text_is_the_same_whichever_way_it_came_in(files, tmp_path):
    reads = TextProcessor(MASKED, files)
    path = tmp_path / "a.txt"
    path.write_text("a model is small", "utf8")
    wanted = reads(["a model is small"])
    text = "a model is small"
    for way in (path, [path], text, [text], text.encode(), np.array(text), np.array([text])):
        arrays = reads.batch(way)
        assert all(np.array_equal(arrays[name], x) for name, x in wanted.items()), way
    assert reads.sample(str(path)) == path
    assert reads.sample("a model is small") == "a model is small"
    assert reads.sample("a\0b" * 999) == "a\0b" * 999


def test_ids_alone_are_masked_by_the_padding(files):
    reads = TextProcessor(MASKED, files)
    ids = np.array([[2, 5, 3, 0], [2, 5, 6, 3]])
    for arrays in (
        reads.batch(ids),
        reads.batch({"input_ids": ids}),
        reads(list(ids)),
        reads(list(ids.astype(np.float32))),
    ):
        assert arrays["input_ids"].tolist() == ids.tolist()
        assert arrays["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    arrays = reads.batch(given)
    assert arrays["input_ids"] is ids
    assert arrays["attention_mask"] is given["attention_mask"]
    rows = [{"input_ids": ids[0, :3], "attention_mask": np.array([1, 0, 1])}, {"input_ids": ids[1]}]
    arrays = reads(rows)
    assert arrays["attention_mask"].tolist() == [[1, 0, 1, 0], [1, 1, 1, 1]]


def test_ids_pass_as_they_are_where_there_is_no_mask(files):
    ids = np.array([[2, 3, 4, 0]])
    assert TextProcessor(SPEC, files).batch(ids)["input_ids"] is ids


def test_random_ids_have_padding_unless_a_length_is_asked_for(files):
    reads = TextProcessor(replace(MASKED, max_length=40), files)
    arrays = reads.random(4)
    assert arrays["attention_mask"].sum(1).tolist() == [13, 12, 11, 10]
    assert ((arrays["input_ids"] == 0) == (arrays["attention_mask"] == 0)).all()
    whole = reads.random(4, 30)
    assert whole["input_ids"].shape == (4, 30)
    assert whole["attention_mask"].all()
    assert (reads.random(2)["input_ids"].shape[1], reads.random(5)["input_ids"].shape[1]) == (11, 14)


def test_how_many_are_cut(files):
    reads = TextProcessor(SPEC, files)
    assert reads.truncated(["a model", "model " * 6, "model " * 7, np.array([2, 3])]) == 1
    assert TextProcessor(SPEC, {}).truncated(["model " * 9]) == 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (np.array([2, 3]), ["(2,)", "('batch', 'sequence')"]),
        (np.zeros((0, 3), np.int64), ["empty"]),
        (np.zeros((1, 3), np.int32), ["int32", "int64"]),
        (np.zeros((1, 9), np.int64), ["9 tokens", "8"]),
        (np.array([[2, 99]]), ["from 2 to 99", f"0 to {len(WORDS) - 1}"]),
        ([3], ["int"]),
        ([["a", "model"]], ["list"]),
        (["a model", 7], ["int"]),
        (Path("gone.txt"), ["cannot read the text gone.txt"]),
        (b"a\xff\xfe", ["cannot read the text these bytes"]),
        ({"input_ids": np.array([[2, 3]]), "mask": np.array([[1, 1]])}, ["no input 'mask'"]),
        ({"input_ids": np.array([[2, 3]]), "attention_mask": np.array([[1, 1, 1]])}, ["(1, 3)", "(1, 2)"]),
    ],
)
def test_what_cannot_be_read_is_named(given, says, files, refused):
    with refused(DataError, *says):
        TextProcessor(MASKED, files).batch(given)


def test_samples_that_are_no_texts_are_named(files, refused):
    with refused(DataError, "token ids", "3 x 2"):
        TextProcessor(SPEC, files)([np.zeros((3, 2), np.uint8)])
    with refused(DataError, "token ids"):
        TextProcessor(SPEC, files)([np.array([0.5])])
    with refused(DataError, "2 values for 1 ids"):
        TextProcessor(MASKED, files)([{"input_ids": np.array([2]), "attention_mask": np.array([1, 1])}])
    with refused(DataError, "no tokenizer"):
        TextProcessor(SPEC, {})(["a model"])
