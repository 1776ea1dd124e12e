"""Batches that are read from their source once, however often they are gone through."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import Array, Arrays, batch_size, rows
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.zoo.catalog.dataset import Groups, Targets
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.data.batches import Batches

BUDGET = 128 * 2**20  # bytes of batches that are kept in memory; those beyond are kept in a temporary file

Place = tuple[int, np.dtype[np.generic], tuple[int, ...]]  # in the file, in bytes; and what lies there


class ReadOnce:
    """Arrays of a ``source`` that is costly to read, such as files that are decoded; iterable as often as one likes.

    A batch is read when it is first asked for. The first ``budget`` bytes are kept in memory, the rest in one temporary
    file (of the system's folder for them, ``TMPDIR``), which has no name and is gone once it is closed, or the process
    is. What is yielded is a copy, so that whoever changes it changes it for nobody else.

    An error of the source is raised again by each later pass, in its place.
    """

    def __init__(self, source: Iterable[Arrays], budget: int = BUDGET) -> None:
        self.source, self.budget = source, budget
        self._kept: list[dict[str, Array | Place]] = []
        self._reading: Iterator[Arrays] | None = None
        self._error: BaseException | None = None
        self._file: IO[bytes] | None = None
        self._size = 0  # of what is in memory
        self._read_all = False

    def __iter__(self) -> Iterator[Arrays]:
        position = 0
        while position < len(self._kept) or self._read_next():
            yield {name: self._copy(kept) for name, kept in self._kept[position].items()}
            position += 1

    def _read_next(self) -> bool:
        """Keep one more batch; False where there is none."""
        if self._error is not None:
            raise self._error
        if self._read_all:
            return False
        if self._reading is None:
            self._reading = iter(self.source)
        try:
            batch = next(self._reading, None)
        except BaseException as error:  # a generator that failed would be taken for one that is at its end
            self._error = error
            raise
        if batch is None:
            self._read_all = True
            return False
        size = sum(array.nbytes for array in batch.values())
        if self._size + size <= self.budget:
            self._size += size
            self._kept.append(dict(batch))
        else:
            self._kept.append({name: self._written(array) for name, array in batch.items()})
        return True

    def _written(self, array: Array) -> Array | Place:
        if array.dtype.hasobject:  # no bytes that could be read back
            return array
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it is open until ``close``
        place = self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(array).tobytes())
        return place, array.dtype, array.shape

    def _copy(self, kept: Array | Place) -> Array:
        if not isinstance(kept, tuple):
            return kept.copy()
        place, dtype, shape = kept
        assert self._file is not None
        array: npt.NDArray[Any] = np.empty(shape, dtype)
        self._file.seek(place)
        self._file.readinto(array.reshape(-1).view(np.uint8).data)  # type: ignore[attr-defined]
        return array

    def close(self) -> None:
        """Forget all batches and remove the file. The next pass reads the source again."""
        if isinstance(self._reading, Generator):
            self._reading.close()  # and with it threads that read ahead
        if self._file is not None:
            self._file.close()
        self._kept, self._reading, self._error = [], None, None
        self._file, self._size, self._read_all = None, 0, False

    def __enter__(self) -> ReadOnce:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Inputs:
    """The samples of a split without their targets: what compressors calibrate on, read once for all passes."""

    batches: Batches
    kept: ReadOnce
    progress: Progress = SILENT
    label: str = ""
    limit: int | None = None  # samples; None: all
    sources: Groups | None = None  # of the rows of the split, as far as they are read; None: nobody looked

    @classmethod
    def of(cls, batches: Batches, sources: Groups | None = None) -> Inputs:
        """Those of ``batches``; none is read yet."""
        return cls(batches, ReadOnce(_Unlabeled(batches)), sources=sources)

    def labeled(self) -> KeptBatches:
        """The same samples with their targets, none of which is read again."""
        batches = self.batches
        return KeptBatches(
            split=batches.split, spec=batches.spec, size=batches.size, limit=self.limit or batches.limit, inputs=self
        )

    @property
    def rows(self) -> list[int]:
        """Which rows of the split the samples are, in the order they come.

        Where some may be skipped all are read for it, since it is then known which are.
        """
        rows, skipped = list(range(self.batches.samples)), self.batches.skipped
        if skipped is not None:
            for _ in self.kept:
                pass
            rows = [row for row in rows if self.batches.split.called(row) not in skipped.names]
        return rows[: self.limit]

    @property
    def groups(self) -> npt.NDArray[np.int64] | None:
        """The source of each sample, in the order they come; None where nobody looked."""
        return None if self.sources is None else self.sources.ids[self.rows]

    @property
    def image(self) -> InputSpec | None:
        """What the input is like that is an image; None where none is."""
        return self.batches.processor.image

    def __iter__(self) -> Iterator[Arrays]:
        if self.limit is None:
            return self.progress.track(self.kept, self.label, len(self.batches))
        return self._first(self.limit)

    def _first(self, left: int) -> Iterator[Arrays]:
        axes = self.batches.axes
        for batch in self.kept:
            yield rows(batch, slice(left), axes)
            left -= max(batch_size(batch, axes), 1)
            if left <= 0:
                return


@dataclass(frozen=True)
class _Unlabeled:
    """Batches without their targets."""

    batches: Batches

    def __iter__(self) -> Iterator[Arrays]:
        return (x for x, _ in self.batches)


@dataclass(frozen=True)
class KeptBatches(Batches):
    """Batches of samples that were read already."""

    inputs: Inputs | None = None

    def __iter__(self) -> Iterator[tuple[Arrays, Targets | None]]:
        assert self.inputs is not None
        axes, targets, start = self.axes, self.split.targets, 0
        rows = [] if targets is None else self.inputs.rows
        for x in self.inputs:
            end = start + batch_size(x, axes)
            yield x, None if targets is None else targets[rows[start:end]]
            start = end
