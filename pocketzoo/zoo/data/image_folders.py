"""Folders of images as data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import SPLITS, Dataset, Split, SplitName, Targets
from pocketzoo.zoo.data.batches import completed, divided

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


def read_folder(path: Path, seed: int) -> Dataset:
    """A folder with one sub-folder per class, with or without train / val / test above them, or of images alone.

    Raises:
        DataError: it has no images, a class has none, or the splits have different classes.
    """
    folders = {p.name for p in path.iterdir() if p.is_dir()}
    if "train" in folders and folders <= {*SPLITS, "valid", "validation"}:
        return _from_divided(path, seed)
    if folders:
        labels, images, targets = _classes(path)
        return Dataset(path.name, labels, divided(Split(images, targets), seed), seed)
    flat = _images(path)
    if not flat:
        raise DataError(f"{path} has no images", "supported: PNG, JPEG and WebP")
    return Dataset(path.name, (), divided(Split(flat), seed), seed)


def _from_divided(path: Path, seed: int) -> Dataset:
    """train / [val] / test folders. A missing one is cut from train, so that no sample is in two."""
    labels, images, targets = _classes(path / "train")
    splits: dict[SplitName, Split] = {"train": Split(images, targets)}
    for name, spellings in {"val": ("val", "valid", "validation"), "test": ("test",)}.items():
        for folder in (path / s for s in spellings if (path / s).is_dir()):
            its_labels, its_images, its_targets = _classes(folder)
            if its_labels != labels:
                raise DataError(f"{folder} has different classes than train: {sorted(set(its_labels) ^ set(labels))}",
                                "give every split the same class folders")  # fmt: skip
            splits[name] = Split(its_images, its_targets)  # type: ignore[index]
    return Dataset(path.name, labels, completed(splits, seed), seed)


def _classes(path: Path) -> tuple[tuple[str, ...], list[Path], Targets]:
    folders = sorted(p for p in path.iterdir() if p.is_dir())
    images, targets = [], []
    for label, folder in enumerate(folders):
        files = _images(folder)
        if not files:
            raise DataError(f"the class folder {folder} has no images", "add some (PNG, JPEG, WebP) or remove it")
        images += files
        targets += [label] * len(files)
    if not folders:
        raise DataError(f"{path} has no class folders", "make one sub-folder per class")
    return tuple(p.name for p in folders), images, np.asarray(targets, np.int64)


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
