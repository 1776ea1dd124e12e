"""Images of nothing that are like photos in what layers see first: noise, edges, plain areas, a few colors.

Photos are made of things that hide one another, so that a photo has as much contrast at any size: leaves of all sizes
fallen on one another have the same statistics (Lee, Mumford and Huang 2001, "Occlusion models for natural images").
Each leaf here has a color, and 1/f noise for its texture. Networks learn useful features of such images alone (Baradad
et al. 2021, arXiv:2106.05963).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]  # (C, H, W), 0 to 1

LEAVES = (10, 160)  # in an image
SIZES = (0.04, 0.7)  # of a leaf, as a fraction of the longer side; the number of those of a size falls as its cube
SLOPE = (0.7, 1.6)  # amplitudes of noise fall as frequency to this power
TEXTURE = (0.0, 0.12)  # standard deviation of a leaf's noise
BACKGROUND = (0.02, 0.25)  # and of what lies behind all


def leaves(count: int, shape: tuple[int, int, int], seed: int = 0) -> npt.NDArray[np.float32]:
    """So many images (count, C, H, W) of values from 0 to 1; the same every time."""
    return np.stack([_image(shape, np.random.default_rng([seed, number])) for number in range(count)])


def noise(shape: tuple[int, int, int], slope: float, generator: np.random.Generator) -> Image:
    """1/f noise (C, H, W) of mean 0 and standard deviation 1, the channels nearly alike."""
    channels, height, width = shape
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None] * width)
    fall = 1 / np.maximum(frequency, 1.0) ** slope
    fall[0, 0] = 0.0
    waves = generator.normal(size=(channels + 1, *fall.shape)) + 1j * generator.normal(size=(channels + 1, *fall.shape))
    made = np.fft.irfft2(waves * fall, s=(height, width))
    made = made[:1] + 0.3 * made[1:]
    return np.asarray(made / max(float(made.std()), 1e-12), np.float32)


def _image(shape: tuple[int, int, int], generator: np.random.Generator) -> Image:
    channels, height, width = shape
    palette = _colors(int(generator.integers(2, 8)), channels, generator)
    texture = noise(shape, generator.uniform(*SLOPE), generator)
    image = palette[0][:, None, None] + generator.uniform(*BACKGROUND) * texture
    image = image + _gradient(shape, generator)
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    low, high = (size * max(height, width) for size in SIZES)
    for _ in range(int(generator.integers(*LEAVES))):
        drawn = generator.random()
        size = (low**-2 - drawn * (low**-2 - high**-2)) ** -0.5  # the inverse of a distribution that falls as its cube
        row, column = generator.uniform(-size, height + size), generator.uniform(-size, width + size)
        turn, ratio = generator.uniform(0, np.pi), generator.uniform(0.3, 1.0)
        top, bottom = max(int(row - size), 0), min(int(row + size) + 2, height)
        left, right = max(int(column - size), 0), min(int(column + size) + 2, width)
        if top >= bottom or left >= right:
            continue
        y, x = rows[top:bottom] - row, columns[:, left:right] - column
        along, across = x * np.cos(turn) + y * np.sin(turn), (y * np.cos(turn) - x * np.sin(turn)) / ratio
        if generator.random() < 0.5:
            distance = np.hypot(along, across)
        else:
            distance = np.maximum(abs(along), abs(across)) * np.sqrt(2)
        cover = np.clip(size - distance + 0.5, 0, 1)  # smooth over one pixel, as a lens is
        color = palette[int(generator.integers(len(palette)))] + generator.normal(0, 0.05, channels)
        moved = np.roll(texture, tuple(generator.integers(0, n) for n in (height, width)), (1, 2))
        leaf = color[:, None, None] + generator.uniform(*TEXTURE) * moved[:, top:bottom, left:right]
        part = image[:, top:bottom, left:right]
        image[:, top:bottom, left:right] = part + cover * (leaf - part)
    return np.asarray(np.clip(image, 0, 1), np.float32)


def _colors(count: int, channels: int, generator: np.random.Generator) -> npt.NDArray[Any]:
    """Colors (count, C): any light, and little color."""
    light = generator.beta(1.2, 1.2, (count, 1))
    return np.asarray(light + generator.normal(0, 0.12, (count, channels)) * (channels > 1))


def _gradient(shape: tuple[int, int, int], generator: np.random.Generator) -> npt.NDArray[Any]:
    """Light that comes from one side."""
    turn, strength = generator.uniform(0, 2 * np.pi), generator.uniform(0, 0.3)
    y, x = np.linspace(-1, 1, shape[1])[:, None], np.linspace(-1, 1, shape[2])[None]
    return np.asarray(strength * (np.cos(turn) * x + np.sin(turn) * y))
