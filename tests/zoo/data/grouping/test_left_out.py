"""Whole sources on one side or the other, and how many of each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.core.arrays import Array
from pocketzoo.zoo.catalog.dataset import Groups, Split
from pocketzoo.zoo.catalog.processor_configs import ArraysSpec
from pocketzoo.zoo.catalog.signature import TensorSpec
from pocketzoo.zoo.data.batches import Batches, Skipped
from pocketzoo.zoo.data.grouping.left_out import LEAST, SourceCounts, groups_of, held_out, source_counts
from pocketzoo.zoo.data.read_once import Inputs

SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=15)


@given(SIZES, st.integers(2, 8), st.integers(0, 99))
def test_no_source_is_held_out_in_part(sizes, one_in, seed):
    ids = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)) + 5, sizes))
    out = held_out(ids, len(ids), one_in)
    if out is None:
        return
    assert not set(ids[out]) & set(ids[~out])
    wanted = len(ids) / one_in
    assert LEAST * wanted <= out.sum() <= wanted / LEAST
    again = held_out(ids, len(ids), one_in)
    assert (again == out).all()


@given(st.integers(2, 30), st.integers(2, 9), st.integers(2, 8), st.integers(0, 9))
def test_of_sources_of_one_size_as_many_are_held_out_as_are_wanted(sources, size, one_in, seed):
    ids = np.random.default_rng(seed).permutation(np.repeat(np.arange(sources), size))
    out = held_out(ids, len(ids), one_in)
    wanted = sources / one_in
    assert out is None or abs(len(set(ids[out])) - wanted) <= 0.5
    if sources >= 2 * one_in:
        assert out is not None


@pytest.mark.parametrize("ids", [None, np.zeros(8), np.arange(8), np.arange(7), np.array([0] * 7 + [1])])
def test_what_cannot_be_held_out_is_not(ids):
    """Unknown, one alone, each sample its own, of other samples, and one that is nearly all."""
    assert held_out(ids, 8, 2) is None


def test_sources_are_counted_on_both_sides():
    one, other = Groups(np.array([1, 1, 2, 3]), "folder"), Groups(np.array([4, 3, 5]), "folder")
    counts = source_counts(one, other)
    assert counts == SourceCounts("folder", 3, 3, 1)
    assert not counts.fair
    assert SourceCounts("folder", 3, 1, 0).fair
    assert not SourceCounts("folder", 2, 1, 0).fair, "fewer than four in all"
    assert not SourceCounts("folder", 9, 0, 0).fair
    tested = source_counts(
        Groups(np.array([1, 1, 2]), "folder"), Groups(np.array([3]), "folder"), Groups(np.array([4, 4]), "folder")
    )
    assert tested == SourceCounts("folder", 2, 1, 0, 1)
    assert tested.fair, "four in all, one of which tests"
    assert source_counts(one, other, other) == counts, "which are counted already"


def test_near_duplicates_of_data_in_memory_are_found_in_both_splits_together():
    rows = np.random.default_rng(0).standard_normal((12, 6)).astype(np.float32)
    one, other = groups_of(Split(rows[:8]), Split(rows[[9, 2, 10, 11]]), (6, 3))
    assert (one.count, other.count) == (6, 3)
    assert source_counts(one, other).shared == 1
    texts = [" ".join(f"{i}{j}" for j in range(9)) for i in range(12)]
    one, other = groups_of(Split(texts[:8]), Split([texts[9], texts[2]]), (6, 3))
    assert source_counts(one, other).shared == 1


def test_sources_that_are_known_are_kept():
    known = Groups(np.arange(8) // 2, "folder")
    one, other = groups_of(Split(np.zeros((8, 2)), None, (), known), Split(np.zeros((8, 2)), None, (), known), (3, 9))
    assert one.ids.tolist() == [0, 0, 1]
    assert other.ids.tolist() == known.ids.tolist()


# -- of samples as they are read


SPEC = ArraysSpec(inputs=(TensorSpec(name="x", shape=("batch", 2)),))


def inputs(samples: list[Array], skipped: Skipped | None = None) -> Inputs:
    split = Split(samples, np.arange(len(samples)))
    return Inputs.of(Batches(split, SPEC, size=3, limit=7, skipped=skipped), Groups(np.arange(7) // 2 * 11, "folder"))


def test_each_sample_that_is_read_has_its_source_and_target():
    samples = [{"x": np.full(2, i, np.float32)} for i in range(9)]
    of = inputs(samples)
    assert of.groups.tolist() == [0, 0, 11, 11, 22, 22, 33]
    read = [(x["x"][:, 0].tolist(), y.tolist()) for x, y in of.labeled()]
    assert read == [([0, 1, 2], [0, 1, 2]), ([3, 4, 5], [3, 4, 5]), ([6], [6])]


def test_a_sample_that_is_skipped_takes_its_source_and_target_along():
    samples = [{"x": np.full(2 + (i in (1, 4)), i, np.float32)} for i in range(9)]
    of = inputs(samples, Skipped())
    assert of.groups.tolist() == [0, 11, 11, 22, 33]
    assert np.concatenate([x["x"][:, 0] for x in of]).tolist() == [0, 2, 3, 5, 6]
    assert [(x["x"][:, 0].tolist(), y.tolist()) for x, y in of.labeled()] == [
        ([0, 2], [0, 2]), ([3, 5], [3, 5]), ([6], [6]),
    ]  # fmt: skip
