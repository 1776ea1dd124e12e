"""What is gone through many times is read once, whatever of it memory holds; and nothing is left behind."""

from __future__ import annotations

import gc
import os
import tempfile
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import Split
from pocketzoo.zoo.catalog.processor_configs import ArraysSpec
from pocketzoo.zoo.catalog.signature import TensorSpec
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.data.read_once import Inputs, ReadOnce

TYPES = ("float32", "int64", "uint8", "bool", "float16")


class Source:
    """Batches that count how often each is read; ``closed`` once a pass is over, or given up."""

    def __init__(self, batches, fails_at=None):
        self.batches, self.fails_at = batches, fails_at
        self.reads = [0] * len(batches)
        self.closed = 0

    def __iter__(self):
        try:
            for i, batch in enumerate(self.batches):
                if i == self.fails_at:
                    raise DataError("a file is damaged", "leave it out")
                self.reads[i] += 1
                yield batch
        finally:
            self.closed += 1


def batches(count=5, seed=0):
    """Two inputs of changing shapes and types, some without values or without axes."""
    random = np.random.default_rng(seed)
    shapes = [(int(random.integers(0, 4)), 3, int(random.integers(1, 5))) for _ in range(count)]
    return [
        {"x": (random.normal(size=shape) * 9).astype(TYPES[i % len(TYPES)]), "scale": np.float32(i).reshape(())}
        for i, shape in enumerate(shapes)
    ]


def same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert list(a) == list(b)
        for name in a:
            assert (a[name].dtype, a[name].shape) == (b[name].dtype, b[name].shape)
            np.testing.assert_array_equal(a[name], b[name])


@given(budget=st.integers(0, 400), passes=st.lists(st.integers(0, 6), min_size=1, max_size=5), seed=st.integers(0, 5))
def test_each_batch_is_read_once_whatever_part_a_pass_takes_and_memory_holds(budget, passes, seed):
    source = Source(batches(seed=seed))
    with ReadOnce(source, budget) as kept:
        for length in passes:
            same(list(islice(kept, length)), source.batches[:length])
            assert max(source.reads) <= 1
        same(list(kept), source.batches)
    assert source.reads == [1] * 5
    assert source.closed == 1


def test_two_passes_at_once_share_what_is_read():
    source = Source(batches())
    with ReadOnce(source, 100) as kept:
        pairs = list(zip(kept, islice(kept, 1, None), strict=False))
    same([a for a, _ in pairs], source.batches[:-1])
    same([b for _, b in pairs], source.batches[1:])
    assert source.reads == [1] * 5


@pytest.mark.parametrize("budget", [0, 10**6])
def test_who_changes_a_batch_changes_it_for_nobody_else(budget):
    with ReadOnce(Source([{"x": np.ones(3, np.float32)}]), budget) as kept:
        for batch in kept:
            batch["x"] *= 0
        same(list(kept), [{"x": np.ones(3, np.float32)}])


def test_memory_holds_no_more_than_the_budget():
    rows = [{"x": np.full(1000, i, np.float32)} for i in range(20)]
    with ReadOnce(Source(rows), 3 * 4000) as kept:
        same(list(kept), rows)
        held = [each["x"].nbytes for each in kept._kept if isinstance(each["x"], np.ndarray)]
        assert held == [4000] * 3
        assert os.fstat(kept._file.fileno()).st_size == 17 * 4000


@pytest.mark.parametrize("fails_at", [None, 3])
def test_no_file_is_left_also_where_reading_fails(tmp_path, monkeypatch, fails_at):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = set(os.listdir("/proc/self/fd")) if Path("/proc").exists() else set()
    source = Source(batches(), fails_at)
    with ReadOnce(source, 0) as kept:
        if fails_at is None:
            same(list(kept), source.batches)
        else:
            for _ in range(2):  # the second pass must not take what came before the error for all there is
                with pytest.raises(DataError, match="damaged"):
                    list(kept)
        assert list(tmp_path.iterdir()) == []  # it has no name even while it is open
    assert source.closed == 1
    gc.collect()
    if before:
        assert set(os.listdir("/proc/self/fd")) <= before


def test_what_is_closed_reads_anew():
    source = Source(batches())
    kept = ReadOnce(source)
    next(iter(kept))
    kept.close()
    assert source.closed == 1  # a reader that works ahead in threads is ended, not left waiting
    same(list(kept), source.batches)
    assert source.reads == [2, 1, 1, 1, 1]


@pytest.mark.parametrize("limit", [1, 3, 4, 5, 8, 100])
def test_the_first_samples_are_of_what_is_kept(limit):
    x = np.arange(18, dtype=np.float32).reshape(9, 2)
    inputs = Inputs.of(Batches(Split(x), ArraysSpec(inputs=(TensorSpec(name="x", shape=("batch", 2)),)), size=4))
    few = replace(inputs, limit=limit)
    assert few.kept is inputs.kept
    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in few]), x[:limit])
    np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in inputs]), x)


def test_objects_are_kept_in_memory():
    texts = np.array(["a", None], object)
    with ReadOnce(Source([{"x": texts}]), 0) as kept:
        assert [list(batch["x"]) for batch in kept] == [["a", None]]
        assert kept._file is None
