"""Read data sets: registered names, folders of pictures, .npz files, tables of texts; lazily, batch by batch."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from pocketzoo.errors import DataError, nearest
from pocketzoo.zoo.bundle import MANIFEST
from pocketzoo.zoo.preprocess import Array, Picture, prepare
from pocketzoo.zoo.registry import Registry, default_registry
from pocketzoo.zoo.specs import Input, InputSpec, TextSpec
from pocketzoo.zoo.text import TextEncoder, read_texts

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
SHARES = (0.6, 0.2, 0.2)  # of a data set that comes unsplit
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
P = TypeVar("P")
R = TypeVar("R")
Targets = npt.NDArray[Any]  # classes (N,) of int64, or numbers (N, outputs) of float32


@dataclass(frozen=True)
class Split:
    """Samples and, where they are known, the class of each, or the numbers that belong to it."""

    # Pictures (files or pixels), or float arrays (N, *size) that are ready for the model.
    # Or texts.
    samples: Sequence[Picture] | Sequence[str] | npt.NDArray[Any]
    targets: Targets | None = None

    def __len__(self) -> int:
        return len(self.samples)


@dataclass(frozen=True)
class Dataset:
    """A data set in its splits. ``labels`` is empty where the classes are not known."""

    name: str
    labels: tuple[str, ...]
    splits: Mapping[SplitName, Split]
    seed: int | None = 0  # of the division into splits; None where the data came divided

    def split(self, name: SplitName) -> Split:
        """A split; a data set that came as one piece is that piece under every name."""
        return self.splits[name]

    @property
    def numeric(self) -> bool:
        """Whether its targets are numbers, no classes."""
        return any(s.targets is not None and s.targets.dtype.kind == "f" for s in self.splits.values())

    def digest(self) -> str:
        """sha256 over names and sizes of files, or over the arrays: enough to tell that the data changed."""
        digest = hashlib.sha256(repr(self.labels).encode())
        for name in SPLITS:
            split = self.splits[name]
            for sample in split.samples:
                if isinstance(sample, str):
                    digest.update(sample.encode() + b"\0")
                elif isinstance(sample, Path):
                    digest.update(f"{sample.parent.name}/{sample.name}:{sample.stat().st_size}".encode())
                else:
                    digest.update(sample.tobytes())
            if split.targets is not None:
                digest.update(split.targets.tobytes())
        return digest.hexdigest()


@dataclass
class Skipped:
    """What a reader left out, because it could not be read and the user said to go on."""

    names: set[str] = field(default_factory=set)  # a picture that is read again is not counted again


@dataclass(frozen=True)
class Batches:
    """The batches of a split as arrays (B, *size) with their targets: read one at a time, as often as one likes."""

    split: Split
    spec: Input
    size: int = 32
    limit: int | None = None  # samples
    skipped: Skipped | None = None  # where to note unreadable pictures; None: the first one is an error
    files: Mapping[str, Path] = field(default_factory=dict)  # of the backbone: where its tokenizer is

    def __len__(self) -> int:
        return (self.samples + self.size - 1) // self.size

    @property
    def samples(self) -> int:
        return min(len(self.split), len(self.split) if self.limit is None else self.limit)

    def __iter__(self) -> Iterator[tuple[Array, Targets | None]]:
        starts = range(0, self.samples, self.size)
        return self.of(range(start, min(start + self.size, self.samples)) for start in starts)

    def of(self, parts: Iterable[Sequence[int]]) -> Iterator[tuple[Array, Targets | None]]:
        """The batches of these rows, in this order; one of which no picture can be read is left out."""
        read = self._texts() if isinstance(self.spec, TextSpec) else self._pictures
        files = bool(len(self.split)) and isinstance(self.split.samples[0], Path)
        found = ahead(read, parts) if files else map(read, parts)
        return (batch for batch in found if len(batch[0]))

    def _pictures(self, rows: Sequence[int]) -> tuple[Array, Targets | None]:
        found = [(row, i) for i in rows if (row := self._row(i)) is not None]
        x = np.stack([row for row, _ in found]) if found else np.empty(0, np.float32)
        return x, None if self.split.targets is None else self.split.targets[[i for _, i in found]]

    def _texts(self) -> Callable[[Sequence[int]], tuple[Array, Targets | None]]:
        encode: TextEncoder | None = None

        def read(rows: Sequence[int]) -> tuple[Array, Targets | None]:
            nonlocal encode
            samples: list[Any] = [self.split.samples[i] for i in rows]
            if isinstance(samples[0], np.ndarray):  # token ids already
                ids: Any = np.stack(samples)
            elif isinstance(samples[0], str):
                assert isinstance(self.spec, TextSpec)
                encode = encode or TextEncoder(self.spec, self.files)
                ids = encode(samples)
            else:
                raise DataError("this model reads texts, and the data are pictures", "give texts: a .csv or .jsonl")
            return ids, None if self.split.targets is None else self.split.targets[list(rows)]

        return read

    def _row(self, i: int) -> Array | None:
        sample: Any = self.split.samples[i]
        assert isinstance(self.spec, InputSpec)
        if isinstance(sample, str):
            raise DataError("this model reads pictures, and the data are texts", "give a folder of pictures")
        if isinstance(sample, np.ndarray) and sample.dtype == np.float32:
            if sample.shape != self.spec.size:
                raise DataError(
                    f"a sample has shape {_by(sample.shape)}, the model reads {_by(self.spec.size)}",
                    "give float arrays ready for the model, or uint8 pictures (N, height, width[, 3])",
                )
            return sample.astype(np.float32, copy=False)
        try:
            return prepare(sample, self.spec)
        except DataError:
            if self.skipped is None or not isinstance(sample, Path):
                raise
            self.skipped.names.add(str(sample))
            return None


def ahead(read: Callable[[P], R], items: Iterable[P], workers: int = os.cpu_count() or 1) -> Iterator[R]:
    """``map`` that works on the next items in threads while one is used: decoding pictures keeps all cores busy."""
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


def load_data(
    reference: str | Path, *, seed: int = 0, numeric: bool = False, registry: Registry | None = None
) -> Dataset:
    """Open a data set: a folder, an ``.npz`` with ``x`` and ``y``, or a registered name.

    A folder has one sub-folder a class, with or without train / val / test above them; a folder of pictures alone is a
    data set without classes, good enough to calibrate on. What is not divided yet is divided 60 / 20 / 20, by ``seed``.
    With ``numeric`` targets are numbers: ``y`` of shape (N,) or (N, outputs), or the column of labels in a table.

    Raises:
        DataError: it is empty, unreadable, or a class has no pictures.
        UnknownNameError: it is no path and no registered name.
    """
    path = Path(reference)
    registry = registry or default_registry()
    if seed < 0:
        raise DataError(f"the seed cannot be {seed}", "give 0 or a positive number")
    bundle = (path / MANIFEST).exists()  # which may be called as the data set it was fitted to
    if path.is_dir() and not bundle:
        return _from_folder(path, seed)
    if path.suffix == ".npz" and path.is_file():
        return _from_npz(path, seed, numeric)
    if path.suffix in (".csv", ".tsv", ".jsonl", ".txt") and path.is_file():
        texts, names = read_texts(path)
        return _from_texts(path.stem, texts, names, seed, numeric)
    if path.exists() and str(reference) not in registry.entries("dataset"):
        raise DataError(
            f"{path} is {'a bundle, ' if bundle else ''}no data set",
            "give a folder of pictures, an .npz with x and y, or a registered name",
        )
    if not path.exists() and (path.suffix or len(path.parts) > 1):
        raise DataError(f"there is no data set at {path}", "check the path")
    dataset: Dataset = registry.get("dataset", str(reference)).load()
    return dataset


def divide(targets: Targets | None, count: int, seed: int) -> dict[SplitName, npt.NDArray[np.int64]]:
    """Indices of the three splits, every class in the same shares."""
    generator = np.random.default_rng(seed)
    classes = np.zeros(count, np.int64) if targets is None or targets.dtype.kind == "f" else targets
    parts: dict[SplitName, list[npt.NDArray[np.int64]]] = {name: [] for name in SPLITS}
    for label in np.unique(classes):
        members = generator.permutation(np.flatnonzero(classes == label))
        ends = np.round(np.cumsum(SHARES) * len(members)).astype(int)
        for name, part in zip(SPLITS, np.split(members, ends[:-1]), strict=True):
            parts[name].append(part)
    # Shuffled once more, so that the first samples of a split are a fair sample of all classes.
    return {name: generator.permutation(np.concatenate(part)) for name, part in parts.items()}


def from_arrays(name: str, labels: tuple[str, ...], x: Any, y: Targets | None, seed: int = 0) -> Dataset:
    """A data set in memory, divided by ``seed``."""
    indices = divide(y, len(x), seed)
    return Dataset(name, labels, {k: Split(x[i], None if y is None else y[i]) for k, i in indices.items()}, seed)


def _from_npz(path: Path, seed: int, numeric: bool = False) -> Dataset:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:  # numpy leaks a file it opened itself
            arrays = {key: file[key] for key in file.files}
    except Exception as error:  # zipfile, numpy and zlib raise half a dozen types for a damaged file
        raise DataError(f"cannot read {path}: {error}", "write it with numpy.savez(path, x=x, y=y)") from error
    if "x" not in arrays:
        raise DataError(f"{path} has no array 'x'", f"it has: {', '.join(arrays) or 'nothing'}")
    x, y = arrays["x"], arrays.get("y")
    if x.ndim < 2 or len(x) == 0 or x.dtype.kind not in "uifb":
        raise DataError(f"{path}: x is {x.dtype} of shape {x.shape}", "give numbers, one sample a row")
    if x.dtype == np.uint8 and x.ndim == 4 and x.shape[-1] == 1:
        x = x[..., 0]
    if x.dtype != np.uint8:
        x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise DataError(f"{path}: x has values that are not finite", "remove NaN and infinite samples")
    if y is None:
        return from_arrays(path.stem, (), x, None, seed)
    if numeric:
        return from_arrays(path.stem, (), x, _numbers(path.name, y, len(x)), seed)
    if y.ndim != 1 or (y.dtype.kind == "f" and not np.isfinite(y).all()):
        raise DataError(f"{path}: y is {y.dtype} of shape {y.shape}", "give one name or number for each sample")
    if len(y) != len(x):
        raise DataError(f"{path}: x has {len(x)} samples, y has {len(y)}", "give one y for each x")
    names, targets = np.unique(y, return_inverse=True)
    return from_arrays(path.stem, tuple(str(n) for n in names), x, targets.astype(np.int64), seed)


def _numbers(name: str, y: npt.NDArray[Any], count: int) -> Targets:
    """Targets as numbers (N, outputs)."""
    try:
        numbers = y.astype(np.float32)
    except ValueError as error:
        raise DataError(f"the targets of {name} are no numbers: {error}", "fit a classifier: --head linear") from error
    numbers = numbers[:, None] if numbers.ndim == 1 else numbers
    if numbers.ndim != 2 or len(numbers) != count or not np.isfinite(numbers).all():
        raise DataError(
            f"the targets of {name} have shape {y.shape} for {count} samples, or are not finite",
            "give one number, or one row of them, for each sample",
        )
    return numbers


def _from_texts(name: str, texts: list[str], classes: list[str] | None, seed: int, numeric: bool = False) -> Dataset:
    targets: Targets | None
    if classes is not None and numeric:
        labels: tuple[str, ...] = ()
        targets = _numbers(name, np.array(classes), len(texts))
    elif classes is None:
        labels = ()
        targets = None
    else:
        labels = tuple(sorted(set(classes)))
        number = {label: i for i, label in enumerate(labels)}
        targets = np.array([number[c] for c in classes], np.int64)
    indices = divide(targets, len(texts), seed)
    splits: dict[SplitName, Split] = {
        k: Split([texts[j] for j in i], None if targets is None else targets[i]) for k, i in indices.items()
    }
    return Dataset(name, labels, splits, seed)


def _from_folder(path: Path, seed: int) -> Dataset:
    folders = {p.name for p in path.iterdir() if p.is_dir()}
    if "train" in folders and folders <= {*SPLITS, "valid", "validation"}:
        return _from_divided(path, seed)
    if folders:
        labels, pictures, targets = _classes(path)
        indices = divide(targets, len(pictures), seed)
        return Dataset(
            path.name, labels, {k: Split([pictures[j] for j in i], targets[i]) for k, i in indices.items()}, seed
        )
    flat = _pictures(path)
    if not flat:
        raise DataError(f"{path} has no pictures", "PNG, JPEG and WebP files are read")
    indices = divide(None, len(flat), seed)
    return Dataset(path.name, (), {k: Split([flat[j] for j in i]) for k, i in indices.items()}, seed)


def _from_divided(path: Path, seed: int) -> Dataset:
    """train / [val] / test folders. A missing one is cut from train, so that no sample is in two."""
    labels, pictures, targets = _classes(path / "train")
    splits: dict[SplitName, Split] = {"train": Split(pictures, targets)}
    for name, spellings in {"val": ("val", "valid", "validation"), "test": ("test",)}.items():
        for folder in (path / s for s in spellings if (path / s).is_dir()):
            its_labels, its_pictures, its_targets = _classes(folder)
            if its_labels != labels:
                raise DataError(f"{folder} has other classes than train: {sorted(set(its_labels) ^ set(labels))}",
                                "give every split the same class folders")  # fmt: skip
            splits[name] = Split(its_pictures, its_targets)  # type: ignore[index]
    rest = divide(targets, len(pictures), seed)
    missing = [name for name in ("val", "test") if name not in splits]
    taken = np.concatenate([rest[name] for name in missing]) if missing else np.empty(0, np.int64)  # type: ignore[index]
    for name in missing:
        splits[name] = Split([pictures[i] for i in rest[name]], targets[rest[name]])  # type: ignore[index]
    kept = np.random.default_rng(seed).permutation(np.setdiff1d(np.arange(len(pictures)), taken))
    splits["train"] = Split([pictures[i] for i in kept], targets[kept])
    return Dataset(path.name, labels, splits, seed)


def _classes(path: Path) -> tuple[tuple[str, ...], list[Path], Targets]:
    folders = sorted(p for p in path.iterdir() if p.is_dir())
    pictures, targets = [], []
    for label, folder in enumerate(folders):
        found = _pictures(folder)
        if not found:
            raise DataError(f"the class folder {folder} has no pictures", "add some (PNG, JPEG, WebP) or remove it")
        pictures += found
        targets += [label] * len(found)
    if not folders:
        raise DataError(f"{path} has no class folders", "make one sub-folder a class")
    return tuple(p.name for p in folders), pictures, np.asarray(targets, np.int64)


def _pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)


def aligned(dataset: Dataset, labels: tuple[str, ...]) -> Dataset:
    """The data set with its classes numbered as a model's ``labels`` are.

    A data set none of whose classes the model knows is taken without them: good for calibration and agreement. So is
    one that has numbers, where the model has classes.

    Raises:
        DataError: the model knows some of its classes but not all.
    """
    if dataset.labels == labels or (not dataset.labels and not (labels and dataset.numeric)):
        return dataset
    unknown = [name for name in dataset.labels if name not in labels]
    if len(unknown) == len(dataset.labels):
        bare = {name: Split(split.samples) for name, split in dataset.splits.items()}
        return Dataset(dataset.name, (), bare, dataset.seed)
    if unknown:
        raise DataError(
            f"{dataset.name} has classes the model does not know: {', '.join(unknown[:5])}", nearest(unknown[0], labels)
        )
    number = np.array([labels.index(name) for name in dataset.labels], np.int64)
    splits = {
        name: Split(split.samples, None if split.targets is None else number[split.targets])
        for name, split in dataset.splits.items()
    }
    return Dataset(dataset.name, labels, splits, dataset.seed)
