"""What ``--data`` names, opened."""

from __future__ import annotations

from pathlib import Path

from pocketzoo.errors import DataError
from pocketzoo.zoo.arrays import read_npz
from pocketzoo.zoo.bundle import MANIFEST
from pocketzoo.zoo.data import Dataset
from pocketzoo.zoo.folders import read_folder
from pocketzoo.zoo.registry import Registry, default_registry
from pocketzoo.zoo.tables import from_texts
from pocketzoo.zoo.text import read_texts


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
        return read_folder(path, seed)
    if path.suffix == ".npz" and path.is_file():
        return read_npz(path, seed, numeric)
    if path.suffix in (".csv", ".tsv", ".jsonl", ".txt") and path.is_file():
        texts, names = read_texts(path)
        return from_texts(path.stem, texts, names, seed, numeric)
    if path.exists() and str(reference) not in registry.entries("dataset"):
        raise DataError(
            f"{path} is {'a bundle, ' if bundle else ''}no data set",
            "give a folder of pictures, an .npz with x and y, or a registered name",
        )
    if not path.exists() and (path.suffix or len(path.parts) > 1):
        raise DataError(f"there is no data set at {path}", "check the path")
    dataset: Dataset = registry.get("dataset", str(reference)).load()
    return dataset
