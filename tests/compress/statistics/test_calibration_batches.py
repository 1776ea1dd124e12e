from __future__ import annotations

import numpy as np
import pytest
import torch

from pocketzoo.compress.statistics.calibration_batches import first_batch, parts, size_of
from pocketzoo.core.arrays import batch_size
from pocketzoo.core.errors import DataError


@pytest.mark.parametrize("count", [1, 2, 7])
def test_two_samples_are_taken_however_many_there_are(count):
    x = np.arange(count * 12, dtype=np.float32).reshape(count, 3, 4)
    (found,) = first_batch([{"x": x}, {"x": x + 1}])
    assert found.shape == (2, 3, 4)
    assert torch.equal(found[0], torch.from_numpy(x[0]))
    assert torch.equal(found[1], torch.from_numpy(x[min(1, count - 1)]))


BATCHES = [{"x": np.arange(5, dtype=np.float32)[:, None]}, {"x": np.arange(5, 12, dtype=np.float32)[:, None]}]


@pytest.mark.parametrize(
    ("size", "count", "sizes"),
    [
        (3, None, [3, 2, 3, 3, 1]),
        (5, None, [5, 5, 2]),
        (100, None, [5, 7]),
        (1, 2, [1, 1]),
        (2, 5, [2, 2, 1]),
        (2, 6, [2, 2, 1, 1]),
        (4, 12, [4, 1, 4, 3]),
        (4, 50, [4, 1, 4, 3]),
        (4, 0, []),
    ],
)
def test_samples_come_in_their_order_and_no_more_than_asked_for(size, count, sizes):
    found = list(parts(BATCHES, size, count))
    assert list(map(size_of, found)) == sizes
    assert torch.cat([torch.empty(0, 1), *(x for (x,) in found)]).ravel().tolist() == list(range(sum(sizes)))


def test_no_more_batches_are_read_than_are_needed():
    read = []

    def reading():
        for batch in BATCHES:
            read.append(batch_size(batch))
            yield batch

    assert len(list(parts(reading(), 5, 5))) == 1
    assert read == [5, 7], "one that is not used is looked at, and no more"


@pytest.mark.parametrize("size", [1, 2, 5, 7])
def test_a_batch_that_is_too_small_is_repeated(size):
    (found,) = first_batch(BATCHES, size)
    assert found.ravel().tolist() == [i % 5 for i in range(size)]


def test_without_samples_there_is_nothing_to_calibrate_on(refused):
    with refused(DataError, "no samples to calibrate on", hint="training split"):
        first_batch([])
    assert list(parts([], 3)) == []


def test_what_is_missing_is_said_whole():
    with pytest.raises(DataError) as caught:
        first_batch(iter(()))
    assert str(caught.value) == "there are no samples to calibrate on\ngive a data set with a training split"


@pytest.mark.parametrize("shape", [(1,), (1, 2), (1, 2, 3), (1, 1, 1, 1)])
def test_a_sample_is_repeated_as_it_is(shape):
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    (found,) = first_batch([{"x": x}], 3)
    assert found.shape == (3, *shape[1:])
    assert all(torch.equal(row, torch.from_numpy(x)[0]) for row in found)
