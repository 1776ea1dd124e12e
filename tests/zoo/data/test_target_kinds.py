"""Targets of every kind, from arrays and from tables; what is none of a kind is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import Dataset, Split
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.data.target_kinds import read_targets

FLAGS = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 1]])


def test_classes_are_numbered_in_their_order():
    labels, y = read_targets("classes", "d", np.array(["b", "a", "b"]), 3)
    assert (labels, y.tolist()) == (("a", "b"), [1, 0, 1])


@pytest.mark.parametrize("y", [FLAGS, FLAGS.astype(bool), FLAGS.astype(np.float32), FLAGS.astype(str)])
def test_flags_are_0_or_1_of_each_label(y):
    labels, read = read_targets("flags", "d", y, 3, ("cat", "dog", "sun"))
    assert labels == ("cat", "dog", "sun")
    assert read.dtype == np.int64
    np.testing.assert_array_equal(read, FLAGS)
    assert read_targets("flags", "d", FLAGS, 3)[0] == ("0", "1", "2")


def test_one_column_may_name_several_labels():
    labels, read = read_targets("flags", "d", np.array(["sun|cat", "", "dog | sun"]), 3)
    assert labels == ("cat", "dog", "sun")
    np.testing.assert_array_equal(read, FLAGS)


def test_arrays_stay_as_they_are():
    y = np.zeros((2, 5, 3))
    labels, read = read_targets("arrays", "d", y, 2)
    assert (labels, read.shape, read.dtype) == ((), (2, 5, 3), np.float32)
    assert read_targets("arrays", "d", np.zeros((2, 5), np.uint8), 2)[1].dtype == np.int64


def test_tags_of_tokens_are_numbers_already():
    y = np.array([[0, 2, -100], [1, -100, -100], [-100, 0, 1]], np.int32)
    labels, read = read_targets("tags", "d", y, 3, ("O", "B-X", "I-X"))
    assert (labels, read.dtype) == (("O", "B-X", "I-X"), np.int64)
    np.testing.assert_array_equal(read, y)


@pytest.mark.parametrize(
    ("kind", "y", "names", "why", "hint"),
    [
        ("classes", FLAGS, (), "y is int64 of shape (3, 3)", "--head multi-label"),
        ("classes", np.zeros((3, 2, 2)), (), "of shape (3, 2, 2)", "one label or number per sample"),
        ("classes", np.zeros(2), (), "x has 3 samples, y has 2", "one y per x"),
        ("numbers", np.array(["a", "b", "c"]), (), "are not numbers", "--head linear"),
        ("numbers", np.array([1.0, np.nan, 2.0]), (), "are not finite", "one number"),
        ("flags", np.array([0, 1, 1]), (), "not 0 or 1 for each label", "--label-column a,b"),
        ("flags", FLAGS * 2, (), "a label is 2", "0 or 1"),
        ("flags", np.array([["1", "perhaps"]] * 3), ("a", "b"), "a label is perhaps", "0 or 1"),
        ("flags", FLAGS, ("a", "b"), "2 labels, and targets of shape (3, 3)", "each label"),
        ("flags", FLAGS, ("a", "b", "a"), "two labels have one name", "its own"),
        ("flags", FLAGS[:2], (), "(2, 3) for 3 samples", "each label"),
        ("arrays", np.array(["a"] * 3), (), "y is <U1", "one row per sample"),
        ("tags", np.full((3, 4), -1), (), "y has the class -1", "-100 where a token has no class"),
        ("tags", np.zeros((2, 4), np.int64), (), "x has 3 samples, y has 2", "one row of y"),
        ("tags", np.zeros(3), (), "y is float64 of shape (3,) for 3 samples, not a tag for each word", "a CoNLL file"),
        ("arrays", np.full((3, 1), np.inf), (), "non-finite", "NaN"),
    ],
)
def test_what_is_none_of_a_kind_is_refused(kind, y, names, why, hint, refused):
    with refused(DataError, why, hint=hint):
        read_targets(kind, "d", y, 3, names)


def test_a_table_may_have_several_label_columns(tmp_path: Path):
    path = tmp_path / "d.csv"
    path.write_text("a,b,cat,dog\n" + "".join(f"{i},{-i},{i % 2},{int(i % 3 == 0)}\n" for i in range(30)))
    data = load_data(f"{path}?label=cat,dog", targets="flags")
    assert data.labels == ("cat", "dog")
    split = data.split("train")
    np.testing.assert_array_equal(split.targets, np.stack([split.samples[:, 0] % 2, split.samples[:, 0] % 3 == 0], 1))
    assert split.samples.shape[1] == 2
    numbers = load_data(f"{path}?label=cat,dog", targets="numbers").split("train").targets
    assert numbers.dtype == np.float32
    assert numbers.shape[1] == 2


def test_an_npz_may_name_its_labels(tmp_path: Path):
    np.savez(tmp_path / "d.npz", x=np.zeros((3, 4), np.float32), y=FLAGS, labels=np.array(["cat", "dog", "sun"]))
    assert load_data(tmp_path / "d.npz", targets="flags").labels == ("cat", "dog", "sun")


def test_a_tasks_own_reader_reads_what_it_knows(tmp_path: Path):
    np.savez(tmp_path / "d.npz", x=np.zeros((10, 4), np.float32))
    mine = load_data(tmp_path / "d.npz")
    (tmp_path / "own.txt").write_text("something else")
    assert load_data(tmp_path / "own.txt", reader=lambda path: mine) is mine
    assert load_data(tmp_path / "d.npz", reader=lambda path: None).split("train").samples.shape == (6, 4)


@pytest.mark.parametrize(("given", "sizes"), [(("train",), [6, 2, 2]), (("train", "test"), [8, 2, 10])])
def test_splits_that_a_reader_leaves_out_are_divided_off_by_the_seed(given, sizes, tmp_path: Path):
    (tmp_path / "own.txt").write_text("something")
    splits = {name: Split(np.arange(10.0)[:, None].astype(np.float32), np.zeros(10, np.int64)) for name in given}
    read = Dataset("d", ("a",), splits)
    one, two, again = (load_data(tmp_path / "own.txt", seed=seed, reader=lambda path: read) for seed in (1, 2, 1))
    assert [len(one.split(name)) for name in ("train", "val", "test")] == sizes
    assert (one.seed, one.digest()) == (1, again.digest())
    assert one.digest() != two.digest()


def test_a_table_whose_columns_are_named_is_read_as_a_table(tmp_path: Path):
    path = tmp_path / "d.csv"
    path.write_text("a,b\n" + "".join(f"word {i},x\n" for i in range(10)))
    data = load_data(f"{path}?text=a&label=b", reader=lambda path: Dataset("other", (), {}))
    assert (data.name, data.labels) == ("d", ("x",))
