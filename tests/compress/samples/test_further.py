from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from pocketzoo.compress.samples import further as module
from pocketzoo.compress.samples.further import Joined, further
from pocketzoo.core.arrays import joined


@dataclass
class Sourced:
    """Images (N, 3, 16, 16) in batches of four, with the source of each."""

    x: np.ndarray
    groups: np.ndarray | None = None

    def __iter__(self):
        return ({"image": self.x[start : start + 4]} for start in range(0, len(self.x), 4))


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3, 16, 16)).astype(np.float32)


def test_the_same_samples_and_seed_give_the_same_samples_as_often_as_they_are_asked_for():
    samples = Sourced(images(10), np.arange(10) // 2)
    made = further(samples, 13, seed=3)
    first, again, other = (joined(list(each))["image"] for each in (made, made, further(samples, 13, seed=4)))
    assert first.shape == (13, 3, 16, 16)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(made.groups) == 13
    assert set(made.groups) <= set(samples.groups)


def test_fewer_are_the_first_of_more():
    samples = Sourced(images(10), np.arange(10))
    few, many = (joined(list(further(samples, count)))["image"] for count in (3, 20))
    assert np.array_equal(few, many[:3])


def test_nothing_is_made_of_what_nobody_knows_how_to_make_more_of():
    assert further([{"numbers": np.zeros((4, 7), np.float32)}], 5) is None
    assert further([], 5) is None
    assert further([np.zeros((4, 3, 16, 16), np.float32)], 0) is None
    # A second input that does not count samples along its first axis: which row is whose is not known.
    assert further([{"image": images(4), "scale": np.zeros(1, np.float32)}], 5) is None


def test_one_array_alone_is_a_batch_too():
    assert sum(len(batch[""]) for batch in further([images(4)], 5)) == 5


def test_of_many_samples_some_of_each_source_are_kept_and_memory_is_bounded(monkeypatch):
    samples = Sourced(images(60), np.repeat(np.arange(6), 10))
    one = samples.x[0].nbytes
    monkeypatch.setattr(module, "POOL", 12 * one)
    kept, ids = module._pool(samples)
    assert len(kept) == 12
    assert np.array_equal(np.bincount(ids), np.full(6, 2))


def test_joined_samples_have_the_sources_of_all_where_all_are_known():
    samples = Sourced(images(6), np.arange(6))
    made = further(samples, 4)
    both = Joined((samples, made))
    assert sum(len(batch["image"]) for batch in both) == len(both.groups) == 10
    assert Joined((Sourced(images(6)), made)).groups is None


@pytest.mark.parametrize("known", [True, False])
def test_where_sources_are_not_known_each_sample_is_one(known):
    samples = Sourced(images(3), np.array([7, 7, 9]) if known else None)
    assert set(further(samples, 40).groups) == ({7, 9} if known else {0, 1, 2})
