"""Images of shapes and noise beside a user's own, where these are of so few sources that they do not reach far.

They lie in the range of the images that they are put beside, channel by channel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pocketzoo.compress.samples.images import is_image
from pocketzoo.compress.samples.leaves import leaves
from pocketzoo.core.arrays import Arrays, named

TOGETHER = 8  # images of a batch
Ends = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]  # least and largest values (C, 1, 1)


@dataclass(frozen=True)
class Shapes:
    """``count`` images, iterable as often as one likes, and each time the same."""

    name: str  # of the model's one input
    like: npt.NDArray[np.floating]  # an image (C, H, W) of the samples
    ends: Ends
    count: int
    seed: int = 0

    def __iter__(self) -> Iterator[Arrays]:
        low, high = self.ends
        for start in range(0, self.count, TOGETHER):
            made = leaves(min(TOGETHER, self.count - start), self.like.shape, self.seed + start)
            yield {self.name: (low + made * (high - low)).astype(self.like.dtype)}

    @property
    def groups(self) -> npt.NDArray[np.int64]:
        """A source for each, which no other sample has."""
        return -1 - np.arange(self.count, dtype=np.int64)


def shapes(samples: Iterable[Arrays], count: int, seed: int = 0) -> Shapes | None:
    """So many images in the range of the samples; None where these are no images, or not of one input alone."""
    name, like, ends = "", None, None
    for batch in samples:
        arrays = named(batch)
        x = next(iter(arrays.values()))
        if len(arrays) != 1 or not is_image(x) or (like is not None and x.shape[1:] != like.shape):
            return None
        low, high = (end((0, 2, 3)).reshape(-1, 1, 1).astype(np.float32) for end in (x.min, x.max))
        ends = (low, high) if ends is None else (np.minimum(ends[0], low), np.maximum(ends[1], high))
        name, like = next(iter(arrays)), x[0].copy()
    return None if like is None or ends is None else Shapes(name, like, ends, count, seed)
