"""Batches of a split, read lazily and checked against the model's input."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import SPLITS, Dataset, Groups, LazyImages, Split, SplitName, Targets, files_of
from pocketzoo.zoo.catalog.processor import Processor
from pocketzoo.zoo.data.grouping.group_by import NOTHING_SAID, GroupBy
from pocketzoo.zoo.data.grouping.near_duplicates import grouped
from pocketzoo.zoo.data.grouping.sentences import FEWEST
from pocketzoo.zoo.data.processors.open_processor import as_processor

DIGITS = frozenset("0123456789")
SHARES = (0.6, 0.2, 0.2)  # of a data set that comes unsplit
SEVERAL = 5  # sources of a class that are enough for every split
P = TypeVar("P")
R = TypeVar("R")


@dataclass
class Skipped:
    """What a reader left out, because it could not be read and the user said to continue."""

    names: set[str] = field(default_factory=set)  # a file that is read again is not counted again

    def listed(self) -> list[str]:
        """The names, those with numbers in the order of these."""
        return sorted(self.names, key=lambda name: [_ranked(part) for part in re.split("([0-9]+)", name)])


def _ranked(part: str) -> tuple[int, str]:
    """Of a number its length before its digits: int() reads no more than some thousand of them."""
    digits = part.lstrip("0")
    return (len(digits), digits) if part[:1] in DIGITS and part else (-1, part)


@dataclass(frozen=True)
class Batches:
    """The batches of a split: the model's inputs by name, and targets; read one at a time, as often as one likes."""

    split: Split
    spec: Any  # a processor that was opened, or the config of a registered one
    size: int = 32
    limit: int | None = None  # samples
    skipped: Skipped | None = None  # where to note files that cannot be read; None: the first one is an error
    files: Mapping[str, Path] = field(default_factory=dict)  # of the model by name, where ``spec`` is a config

    def __len__(self) -> int:
        return (self.samples + self.size - 1) // self.size

    @property
    def samples(self) -> int:
        return min(len(self.split), len(self.split) if self.limit is None else self.limit)

    @property
    def processor(self) -> Processor:
        """What makes arrays of the samples."""
        return as_processor(self.spec, self.files)

    @property
    def axes(self) -> dict[str, int | None]:
        """Input -> which of its axes counts samples; None where none does."""
        return {tensor.name: tensor.batch for tensor in self.processor.inputs}

    def __iter__(self) -> Iterator[tuple[Arrays, Targets | None]]:
        starts = range(0, self.samples, self.size)
        return self.of(range(start, min(start + self.size, self.samples)) for start in starts)

    def of(self, parts: Iterable[Sequence[int]]) -> Iterator[tuple[Arrays, Targets | None]]:
        """The batches of these rows, in this order; one of which no file can be read is left out."""
        read = partial(self._read, self.processor)
        lazy = isinstance(self.split.samples, LazyImages)  # the first may be damaged
        files = bool(len(self.split)) and not lazy and bool(files_of(self.split.samples[0]))
        loaded = ahead(read, parts) if files else map(read, parts)
        return (batch for batch in loaded if batch is not None)

    def _read(self, processor: Processor, rows: Sequence[int]) -> tuple[Arrays, Targets | None] | None:
        samples: Any = self.split.samples
        rows, texts = list(rows), False
        try:
            samples = samples[rows] if isinstance(samples, np.ndarray) else [samples[i] for i in rows]
            texts = processor.text is None and isinstance(samples[0], str) and not os.path.isfile(samples[0])
            if texts:
                raise DataError(
                    "the data are texts, and this model does not read text", "give a folder of images, or others"
                )
            arrays = processor(samples)
        except DataError:
            if texts:  # all samples are of another kind, so that none of them is skipped
                raise
            if self.skipped is None:
                self._name(processor, rows)
                raise
            rows = [i for i in rows if self._is_readable(processor, i)]
            if not rows:
                return None
            arrays = processor([self.split.samples[i] for i in rows])
        return arrays, None if self.split.targets is None else self.split.targets[rows]

    def _name(self, processor: Processor, rows: Sequence[int]) -> None:
        """Raise the error of the first of these samples that cannot be read alone, with its place in front of it."""
        for row in rows if len(self.split.places) else ():
            try:
                processor([self.split.samples[row]])
            except DataError as error:
                raise DataError(f"{self.split.called(row)}: {error.message}", error.hint) from error

    def _is_readable(self, processor: Processor, row: int) -> bool:
        """Whether a sample is; one that is not is noted. Of an array all rows are alike, so that one is an error."""
        samples = self.split.samples
        try:
            processor([samples[row]])
        except DataError:
            if self.skipped is None or isinstance(samples, np.ndarray):
                raise
            self.skipped.names.add(self.split.called(row))
            return False
        return True


