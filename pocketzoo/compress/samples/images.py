"""More images of images: crops, mirror images, other light and colors, and mixtures of two sources.

All are arrays as a model reads them (1, C, H, W), floats that were normalized. Nothing leaves what the images that they
are made of reach in each channel: what is made may lie elsewhere within it, and not outside. Mixtures are mixup (Zhang
et al. 2018, arXiv:1710.09412) and cutmix (Yun et al. 2019, arXiv:1905.04899) of two sources, never of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import Arrays
from pocketzoo.zoo.catalog.specs import InputSpec

Image = npt.NDArray[np.floating[Any]]  # (C, H, W)
Ids = npt.NDArray[np.int64]

LEAST_SIDE = 8  # pixels: an array of fewer is no image
CHANNELS = (1, 3)
ZOOM = (0.5, 1.2)  # sides of what is cut out over those of the image; what is beyond these is its mirror image
STRETCH = 1.25  # of one side over the other's, either way
LIGHT = 0.3  # fraction of brightness, contrast and saturation, more or less
MIXED = 1 / 3  # of what is made is of two sources, half of them added up and half put together


@dataclass(frozen=True)
class ImageMaker:
    """More of some samples, each a mapping of input -> (1, C, H, W); ``names`` are the inputs that are images."""

    samples: Sequence[Arrays]
    ids: Ids  # the source of each
    names: tuple[str, ...]
    ends: dict[str, tuple[Image, Image]]  # values (C, 1, 1) of black and of white of each input, as far as known
    reach: dict[str, tuple[Image, Image]]  # least and largest values (C, 1, 1) of all samples

    @classmethod
    def of(cls, samples: Sequence[Arrays], ids: Ids, image: InputSpec | None = None) -> ImageMaker | None:
        """None where no input is an image. ``image``: what the input of its name is like, where that is known."""
        names = tuple(name for name, x in samples[0].items() if is_image(x)) if samples else ()
        if not names:
            return None
        reach = {}
        for name in names:
            lows = np.min([sample[name][0].min((1, 2), keepdims=True) for sample in samples], axis=0)
            highs = np.max([sample[name][0].max((1, 2), keepdims=True) for sample in samples], axis=0)
            reach[name] = (lows, highs)
        ends = {name: _stated(image, name, reach[name]) for name in names}
        return cls(samples, np.asarray(ids), names, ends, reach)

    def __call__(self, generator: np.random.Generator) -> tuple[Arrays, int]:
        """One more sample, and the source that it is of; of two the one that has more of it."""
        place = int(generator.integers(len(self.samples)))
        sample, source = self.samples[place], int(self.ids[place])
        # All images of a sample change in the same way, each in its own units.
        change = ImageChange.drawn(generator)
        made = {**sample, **{name: self._changed(name, sample[name][0], change) for name in self.names}}
        others = np.flatnonzero(self.ids != source)
        if len(sample) == len(self.names) and len(others) and generator.random() < MIXED:  # other inputs do not mix
            other = self.samples[int(generator.choice(others))]
            second = ImageChange.drawn(generator)
            fraction, patch = float(generator.uniform(0.5, 0.9)), generator.random(2)
            whole = generator.random() < 0.5
            for name in self.names:
                theirs = self._changed(name, other[name][0], second)
                made[name] = (
                    mixup(made[name], theirs, fraction) if whole else cutmix(made[name], theirs, fraction, *patch)
                )
        return {name: x[None] if name in self.names else x for name, x in made.items()}, source

    def _changed(self, name: str, image: Image, change: ImageChange) -> Image:
        made = lit(cut_out(image.astype(np.float32), change), change, *self.ends[name])
        return np.clip(made, *self.reach[name]).astype(image.dtype)


def is_image(x: npt.NDArray[Any]) -> bool:
    """Whether an array is one of images (N, C, H, W): of floats, gray or in colors."""
    return x.dtype.kind == "f" and x.ndim == 4 and x.shape[1] in CHANNELS and min(x.shape[2:]) >= LEAST_SIDE


@dataclass(frozen=True)
class ImageChange:
    """What is done to an image; fractions of its sides."""

    top: float
    left: float
    height: float
    width: float
    mirrored: bool
    brightness: float
    contrast: float
    saturation: float

    @classmethod
    def drawn(cls, generator: np.random.Generator) -> ImageChange:
        """One by chance."""
        zoom, stretch = generator.uniform(*ZOOM), STRETCH ** (generator.uniform(-1, 1) / 2)
        height, width = zoom * stretch, zoom / stretch
        top, left = generator.random() * (1 - height), generator.random() * (1 - width)
        brightness, contrast, saturation = generator.uniform(1 - LIGHT, 1 + LIGHT, 3)
        mirrored = bool(generator.random() < 0.5)
        return cls(top, left, height, width, mirrored, brightness, contrast, saturation)


def cut_out(image: Image, change: ImageChange) -> Image:
    """A part of an image (C, H, W), resized to its size by bilinear interpolation, mirrored or not.

    What lies outside is the image in a mirror at its border.
    """
    _, height, width = image.shape
    above, below, down = _between(change.top, change.height, height)
    left, right, across = _between(change.left, change.width, width)
    rows = image[:, above] * (1 - down)[:, None] + image[:, below] * down[:, None]
    made = rows[:, :, left] * (1 - across) + rows[:, :, right] * across
    return made[:, :, ::-1] if change.mirrored else made


def lit(image: Image, change: ImageChange, black: Image, white: Image) -> Image:
    """An image (C, H, W) in other light: brightness, contrast around its mean, saturation, in this order."""
    size = np.where(white > black, white - black, 1.0).astype(image.dtype)
    level = (image - black) / size * np.float32(change.brightness)
    level = (level - level.mean()) * np.float32(change.contrast) + level.mean()
    gray = level.mean(0, keepdims=True)
    made: Image = (gray + (level - gray) * np.float32(change.saturation)) * size + black
    return made


def mixup(one: Image, other: Image, fraction: float) -> Image:
    """Two images (C, H, W) added up, ``fraction`` of the first."""
    mixed: Image = (fraction * one + (1 - fraction) * other).astype(one.dtype)
    return mixed


def cutmix(one: Image, other: Image, fraction: float, top: float, left: float) -> Image:
    """A rectangle of the second image in the first, which keeps ``fraction`` of its area; ``top``, ``left``: 0 to 1."""
    height, width = (max(round(side * (1 - fraction) ** 0.5), 1) for side in one.shape[1:])
    row, column = round(top * (one.shape[1] - height)), round(left * (one.shape[2] - width))
    mixed = one.copy()
    mixed[:, row : row + height, column : column + width] = other[:, row : row + height, column : column + width]
    return mixed


def _between(start: float, length: float, size: int) -> tuple[Ids, Ids, npt.NDArray[np.float32]]:
    """For each of ``size`` places the two pixels that it lies between, and how near it is to the second."""
    at = (start + (np.arange(size) + 0.5) / size * length) * size - 0.5
    first = np.floor(at).astype(np.int64)
    return _mirror(first, size), _mirror(first + 1, size), (at - first).astype(np.float32)


def _mirror(places: Ids, size: int) -> Ids:
    """Places beyond the border as those in the mirror at it."""
    turned = places % (2 * size)
    return np.where(turned < size, turned, 2 * size - 1 - turned)


def _stated(image: InputSpec | None, name: str, reach: tuple[Image, Image]) -> tuple[Image, Image]:
    """Black and white (C, 1, 1) as an input's spec has them, else the least and largest values of its samples."""
    return black_and_white(image, name, len(reach[0])) or reach


def black_and_white(image: InputSpec | None, name: str, channels: int) -> tuple[Image, Image] | None:
    """What pixels of both are (C, 1, 1) once they are normalized; None where ``image`` is not of that input."""
    if image is None or image.name != name or len(image.mean) != channels:
        return None
    mean, std = (np.reshape(np.array(each, np.float32), (-1, 1, 1)) for each in (image.mean, image.std))
    return (image.value_range[0] - mean) / std, (image.value_range[1] - mean) / std
