"""What is found in a data set: against what was put there."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
from hubmodels import WORDS
from hypothesis import given
from hypothesis import strategies as st
from told import Told

from pocketzoo.zoo.catalog.dataset import Dataset, Split
from pocketzoo.zoo.catalog.specs import InputSpec, TextSpec
from pocketzoo.zoo.data.findings import Findings, _copies, examine
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.data.processors.open_processor import as_processor

PIXELS = InputSpec(shape=("batch", 1, 2, 2), mean=(0.0,), std=(1.0,), resize=2)
TEXTS = TextSpec(vocabulary=len(WORDS), pad=0, max_length=8)


def dataset(train, val, test, labels=("a", "b")):
    splits = {"train": train, "val": val, "test": test}
    parts = {k: Split(x, np.arange(len(x)) % len(labels)) for k, x in splits.items()}
    return Dataset("made", labels, parts)


@given(st.integers(1, 30), st.integers(1, 30))
def test_classes_are_counted_and_uneven_ones_said(one, other):
    x = np.arange(4 * (one + other), dtype=np.uint8).reshape(-1, 2, 2)
    empty = Split(x[:0], np.zeros(0, np.int64))
    whole = Split(x, np.repeat([0, 1], [one, other]))
    found = examine(Dataset("made", ("a", "b"), {"train": whole, "val": empty, "test": empty}), as_processor(PIXELS))
    assert found.classes == {"a": one, "b": other}
    said = [s for s in found.sentences() if "uneven" in s]
    assert bool(said) == (max(one, other) >= 3 * min(one, other))


@given(
    st.sets(st.integers(0, 200), max_size=30), st.sets(st.integers(0, 200), max_size=9), st.sets(st.integers(0, 200))
)
def test_samples_in_two_splits_are_counted_in_arrays_and_texts(train, val, test):
    for make in (lambda n: np.full((2, 2), n, np.uint8), str):
        parts = [[make(n) for n in sorted(part)] for part in (train, val, test)]
        found = examine(dataset(*parts), as_processor(PIXELS))
        wanted = {"train/val": len(train & val), "train/test": len(train & test), "val/test": len((val & test) - train)}
        assert found.copies == {pair: count for pair, count in wanted.items() if count}
        assert sum("byte for byte" in s for s in found.sentences()) == len(found.copies)


def test_a_file_that_is_in_two_splits_is_named(photos, tmp_path):
    for split, count in (("train", 6), ("test", 4)):
        photos(tmp_path / split, {"a": count, "b": count})
    for path in (tmp_path / "test").rglob("*.png"):
        path.write_bytes(path.read_bytes() + b"\0")  # photos() makes the same ones each time: these now differ
    assert examine(load_data(tmp_path), as_processor(PIXELS)).copies == {}
    shutil.copy(tmp_path / "train" / "a" / "000.png", tmp_path / "test" / "b" / "new.png")
    found = examine(load_data(tmp_path), as_processor(PIXELS))
    assert sum(found.copies.values()) == 1
    assert any("000.png" in s and "new.png" in s for s in found.sentences())


@given(st.lists(st.lists(st.sampled_from(WORDS[4:]), max_size=12).map(" ".join), min_size=3, max_size=9))
def test_texts_that_are_cut_are_counted(files, texts):
    found = examine(dataset(texts, [], []), as_processor(TEXTS, files))
    assert found.too_long == sum(len(text.split()) + 2 > TEXTS.max_length for text in texts)
    assert any(f"{found.too_long} samples" in s for s in found.sentences()) == bool(found.too_long)


# -- what is said, word by word


def test_what_the_user_hears():
    facts = Findings(classes={"a": 9, "b": 4, "c": 3}, copies={"train/test": 2, "val/test": 1},
                     copied=("x.png", "y.png"), too_long=5, max_length=8)  # fmt: skip
    assert list(facts.sentences()) == [
        "uneven classes: 9 samples of 'a', 3 of 'c'; --set balanced=true weights them equally",
        "2 samples of test are also in train, byte for byte, such as x.png and y.png: scores are too optimistic",
        "1 samples of test are also in val, byte for byte, such as x.png and y.png: scores are too optimistic",
        "5 samples are longer than 8 tokens and are truncated",
    ]
    assert list(replace(facts, classes={"a": 8, "c": 3}, copies={}, too_long=0).sentences()) == []
    (said,) = replace(facts, classes={}, copies={"train/val": 3}, copied=None, too_long=0).sentences()
    assert said == "3 samples of val are also in train, byte for byte: scores are too optimistic"
    assert list(Findings().sentences()) == []


def test_it_is_said_and_returned_and_whole_texts_are_none_too_long(files):
    texts = [" ".join([WORDS[4]] * 9), WORDS[5], WORDS[4]]
    data, told = dataset(texts, [WORDS[5]], texts[:1]), Told()
    found = examine(data, as_processor(TEXTS, files), told)
    assert (found.too_long, found.max_length) == (2, 8)
    assert found.copies == {"train/val": 1, "train/test": 1}
    assert found.copied is None, "texts have no names"
    assert found.classes == {"a": 2, "b": 1}
    assert told.said == list(found.sentences())
    assert len(told.said) == 3
    whole = examine(data, as_processor(TEXTS), whole=True)
    assert (whole.too_long, whole.max_length) == (0, 8)
    pixels = np.zeros((3, 2, 2), np.uint8)
    assert examine(dataset(pixels, [], []), as_processor(PIXELS)).max_length == 0
    bare = Dataset("d", (), {k: Split(pixels[:n]) for k, n in (("train", 1), ("val", 0), ("test", 0))})
    assert examine(bare, as_processor(PIXELS)) == Findings()


def test_the_first_pair_of_files_is_named_and_arrays_of_other_types_are_others(tmp_path):
    paths = {name: tmp_path / name for name in ("a", "b", "c", "d", "none")}
    for name, content in (("a", b"11"), ("b", b"22"), ("c", b"11"), ("d", b"22")):
        paths[name].write_bytes(content)
    parts = [paths["a"], paths["b"], paths["none"]], [paths["d"]], [paths["c"]]
    splits = {n: Split(part) for n, part in zip(("train", "val", "test"), parts, strict=True)}
    found = examine(Dataset("d", (), splits), as_processor(PIXELS))
    assert found.copies == {"train/val": 1, "train/test": 1}
    assert found.copied == (str(paths["b"]), str(paths["d"]))
    kinds = [np.zeros(4, np.uint8)], [np.zeros(4, np.int8)], [np.zeros((2, 2), np.uint8)]
    assert examine(dataset(*kinds), as_processor(PIXELS)).copies == {}


def test_copies_of_samples_of_several_fields_are_found(tmp_path):
    """One that is the same in every field; one of which a field differs is none."""
    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / name).write_bytes(content)
    row = np.arange(3.0)

    def sample(file, number=1, words="yes"):
        return {"file": tmp_path / file, "row": row * number, "words": words, "count": number}

    splits = {
        "train": Split([sample("a"), sample("c")], np.array([0, 1])),
        "val": Split([sample("b"), sample("b", words="no")], np.array([0, 1])),
        "test": Split([sample("b", 2), {**sample("b"), "row": [0, object()]}], np.array([0, 1])),
    }
    copies, copied = _copies(splits)
    assert copies == {"train/val": 1}
    assert copied == (str(tmp_path / "a"), str(tmp_path / "b"))
