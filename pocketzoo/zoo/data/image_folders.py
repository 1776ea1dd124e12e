"""Folders of files as data sets: images, or whatever a processor reads."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from pocketzoo.core.errors import DataError
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.reading.utf8 import is_utf8
from pocketzoo.zoo.catalog.dataset import Dataset, Split, SplitName, Targets
from pocketzoo.zoo.data.batches import Skipped, completed, divided
from pocketzoo.zoo.data.folder_listing import FolderListing
from pocketzoo.zoo.data.grouping.group_by import NOTHING_SAID, GroupBy

SPELLINGS: Mapping[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}  # of folders, in whatever case


def read_folder(
    path: Path,
    seed: int,
    suffixes: Collection[str],
    skipped: Skipped | None = None,
    progress: Progress = SILENT,
    by: GroupBy = NOTHING_SAID,
) -> Dataset:
    """A folder with one sub-folder per class, with or without train / val / test above them, or of files alone.

    Samples are the files whose names end with one of ``suffixes``. Hidden files and those of the system are left out;
    that, files that are not read and samples in folders inside of class folders are counted and said. A link to
    nowhere is an error, or noted in ``skipped``. ``by`` tells sources; by folder it is the innermost one, so that a
    class folder has a folder for each source, or ``path`` has, and then there are no classes.

    Raises:
        DataError: it has none, a class has none, or the splits have different classes.
    """
    listing = FolderListing(suffixes, skipped)
    if by.kind == "column":
        raise DataError(f"{path} is a folder, and cannot be grouped by {by}", "write folder, or pattern=REGEX")
    dataset = _read(path, seed, listing, by)
    for sentence in listing.sentences(path):
        progress.say(sentence)
    return dataset


def _read(path: Path, seed: int, listing: FolderListing, by: GroupBy) -> Dataset:
    folders = listing.folders(path)
    splits = _splits(path, folders, listing)
    if splits:
        listing.aside(path)
        return _from_divided(path, splits, seed, listing, by)
    labels, files, targets = _samples(path, folders, listing, by)
    return Dataset(path.name, labels, divided(Split(files, targets), seed, by, path), seed)


def _samples(
    path: Path, folders: list[Path], listing: FolderListing, by: GroupBy
) -> tuple[tuple[str, ...], list[Path], Targets | None]:
    """Labels, samples and their classes; of files alone, and of folders that are sources, there are no classes."""
    sources = by.kind == "folder" and bool(folders) and not any(listing.folders(folder) for folder in folders)
    if folders and not sources:
        listing.aside(path)
        return _classes(path, listing, below=by.kind == "folder")
    flat = listing.samples(path, below=sources)
    if not flat:
        raise DataError(f"{path} has no samples", _supported(listing))
    return (), flat, None


def _splits(path: Path, folders: list[Path], listing: FolderListing) -> dict[SplitName, Path]:
    """The folders of the splits; none where the folders are classes, of which one may be called "train"."""
    splits: dict[SplitName, Path] = {}
    for folder in folders:
        if (split := SPELLINGS.get(folder.name.casefold())) is None:
            continue
        if split in splits:
            raise DataError(f"{path} has two folders for {split}: {splits[split].name}, {folder.name}", "keep one")
        splits[split] = folder
    others = [folder.name for folder in folders if folder not in splits.values()]
    if "train" not in splits:
        return {}
    if others:
        train = FolderListing(listing.suffixes, Skipped())
        if train.samples(splits["train"]) or not train.nested or len(splits) == 1:
            return {}
        raise DataError(
            f"{path} has folders for {' and '.join(splits)}, and also {', '.join(map(repr, others))}",
            "classes lie in the folders of the splits; move the others elsewhere",
        )
    return splits


def _from_divided(
    path: Path, folders: Mapping[SplitName, Path], seed: int, listing: FolderListing, by: GroupBy
) -> Dataset:
    """train / [val] / test folders. A missing one is cut from train, so that no sample is in two."""
    below = by.kind == "folder"
    labels, files, targets = _classes(folders["train"], listing, below=below)
    splits: dict[SplitName, Split] = {"train": Split(files, targets)}
    for name, folder in folders.items():
        listing.aside(folder)
        if name == "train":
            continue
        its_labels, its_files, its_targets = _classes(folder, listing, below=below)
        if its_labels != labels:
            raise DataError(f"{folder} has different classes than train: {sorted(set(its_labels) ^ set(labels))}",
                            "give every split the same class folders")  # fmt: skip
        splits[name] = Split(its_files, its_targets)
    return Dataset(path.name, labels, completed(splits, seed, by, path), seed)


def _classes(path: Path, listing: FolderListing, *, below: bool = False) -> tuple[tuple[str, ...], list[Path], Targets]:
    folders = listing.folders(path)
    samples, targets = [], []
    for label, folder in enumerate(folders):
        before, unread = len(listing.nested), len(listing.unused)
        files = listing.samples(folder, below=below)
        if not files:
            nested = len(listing.nested) - before
            what = f"{nested} lie in folders inside of it, which are not read; " if nested else ""
            if others := listing.unused[unread:]:
                what += f"it has {len(others)} other files, such as {others[0].name}; "
            raise DataError(
                f"the class folder {folder} has no samples", f"{what}add some or remove it; {_supported(listing)}"
            )
        samples += files
        targets += [label] * len(files)
    if not folders:
        raise DataError(f"{path} has no class folders", "make one sub-folder per class")
    for folder in folders:
        if not is_utf8(folder.name):  # a label is kept in a manifest, and printed
            raise DataError(f"the name of the class folder {os.fsencode(folder)!r} is not UTF-8", "rename it")
    labels = [folder.name.strip() for folder in folders]  # as those of a table
    if twice := next((label for i, label in enumerate(labels) if label in labels[:i]), None):
        raise DataError(f"{path} has two class folders for {twice!r}, without the blanks around it", "rename one")
    if "" in labels:
        raise DataError(f"the name of the class folder {folders[labels.index('')].name!r} is blank", "rename it")
    return tuple(labels), samples, np.asarray(targets, np.int64)


def _supported(listing: FolderListing) -> str:
    names = ", ".join(sorted(listing.suffixes))
    return f"supported: {names or 'no files, since no processor that is installed reads any'}"
