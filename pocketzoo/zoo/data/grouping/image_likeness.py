"""Photos that are the same one, resized, compressed anew or mirrored: by a difference hash, then by small versions.

The hash (dHash) says in 64 bits where a gray version of 9 x 8 pixels becomes brighter from left to right. Pairs whose
hashes are near are compared in 32 x 32 pixels: the gray versions of one photo correlate at .99, the colors nearly so.

Another crop of a photo, and one that was turned or painted on, is not found: it is another picture in small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.data.processors.image_preprocessing import decode_image, read_image

SIDE = 32  # pixels of the small version
LEAST = 64  # that a file is decoded to at least: what is smaller after resizing is not what it would be of all pixels
NEAR = 10  # of 64 bits of the hash that may differ
ALIKE = 0.985  # correlation of small gray versions of one photo,
COLORS = 0.95  # and of all three channels together: compression saves on colors
FLAT = 2.0  # standard deviation of gray levels (0-255) below which an image shows nothing to tell it by
BLOCK = 1024  # hashes that are compared at once with all others

Small = npt.NDArray[np.float32]  # (N, 32, 32, 3)


@dataclass(frozen=True)
class SmallImages:
    """Small versions (N, 32, 32, 3) of images; ``known`` (N,) says which show something, of those ``read`` (N,)."""

    pixels: npt.NDArray[np.float32]
    known: npt.NDArray[np.bool_]
    read: npt.NDArray[np.bool_]

    def correlation(self, one: int, other: int) -> float:
        """Of two small versions, at most 1: of all channels together, each without its mean."""
        return _correlation(self.pixels[one], self.pixels[other])

    def alike(self, one: int, other: int, mirrored: bool = False) -> bool:
        """Whether they show the same photo."""
        second = self.pixels[other][:, ::-1] if mirrored else self.pixels[other]
        gray = _correlation(self.pixels[one].mean(-1), second.mean(-1))
        return gray >= ALIKE and _correlation(self.pixels[one], second) >= COLORS


def _hashes(pixels: Small) -> npt.NDArray[np.float32]:
    """(N, 64) of small versions (N, 32, 32, 3), each bit as 1 or -1."""
    gray = pixels.mean(-1)
    columns = np.linspace(0, SIDE, 10).round().astype(int)
    rows = np.linspace(0, SIDE, 9).round().astype(int)
    coarse = np.stack([gray[:, :, a:b].mean(2) for a, b in pairwise(columns)], 2)
    coarse = np.stack([coarse[:, a:b].mean(1) for a, b in pairwise(rows)], 1)
    return np.where(np.diff(coarse, axis=2) > 0, np.float32(1), np.float32(-1)).reshape(len(gray), 64)


def _correlation(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    a, b = (x - x.mean((0, 1)) for x in (a, b))
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / size if size else 0.0


def small_images(samples: Any, rows: Sequence[int]) -> SmallImages:
    """The small versions of the ``rows`` of ``samples``: files, or images as a data set has them.

    What cannot be read is not known.
    """
    pixels = np.zeros((len(rows), SIDE, SIDE, 3), np.float32)
    known, read = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    for row, place in enumerate(rows):
        try:
            sample = samples[place]
            image = decode_image(sample, str(sample), 3, LEAST) if isinstance(sample, Path) else read_image(sample, 3)
        except DataError:  # which is said, or skipped, where the sample is used
            continue
        pixels[row] = np.asarray(image.resize((SIDE, SIDE), 4, reducing_gap=2.0), np.float32)  # 4: the mean of boxes
        read[row] = True
        known[row] = pixels[row].mean(-1).std() >= FLAT
    return SmallImages(pixels, known, read)


def same_photos(small: SmallImages) -> Iterator[tuple[int, int]]:
    """The pairs that show the same photo, mirrored or not."""
    rows = np.flatnonzero(small.known)
    hashes = _hashes(small.pixels[rows])
    for mirrored, others in ((False, hashes), (True, _hashes(small.pixels[rows][:, :, ::-1]))):
        for start in range(0, len(rows), BLOCK):
            distances = (64 - hashes[start : start + BLOCK] @ others.T) / 2
            for a, b in np.argwhere(distances <= NEAR):
                one, other = int(rows[start + a]), int(rows[b])
                if one < other and small.alike(one, other, mirrored):
                    yield one, other
