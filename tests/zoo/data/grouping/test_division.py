"""Splits of samples whose sources are planted: no source on two sides, sizes as wanted as whole sources allow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from told import Told

from pocketzoo.zoo.catalog.dataset import SPLITS, Groups, Split
from pocketzoo.zoo.data.batches import SHARES, completed, divide, from_arrays
from pocketzoo.zoo.data.grouping.sentences import FEWEST, shared
from pocketzoo.zoo.data.load_data import load_data

SIZES = st.lists(st.integers(1, 30), min_size=FEWEST, max_size=25).filter(lambda sizes: max(sizes) > 1)


def planted(sizes, seed=0, classes=1):
    """Sources of these sizes in any order, and a class for each sample."""
    generator = np.random.default_rng(seed)
    ids = generator.permutation(np.repeat(np.arange(len(sizes)) * 7 + 3, sizes))
    return Groups(ids, "folder"), generator.integers(0, classes, len(ids))


@given(SIZES, st.integers(0, 99), st.integers(1, 4))
def test_no_source_is_in_two_splits(sizes, seed, classes):
    groups, targets = planted(sizes, seed, classes)
    parts = divide(targets, len(targets), seed, groups)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(targets)))
    sides = [set(groups.ids[parts[name]].tolist()) for name in SPLITS]
    assert sum(map(len, sides)) == len(sizes)
    assert len(set().union(*sides)) == len(sizes)


@given(SIZES, st.integers(0, 99))
def test_sizes_are_as_near_as_whole_sources_allow(sizes, seed):
    groups, _ = planted(sizes, seed)
    parts = divide(None, sum(sizes), seed, groups)
    for name, share in zip(SPLITS, SHARES, strict=True):
        assert abs(len(parts[name]) - share * sum(sizes)) <= 2 * max(sizes)
        assert len(parts[name]), "four sources are enough for every split"


@given(st.integers(2, 5), st.integers(2, 6), st.integers(0, 99))
def test_classes_are_in_the_same_fractions_where_sources_are_of_one_class(classes, size, seed):
    """Ten sources of one size in each class: six, two and two of them."""
    targets = np.repeat(np.arange(classes), 10 * size)
    groups = Groups(np.arange(len(targets)) // size, "folder")
    parts = divide(targets, len(targets), seed, groups)
    for name, share in zip(SPLITS, SHARES, strict=True):
        assert np.bincount(targets[parts[name]], minlength=classes).tolist() == [round(share * 10) * size] * classes


@given(st.integers(4, 20), st.integers(1, 20), st.integers(0, 99))
def test_sources_of_classes_that_have_few_fill_every_split(sources, classes, seed):
    """One or two sources of a class cannot be in three splits, which all have some of them."""
    targets = np.repeat(np.arange(sources) % classes, 3)
    parts = divide(targets, len(targets), seed, Groups(np.arange(len(targets)) // 3, "folder"))
    assert min(len(parts[name]) for name in SPLITS) >= 3
    if classes <= 0.6 * sources - 1:
        assert set(targets[parts["train"]].tolist()) == set(targets.tolist())


@given(SIZES, st.integers(0, 99))
def test_a_seed_decides_all(sizes, seed):
    groups, targets = planted(sizes, 1, 3)
    one, two = (divide(targets, len(targets), seed, groups) for _ in range(2))
    assert all(np.array_equal(one[name], two[name]) for name in SPLITS)


def test_seeds_differ():
    groups, _ = planted([4] * 20)
    assert len({tuple(divide(None, 80, seed, groups)["train"].tolist()) for seed in range(5)}) == 5


@given(st.integers(1, 60), st.integers(0, 9))
def test_samples_that_are_their_own_sources_are_divided_as_without_any(count, seed):
    alone = Groups(np.arange(count), "sample")
    one, two = divide(None, count, seed), divide(None, count, seed, alone)
    assert all(np.array_equal(one[name], two[name]) for name in SPLITS)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_too_few_sources_are_divided_by_sample_and_that_is_said(count):
    groups = Groups(np.arange(30) % count, "folder")
    data = from_arrays("few", (), np.arange(60.0).reshape(30, 2), None, groups=groups)
    assert [len(data.split(name)) for name in SPLITS] == [18, 6, 6]
    assert shared(data.split("train").groups, data.split("val").groups) >= min(count, 2)
    load_data(data, progress=(told := Told()))
    sources = "1 source" if count == 1 else f"{count} sources"
    assert told.said == [
        f"few: 30 samples are of {sources}, told apart by folder, too few to leave any out: "
        "scores are of the sources that were learned from"
    ]


def test_sources_that_are_divided_are_counted_and_said():
    groups = Groups(np.arange(30) // 3, "folder")
    data = from_arrays("ten", (), np.arange(60.0).reshape(30, 2), None, groups=groups)
    load_data(data, progress=(told := Told()))
    assert told.said == ["ten: 30 samples are of 10 sources, told apart by folder"]
    assert all(data.split(name).groups.by == "folder" for name in SPLITS)


@given(st.integers(0, 99))
def test_a_missing_split_is_cut_from_train_by_source(seed):
    train = Split(np.arange(40), None, (), Groups(np.arange(40) // 4, "folder"))
    test = Split(np.arange(40, 48), None, (), Groups(np.arange(8) // 4 + 50, "folder"))
    splits = completed({"train": train, "test": test}, seed)
    assert splits["test"] is test
    assert not shared(splits["train"].groups, splits["val"].groups)
    assert len(splits["val"]) == 8
    for name in ("train", "val"):
        assert (splits[name].groups.ids == splits[name].samples // 4).all(), "each sample keeps its source"
