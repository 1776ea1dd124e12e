"""Samples in two parts by source: how many sources each has, and which samples to hold out of those that calibrate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.zoo.catalog.dataset import Groups, LazyImages, Split
from pocketzoo.zoo.data.grouping.near_duplicates import near_duplicates
from pocketzoo.zoo.data.grouping.sentences import FEWEST, shared

LEAST = 1 / 2  # of the samples wanted on a side, below which whole sources are too unlike in size to be held out


@dataclass(frozen=True, slots=True)
class SourceCounts:
    """The sources of the samples that calibrate, and of those that judge what came of it."""

    by: str  # what told them apart, see ``Groups.by``
    calibration: int
    left_out: int  # of the samples that judge
    shared: int  # sources that are in both
    others: int = 0  # of samples that neither calibrate nor judge, such as those that test

    @property
    def fair(self) -> bool:
        """Whether what judges is of sources that nothing was calibrated on, of data that has enough for that."""
        return not self.shared and self.left_out > 0 and self.calibration + self.left_out + self.others >= FEWEST


def groups_of(calibrating: Split, judging: Split, most: tuple[int, int]) -> tuple[Groups, Groups]:
    """The sources of the first samples of two splits, ``most`` of each: those they have, or found in both together."""
    counts = min(most[0], len(calibrating)), min(most[1], len(judging))
    rows = np.arange(counts[0]), np.arange(counts[1])
    if calibrating.groups is not None and judging.groups is not None:
        return calibrating.groups.take(rows[0]), judging.groups.take(rows[1])
    firsts = [_first(split.samples, count) for split, count in zip((calibrating, judging), counts, strict=True)]
    if (both := _joined(*firsts)) is None:  # images that are decoded when they are asked for
        one, other = map(near_duplicates, firsts)
        return one, replace(other, ids=other.ids + counts[0])
    groups = near_duplicates(both)
    return groups.take(rows[0]), groups.take(rows[1] + counts[0])


def source_counts(calibrating: Groups, judging: Groups, testing: Groups | None = None) -> SourceCounts:
    """Of the samples that calibrate, of those that judge, and of those that test where their sources are known."""
    both = np.concatenate([calibrating.ids, judging.ids])
    others = 0 if testing is None else len(np.setdiff1d(testing.ids, both))
    return SourceCounts(calibrating.by, calibrating.count, judging.count, shared(calibrating, judging), others)


def held_out(ids: npt.NDArray[np.int64] | None, count: int, one_in: int) -> npt.NDArray[np.bool_] | None:
    """Which of ``count`` samples to hold out, about one in ``one_in``, so that no source is on both sides.

    None where that cannot be: the sources are not known, there is one alone, or they differ too much in size. And where
    each sample is its own source, so that any may be.
    """
    if ids is None or len(ids) != count:
        return None
    sources, first, number, sizes = np.unique(ids, return_index=True, return_inverse=True, return_counts=True)
    if len(sources) in (1, count) or not count:
        return None
    wanted = count / one_in
    out, size = np.zeros(len(sources), bool), 0
    for one in sorted(range(len(sources)), key=lambda source: (-sizes[source], first[source])):
        if abs(size + sizes[one] - wanted) < abs(size - wanted):
            out[one], size = True, size + int(sizes[one])
    if not LEAST * wanted <= size <= wanted / LEAST or count - size < LEAST * (count - wanted):
        return None
    held: npt.NDArray[np.bool_] = out[number]
    return held


def _first(samples: Any, count: int) -> Any:
    """The first samples, none of which is decoded for it."""
    if isinstance(samples, np.ndarray):
        return samples[:count]
    return samples.take(np.arange(count)) if isinstance(samples, LazyImages) else list(islice(samples, count))


def _joined(one: Any, other: Any) -> Any:
    """The samples of both as one; None where they cannot be put together."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.concatenate([one, other]) if one.shape[1:] == other.shape[1:] else None
    return [*one, *other] if isinstance(one, list) and isinstance(other, list) else None
