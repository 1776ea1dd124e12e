"""Folders of files as data sets: images, or whatever a processor reads."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import numpy as np

from pocketzoo.core.errors import DataError
from pocketzoo.core.reading.utf8 import is_utf8
from pocketzoo.zoo.catalog.dataset import SPLITS, Dataset, Split, SplitName, Targets
from pocketzoo.zoo.data.batches import completed, divided


def read_folder(path: Path, seed: int, suffixes: Collection[str]) -> Dataset:
    """A folder with one sub-folder per class, with or without train / val / test above them, or of files alone.

    Samples are the files whose names end with one of ``suffixes``.

    Raises:
        DataError: it has none, a class has none, or the splits have different classes.
    """
    folders = {p.name for p in path.iterdir() if p.is_dir()}
    if "train" in folders and folders <= {*SPLITS, "valid", "validation"}:
        return _from_divided(path, seed, suffixes)
    if folders:
        labels, files, targets = _classes(path, suffixes)
        return Dataset(path.name, labels, divided(Split(files, targets), seed), seed)
    flat = _files(path, suffixes)
    if not flat:
        raise DataError(f"{path} has no samples", _supported(suffixes))
    return Dataset(path.name, (), divided(Split(flat), seed), seed)


def _from_divided(path: Path, seed: int, suffixes: Collection[str]) -> Dataset:
    """train / [val] / test folders. A missing one is cut from train, so that no sample is in two."""
    labels, files, targets = _classes(path / "train", suffixes)
    splits: dict[SplitName, Split] = {"train": Split(files, targets)}
    for name, spellings in {"val": ("val", "valid", "validation"), "test": ("test",)}.items():
        for folder in (path / s for s in spellings if (path / s).is_dir()):
            its_labels, its_files, its_targets = _classes(folder, suffixes)
            if its_labels != labels:
                raise DataError(f"{folder} has different classes than train: {sorted(set(its_labels) ^ set(labels))}",
                                "give every split the same class folders")  # fmt: skip
            splits[name] = Split(its_files, its_targets)  # type: ignore[index]
    return Dataset(path.name, labels, completed(splits, seed), seed)


def _classes(path: Path, suffixes: Collection[str]) -> tuple[tuple[str, ...], list[Path], Targets]:
    folders = sorted(p for p in path.iterdir() if p.is_dir())
    samples, targets = [], []
    for label, folder in enumerate(folders):
        files = _files(folder, suffixes)
        if not files:
            raise DataError(
                f"the class folder {folder} has no samples", f"add some or remove it; {_supported(suffixes)}"
            )
        samples += files
        targets += [label] * len(files)
    if not folders:
        raise DataError(f"{path} has no class folders", "make one sub-folder per class")
    for folder in folders:
        if not is_utf8(folder.name):  # a label is kept in a manifest, and printed
            raise DataError(f"the name of the class folder {os.fsencode(folder)!r} is not UTF-8", "rename it")
    return tuple(p.name for p in folders), samples, np.asarray(targets, np.int64)


def _files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes)


def _supported(suffixes: Collection[str]) -> str:
    return f"supported: {', '.join(sorted(suffixes)) or 'no files, since no processor that is installed reads any'}"
