"""The data set type: samples with their targets, in three splits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import ImageLike
from pocketzoo.core.errors import DataError
from pocketzoo.core.keys import digest_of
from pocketzoo.zoo.catalog.processor_configs import DataColumns

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
LONGEST_PATH = 4096  # characters; a longer text is no file's name
# Classes (N,) of int64, numbers (N, outputs) of float32, or of each token the next one (N, T) of int64.
Targets = npt.NDArray[Any]


class LazyImages(Sequence[ImageLike]):
    """Images that are decoded when they are asked for, so that some can be taken without reading them."""

    def take(self, rows: npt.NDArray[np.int64]) -> LazyImages:
        """Some of them, in this order."""
        raise NotImplementedError

    def called(self, row: int) -> str:
        """What one of them is called in errors, and where it is left out."""
        return f"image {row}"

    def encoded(self) -> Iterator[object]:
        """What each image is stored as: bytes, a path, or the image itself where it is stored as nothing else."""
        return iter(self)


@dataclass(frozen=True)
class Groups:
    """Which samples come of one source: crops of one photo, rows of one patient, frames of one recording.

    Samples of one source say too little of one another, so that what is chosen on some is not judged on the others.
    The term is scikit-learn's (``GroupKFold``).
    """

    ids: npt.NDArray[np.int64]  # (N,): samples with the same number are of one source
    by: str  # what told: "near-duplicates", "folder", "column patient", "pattern ([a-z]+)", "sample"
    notes: tuple[str, ...] = ()  # what was found, and what was not looked for: sentences

    @property
    def count(self) -> int:
        """How many sources there are."""
        return len(np.unique(self.ids))

    def take(self, rows: npt.NDArray[np.int64]) -> Groups:
        """Those of some of the samples."""
        return replace(self, ids=self.ids[rows])


@dataclass(frozen=True)
class Split:
    """Samples and, where they are known, the class of each, or the numbers that belong to it."""

    # Images (files or pixels), or float arrays (N, *size) that are ready for the model. Or texts. Or whatever else a
    # processor reads: files, mappings of fields, arrays by the names of a model's inputs.
    samples: Sequence[ImageLike] | Sequence[str] | Sequence[Mapping[str, Any]] | npt.NDArray[Any]
    targets: Targets | None = None
    places: Sequence[str] = ()  # of each sample, where it has no name of its own: "line 2 of reviews.csv"
    groups: Groups | None = None  # the source of each sample; None: nobody looked

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, rows: npt.NDArray[np.int64]) -> Split:
        """Some of its samples, in this order."""
        samples: Any = self.samples
        if isinstance(samples, np.ndarray):
            samples = samples[rows]
        elif isinstance(samples, LazyImages):
            samples = samples.take(rows)
        else:
            samples = [samples[i] for i in rows]
        places = [self.places[i] for i in rows] if len(self.places) else ()
        groups = None if self.groups is None else self.groups.take(rows)
        return Split(samples, None if self.targets is None else self.targets[rows], places, groups)

    def called(self, row: int) -> str:
        """What a sample is called in errors, and where it is left out: its files, or where it stands in one."""
        if len(self.places):
            return self.places[row]
        if isinstance(self.samples, LazyImages):
            return self.samples.called(row)
        return " and ".join(map(str, files_of(self.samples[row]))) or f"sample {row} of {len(self)}"


@dataclass(frozen=True)
class Dataset:
    """A data set in its splits. ``labels`` is empty where the classes are not known."""

    name: str
    labels: tuple[str, ...]
    splits: Mapping[SplitName, Split]
    seed: int | None = 0  # of the division into splits; None where the data came divided
    columns: tuple[str, ...] = ()  # of samples that are rows of numbers: what each number is, where that is known
    read: DataColumns | None = None  # of a table: which of its columns samples and targets are
    header: tuple[str, ...] = ()  # of a table: all its columns
    skipped: tuple[str, ...] = ()  # samples that its reader left out since they cannot be read, by name
    synthetic: str = ""  # what its samples were made of, where nobody took them: "the model's batch-norm statistics"

    def split(self, name: SplitName) -> Split:
        """A split; a data set that came as one piece is that piece under every name."""
        return self.splits[name]

    @property
    def numeric(self) -> bool:
        """Whether its targets are numbers, no classes."""
        return any(s.targets is not None and s.targets.dtype.kind == "f" for s in self.splits.values())

    def digest(self) -> str:
        """sha256 over labels, samples and targets in their order; of files their contents, not their names or times.

        Raises:
            DataError: a sample is of a type that nothing is known of, such as an open file.
        """
        try:
            return digest_of(
                self.labels, [(_contents(self.splits[name]), self.splits[name].targets) for name in SPLITS]
            )
        except TypeError as error:
            raise DataError(
                f"the samples of {self.name} cannot be told apart: {error}",
                "give paths, bytes, images, texts or arrays",
            ) from error


def files_of(sample: Any) -> tuple[Path, ...]:
    """The files that a sample is read from: itself, or those of its fields."""
    if isinstance(sample, Mapping):
        return tuple(file for value in sample.values() for file in files_of(value))
    return (sample,) if isinstance(sample, Path) else ()


def _contents(split: Split) -> list[Any]:
    """The samples by what they consist of: images as they are stored, and files by their content.

    A text that is the name of a file is taken for the file: a processor of images or of sound reads it.
    """
    samples = list(split.samples.encoded() if isinstance(split.samples, LazyImages) else split.samples)
    return [_as_read(sample) for sample in samples]


def _as_read(sample: Any) -> Any:
    if isinstance(sample, str) and len(sample) <= LONGEST_PATH and os.path.isfile(sample):
        return Path(sample)
    if isinstance(sample, Mapping):
        return {name: _as_read(value) for name, value in sample.items()}
    return sample
