"""More samples of those that calibrate, one interface for all kinds of inputs: samples in, more samples out.

``further`` is what the steps call. Which makers there are is ``MAKERS``: each is asked whether it can make more of what
it is shown, and draws one sample after the other by chance. The same samples, seed and count give the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.compress.samples.images import ImageMaker
from pocketzoo.compress.samples.tokens import TokenMaker
from pocketzoo.core.arrays import Arrays, batch_size, joined, named, own_memory, rows

Ids = npt.NDArray[np.int64]
Make = Callable[[np.random.Generator], tuple[Arrays, int]]  # -> one more sample (a batch of one), and its source
Maker = Callable[[Sequence[Arrays], Ids, Any], Make | None]  # (samples in batches of one, their sources, image spec)

MAKERS: tuple[Maker, ...] = (ImageMaker.of, TokenMaker.of)
POOL = 32 * 2**20  # bytes of samples that others are made of at a time, some of each source
TOGETHER = 8  # samples of a batch that is made


@dataclass(frozen=True)
class FurtherSamples:
    """``count`` samples that are made of others; iterable as often as one likes, and each time the same.

    To judge anything by sources that are left out, leave them out first, and make more of the others: what is made of
    two sources counts as one of them.
    """

    samples: Iterable[Arrays]  # that they are made of
    count: int
    seed: int = 0

    def __iter__(self) -> Iterator[Arrays]:
        """In batches of ``TOGETHER`` at most, of one shape each."""
        for batch in self._batches():
            yield joined([sample for sample, _ in batch])

    @property
    def groups(self) -> Ids:
        """The source (count,) of each, one of those of the samples."""
        return np.array([source for batch in self._batches() for _, source in batch], np.int64)

    def _batches(self) -> Iterator[list[tuple[Arrays, int]]]:
        """Those of a shape wait for one another, so that texts of many lengths make few batches."""
        waiting: dict[tuple[tuple[int, ...], ...], list[tuple[Arrays, int]]] = {}
        for sample, source in self._made():
            batch = waiting.setdefault(tuple(x.shape for x in sample.values()), [])
            batch.append((sample, source))
            if len(batch) == TOGETHER:
                yield list(batch)
                batch.clear()
        yield from (batch for batch in waiting.values() if batch)

    def _made(self) -> Iterator[tuple[Arrays, int]]:
        make = _maker(self.samples)
        if make is None:
            return
        for number in range(self.count):
            yield make(np.random.default_rng([self.seed, number]))


@dataclass(frozen=True)
class Joined:
    """Samples, and others after them, with the sources of all; iterable as often as one likes."""

    parts: tuple[Iterable[Arrays], ...]

    def __iter__(self) -> Iterator[Arrays]:
        for part in self.parts:
            yield from part

    @property
    def groups(self) -> Ids | None:
        """The source of each; None where some do not say what they are of."""
        known = [ids for part in self.parts if (ids := getattr(part, "groups", None)) is not None]
        return np.concatenate(known) if len(known) == len(self.parts) else None


def further(samples: Iterable[Arrays], count: int, seed: int = 0) -> FurtherSamples | None:
    """``count`` more samples of these; None where nothing is known that could be made of them.

    ``samples`` may have ``groups`` (the source of each: then some of each source are taken, and mixtures are of two)
    and ``image`` (the ``InputSpec`` of their input that is an image, from which black and white are known).
    """
    made = FurtherSamples(samples, count, seed)
    return made if count > 0 and _maker(samples) is not None else None


def _maker(samples: Iterable[Arrays]) -> Make | None:
    pool, ids = _pool(samples)
    image = getattr(samples, "image", None)
    return next((make for maker in MAKERS if pool and (make := maker(pool, ids, image)) is not None), None)


def _pool(samples: Iterable[Arrays]) -> tuple[list[Arrays], Ids]:
    """As many samples as there is room for, in batches of one, of as many sources as there are; and their sources."""
    groups = getattr(samples, "groups", None)
    turn: Ids | None = None if groups is None else turns(np.asarray(groups))
    kept: list[tuple[int, int, Arrays]] = []  # in how manieth a turn its source comes, its place, itself
    size = place = 0
    for batch in samples:
        arrays = named(batch)
        if len({len(x) if x.ndim else 0 for x in arrays.values()}) > 1:
            return [], np.zeros(0, np.int64)  # not all count samples along their first axis
        for row in range(batch_size(arrays)):
            own = rows(arrays, slice(row, row + 1))
            kept.append((0 if turn is None else int(turn[place]), place, own_memory(own)))
            size, place = size + _bytes(kept[-1][2]), place + 1
            if size > POOL and len(kept) > 1:
                size -= _bytes(kept.pop(max(range(len(kept)), key=lambda i: kept[i][:2]))[2])
    kept.sort(key=lambda each: each[1])
    places = np.array([each[1] for each in kept], np.int64)
    return [each[2] for each in kept], places if groups is None else np.asarray(groups, np.int64)[places]


def turns(groups: Ids) -> Ids:
    """For each sample (N,) how many of its source came before it."""
    seen: dict[int, int] = {}
    places = []
    for source in groups.tolist():
        places.append(seen.get(source, 0))
        seen[source] = places[-1] + 1
    return np.array(places, np.int64)


def _bytes(sample: Arrays) -> int:
    return sum(x.nbytes for x in sample.values())