def ahead(read: Callable[[P], R], items: Iterable[P], workers: int = os.cpu_count() or 1) -> Iterator[R]:
    """``map`` that works on the next items in threads while one is used: decoding images keeps all cores busy."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def divide(
    targets: Targets | None, count: int, seed: int, groups: Groups | None = None
) -> dict[SplitName, npt.NDArray[np.int64]]:
    """Indices of the three splits, every class in the same fractions.

    Samples of one source stay together, and classes are in as nearly the same fractions as that allows. Of fewer than
    ``FEWEST`` none can be left out for each split: then samples are divided as if each were its own.
    """
    generator = np.random.default_rng(seed)
    has_classes = targets is not None and targets.ndim == 1 and targets.dtype.kind != "f"
    classes = targets if targets is not None and has_classes else np.zeros(count, np.int64)
    parts: dict[SplitName, list[npt.NDArray[np.int64]]] = {name: [] for name in SPLITS}
    if groups is not None and FEWEST <= groups.count < count:
        for name, part in zip(SPLITS, _whole_sources(classes, groups.ids, generator), strict=True):
            parts[name].append(part)
    else:
        for label in np.unique(classes):
            members = generator.permutation(np.flatnonzero(classes == label))
            ends = np.round(np.cumsum(SHARES) * len(members)).astype(int)
            for name, part in zip(SPLITS, np.split(members, ends[:-1]), strict=True):
                parts[name].append(part)
    # Shuffled once more, so that the first samples of a split are a fair sample of all classes.
    return {name: generator.permutation(np.concatenate(part)) for name, part in parts.items()}


def _whole_sources(
    classes: Targets, ids: npt.NDArray[np.int64], generator: np.random.Generator
) -> list[npt.NDArray[np.int64]]:
    """Indices of each split: sources from the largest on, each to where the counts become nearest to those wanted."""
    labels, number = np.unique(classes, return_inverse=True)
    sources, source, sizes = np.unique(ids, return_inverse=True, return_counts=True)
    counts = np.zeros((len(sources), len(labels)), np.int64)
    np.add.at(counts, (source, number), 1)
    of_label, rare = counts > 0, (counts > 0).sum(0) < SEVERAL
    counts = np.concatenate([counts[:, ~rare], counts[:, rare].sum(1, keepdims=True)], 1)  # those count as one
    ends = np.round(np.cumsum(SHARES)[:, None] * counts.sum(0)).astype(np.int64)
    lacking = np.diff(ends, axis=0, prepend=0)  # (splits, labels)
    place, learned = np.empty(len(sources), np.int64), np.zeros(len(labels), bool)
    order = generator.permutation(len(sources))
    for one in order[np.argsort(-sizes[order], kind="stable")]:
        place[one] = ((counts[one] - 2 * lacking) * counts[one]).sum(1).argmin()  # of the squared differences
        if (of_label[one] & ~learned).any() and 2 * lacking[0].sum() >= sizes[one]:
            place[one] = 0  # a class that is not learned cannot be answered
        if place[one] == 0:
            learned |= of_label[one]
        lacking[place[one]] -= counts[one]
    return [np.flatnonzero(place[source] == split) for split in range(len(SPLITS))]


def divided(whole: Split, seed: int, by: GroupBy = NOTHING_SAID, root: Path = Path()) -> dict[SplitName, Split]:
    """One piece in three splits, by source; see ``grouped`` for ``by`` and ``root``."""
    whole = grouped(whole, by, root)
    return {name: whole.take(rows) for name, rows in divide(whole.targets, len(whole), seed, whole.groups).items()}


def completed(
    defined: Mapping[SplitName, Split], seed: int, by: GroupBy = NOTHING_SAID, root: Path = Path()
) -> dict[SplitName, Split]:
    """All three splits; one that is missing is cut from train, so that no sample is in two, and no source."""
    cut = [name for name in SPLITS[1:] if name not in defined]
    splits = {name: grouped(split, by, root) if by.kind else split for name, split in defined.items()}
    train = grouped(defined["train"], by, root) if cut else splits["train"]
    rest = divide(train.targets, len(train), seed, train.groups) if cut else {}
    taken = [np.empty(0, np.int64)]
    for name in cut:
        splits[name] = train.take(rest[name])
        taken.append(rest[name])
    left = np.setdiff1d(np.arange(len(train)), np.concatenate(taken))
    splits["train"] = train.take(np.random.default_rng(seed).permutation(left))
    return splits


def from_arrays(
    name: str,
    labels: tuple[str, ...],
    x: Any,
    y: Targets | None,
    seed: int = 0,
    places: Sequence[str] = (),
    groups: Groups | None = None,
) -> Dataset:
    """A data set in memory, divided by ``seed``; ``places`` are what its samples are called.

    ``groups`` are the sources of the samples, of which each is in one split alone; None: near-duplicates are found.
    """
    return Dataset(name, labels, divided(Split(x, y, places, groups), seed), seed)
