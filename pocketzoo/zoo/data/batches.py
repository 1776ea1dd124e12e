"""Batches of a split, read lazily and checked against the model's input."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import Array, Arrays, batch_size
from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import SPLITS, Dataset, Split, SplitName, Targets
from pocketzoo.zoo.catalog.specs import Input, InputSpec, TextSpec
from pocketzoo.zoo.data.image_preprocessing import prepare
from pocketzoo.zoo.data.text_encoder import TextEncoder

SHARES = (0.6, 0.2, 0.2)  # of a data set that comes unsplit
P = TypeVar("P")
R = TypeVar("R")


@dataclass
class Skipped:
    """What a reader left out, because it could not be read and the user said to continue."""

    names: set[str] = field(default_factory=set)  # an image that is read again is not counted again


@dataclass(frozen=True)
class Batches:
    """The batches of a split: the model's inputs by name, and targets; read one at a time, as often as one likes."""

    split: Split
    spec: Input
    size: int = 32
    limit: int | None = None  # samples
    skipped: Skipped | None = None  # where to note unreadable images; None: the first one is an error
    files: Mapping[str, Path] = field(default_factory=dict)  # of the backbone: where its tokenizer is

    def __len__(self) -> int:
        return (self.samples + self.size - 1) // self.size

    @property
    def samples(self) -> int:
        return min(len(self.split), len(self.split) if self.limit is None else self.limit)

    def __iter__(self) -> Iterator[tuple[Arrays, Targets | None]]:
        starts = range(0, self.samples, self.size)
        return self.of(range(start, min(start + self.size, self.samples)) for start in starts)

    def of(self, parts: Iterable[Sequence[int]]) -> Iterator[tuple[Arrays, Targets | None]]:
        """The batches of these rows, in this order; one of which no image can be read is left out."""
        read = self._texts() if isinstance(self.spec, TextSpec) else self._images
        files = bool(len(self.split)) and isinstance(self.split.samples[0], Path)
        loaded = ahead(read, parts) if files else map(read, parts)
        return (batch for batch in loaded if batch_size(batch[0]))

    def _images(self, rows: Sequence[int]) -> tuple[Arrays, Targets | None]:
        rows_read = [(row, i) for i in rows if (row := self._row(i)) is not None]
        x = np.stack([row for row, _ in rows_read]) if rows_read else np.empty(0, np.float32)
        return {self.spec.name: x}, None if self.split.targets is None else self.split.targets[
            [i for _, i in rows_read]
        ]

    def _texts(self) -> Callable[[Sequence[int]], tuple[Arrays, Targets | None]]:
        encode: TextEncoder | None = None

        def read(rows: Sequence[int]) -> tuple[Arrays, Targets | None]:
            nonlocal encode
            samples: list[Any] = [self.split.samples[i] for i in rows]
            if isinstance(samples[0], np.ndarray):  # token ids already
                ids: Any = _token_ids(np.stack(samples))
            elif isinstance(samples[0], str):
                assert isinstance(self.spec, TextSpec)
                encode = encode or TextEncoder(self.spec, self.files)
                ids = encode(samples)
            else:
                raise DataError("this model reads texts, but the data are images", "give texts: a .csv or .jsonl")
            return {self.spec.name: ids}, None if self.split.targets is None else self.split.targets[list(rows)]

        return read

    def _row(self, i: int) -> Array | None:
        sample: Any = self.split.samples[i]
        assert isinstance(self.spec, InputSpec)
        if isinstance(sample, str):
            raise DataError("this model reads images, but the data are texts", "give a folder of images")
        if isinstance(sample, np.ndarray) and sample.dtype == np.float32:
            if sample.shape != self.spec.size:
                raise DataError(
                    f"a sample has shape {_by(sample.shape)}, the model reads {_by(self.spec.size)}",
                    "give preprocessed float arrays, or uint8 images (N, height, width[, 3])",
                )
            return sample.astype(np.float32, copy=False)
        try:
            return prepare(sample, self.spec)
        except DataError:
            if self.skipped is None or not isinstance(sample, Path):
                raise
            self.skipped.names.add(str(sample))
            return None


def _token_ids(rows: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Whole numbers (B, T), however a file stored them: as float32 they are exact below 2**24."""
    whole = rows.ndim == 2 and bool((rows == np.floor(rows)).all() and (rows >= 0).all() and (rows < 2**24).all())
    if not whole:
        raise DataError(
            f"this model reads token ids, but the data are {rows.dtype} of shape {_by(rows.shape[1:])}",
            "give texts, or rows of non-negative integers",
        )
    return rows.astype(np.int64)


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


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def divide(targets: Targets | None, count: int, seed: int) -> dict[SplitName, npt.NDArray[np.int64]]:
    """Indices of the three splits, every class in the same fractions."""
    generator = np.random.default_rng(seed)
    has_classes = targets is not None and targets.ndim == 1 and targets.dtype.kind != "f"
    classes = targets if targets is not None and has_classes else np.zeros(count, np.int64)
    parts: dict[SplitName, list[npt.NDArray[np.int64]]] = {name: [] for name in SPLITS}
    for label in np.unique(classes):
        members = generator.permutation(np.flatnonzero(classes == label))
        ends = np.round(np.cumsum(SHARES) * len(members)).astype(int)
        for name, part in zip(SPLITS, np.split(members, ends[:-1]), strict=True):
            parts[name].append(part)
    # Shuffled once more, so that the first samples of a split are a fair sample of all classes.
    return {name: generator.permutation(np.concatenate(part)) for name, part in parts.items()}


def divided(whole: Split, seed: int) -> dict[SplitName, Split]:
    """One piece in three splits."""
    return {name: whole.take(rows) for name, rows in divide(whole.targets, len(whole), seed).items()}


def completed(defined: Mapping[SplitName, Split], seed: int) -> dict[SplitName, Split]:
    """All three splits; one that is missing is cut from train, so that no sample is in two."""
    train = defined["train"]
    rest = divide(train.targets, len(train), seed)
    splits: dict[SplitName, Split] = dict(defined)
    taken = [np.empty(0, np.int64)]
    for name in SPLITS[1:]:
        if name not in defined:
            splits[name] = train.take(rest[name])
            taken.append(rest[name])
    left = np.setdiff1d(np.arange(len(train)), np.concatenate(taken))
    splits["train"] = train.take(np.random.default_rng(seed).permutation(left))
    return splits


def from_arrays(name: str, labels: tuple[str, ...], x: Any, y: Targets | None, seed: int = 0) -> Dataset:
    """A data set in memory, divided by ``seed``."""
    return Dataset(name, labels, divided(Split(x, y), seed), seed)
