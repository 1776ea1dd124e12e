"""What is found in a data set: against what was put there."""

from __future__ import annotations

import shutil

import numpy as np
from hubmodels import WORDS
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.zoo.catalog.dataset import Dataset, Split
from pocketzoo.zoo.catalog.specs import InputSpec, TextSpec
from pocketzoo.zoo.data.findings import examine
from pocketzoo.zoo.data.load_data import load_data

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
    found = examine(Dataset("made", ("a", "b"), {"train": whole, "val": empty, "test": empty}), PIXELS, {})
    assert found.classes == {"a": one, "b": other}
    said = [s for s in found.sentences() if "uneven" in s]
    assert bool(said) == (max(one, other) >= 3 * min(one, other))


@given(
    st.sets(st.integers(0, 200), max_size=30), st.sets(st.integers(0, 200), max_size=9), st.sets(st.integers(0, 200))
)
def test_samples_in_two_splits_are_counted_in_arrays_and_texts(train, val, test):
    for make in (lambda n: np.full((2, 2), n, np.uint8), str):
        parts = [[make(n) for n in sorted(part)] for part in (train, val, test)]
        found = examine(dataset(*parts), PIXELS, {})
        wanted = {"train/val": len(train & val), "train/test": len(train & test), "val/test": len((val & test) - train)}
        assert found.copies == {pair: count for pair, count in wanted.items() if count}
        assert sum("byte for byte" in s for s in found.sentences()) == len(found.copies)


def test_a_file_that_is_in_two_splits_is_named(photos, tmp_path):
    for split, count in (("train", 6), ("test", 4)):
        photos(tmp_path / split, {"a": count, "b": count})
    for path in (tmp_path / "test").rglob("*.png"):
        path.write_bytes(path.read_bytes() + b"\0")  # photos() makes the same ones each time: these now differ
    assert examine(load_data(tmp_path), PIXELS, {}).copies == {}
    shutil.copy(tmp_path / "train" / "a" / "000.png", tmp_path / "test" / "b" / "new.png")
    found = examine(load_data(tmp_path), PIXELS, {})
    assert sum(found.copies.values()) == 1
    assert any("000.png" in s and "new.png" in s for s in found.sentences())


@given(st.lists(st.lists(st.sampled_from(WORDS[4:]), max_size=12).map(" ".join), min_size=3, max_size=9))
def test_texts_that_are_cut_are_counted(files, texts):
    found = examine(dataset(texts, [], []), TEXTS, files)
    assert found.too_long == sum(len(text.split()) + 2 > TEXTS.max_length for text in texts)
    assert any(f"{found.too_long} texts" in s for s in found.sentences()) == bool(found.too_long)
