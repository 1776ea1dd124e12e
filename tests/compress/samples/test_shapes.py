from __future__ import annotations

import numpy as np
import pytest

from pocketzoo.compress.samples.shapes import shapes
from pocketzoo.core.arrays import joined


def images(count: int = 10, dtype=np.float32) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, 16, 24)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_images_lie_in_the_range_of_those_that_they_are_put_beside(dtype):
    x = images(dtype=dtype) * np.array([1, 10, 100], dtype).reshape(3, 1, 1)
    made = shapes([{"image": x[:4]}, {"image": x[4:]}], 13)
    batch = joined(list(made))["image"]
    assert batch.shape == (13, 3, 16, 24)
    assert batch.dtype == dtype
    assert (batch.min((0, 2, 3)) >= x.min((0, 2, 3))).all()
    assert (batch.max((0, 2, 3)) <= x.max((0, 2, 3))).all()
    assert (np.ptp(batch, (0, 2, 3)) > 0.5 * np.ptp(x, (0, 2, 3))).all()
    assert np.array_equal(batch, joined(list(made))["image"])
    assert len(np.unique(batch.reshape(13, -1), axis=0)) == 13


def test_each_is_a_source_of_its_own():
    groups = shapes([images()], 5).groups
    assert len(set(groups)) == 5
    assert (groups < 0).all()


@pytest.mark.parametrize(
    "samples",
    [
        [],
        [{"x": np.zeros((4, 7), np.float32)}],
        [{"x": images(), "y": images()}],
        [{"x": images()}, {"x": images()[:, :, :, :8]}],
        [{"x": np.zeros((4, 9, 16, 16), np.float32)}],
    ],
)
def test_of_anything_else_nothing_is_made(samples):
    assert shapes(samples, 5) is None
