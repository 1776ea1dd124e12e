from __future__ import annotations

import numpy as np
import pytest

from pocketzoo.compress.samples.leaves import leaves, noise


@pytest.mark.parametrize("shape", [(3, 32, 48), (1, 8, 8), (3, 64, 64)])
def test_images_are_of_the_shape_and_between_black_and_white(shape):
    images = leaves(4, shape)
    assert images.shape == (4, *shape)
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert (images.std((1, 2, 3)) > 0.01).all()
    assert np.array_equal(images, leaves(4, shape))
    assert np.array_equal(images[:2], leaves(2, shape))
    assert not np.array_equal(images, leaves(4, shape, seed=1))


@pytest.mark.parametrize("slope", [0.5, 1.0, 1.5])
def test_amplitudes_of_noise_fall_as_frequency_to_the_slope(slope):
    made = noise((1, 128, 128), slope, np.random.default_rng(0))
    power = np.abs(np.fft.rfft2(made)[0]) ** 2
    frequency = np.hypot(np.fft.fftfreq(128)[:, None] * 128, np.fft.rfftfreq(128)[None] * 128)
    inside = (frequency >= 2) & (frequency < 60)
    fitted = np.polyfit(np.log(frequency[inside]), np.log(power[inside]), 1)[0]
    assert fitted == pytest.approx(-2 * slope, abs=0.1)
