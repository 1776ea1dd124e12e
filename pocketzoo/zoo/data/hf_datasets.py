"""Data sets of the Hugging Face ``datasets`` library: saved folders and Hub repositories."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import ImageLike
from pocketzoo.core.errors import BadReferenceError, DataError, message_of
from pocketzoo.core.files import home
from pocketzoo.core.optional import require
from pocketzoo.zoo.catalog.dataset import Dataset, LazyImages, Split, SplitName
from pocketzoo.zoo.catalog.processor_configs import DataColumns
from pocketzoo.zoo.catalog.task import TargetKind
from pocketzoo.zoo.data.batches import Skipped, completed, divided
from pocketzoo.zoo.data.grouping.group_by import of_column
from pocketzoo.zoo.data.processors.image_preprocessing import NAMED, decode_image
from pocketzoo.zoo.data.saved_datasets import check_inside, stored_file
from pocketzoo.zoo.data.table_files import FIX
from pocketzoo.zoo.data.tables import LABEL, TAGS, Columns, Table, by_other, choose, find_column, label_columns
from pocketzoo.zoo.data.target_kinds import classes, targets_of
from pocketzoo.zoo.hub.reference import HubRef, parse

EXTRA = "datasets"
NAMES: Mapping[SplitName, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}


def is_saved(path: Path) -> bool:
    """Whether ``save_to_disk`` wrote this folder."""
    return any((path / name).is_file() for name in ("dataset_dict.json", "dataset_info.json"))


def read_saved(path: Path, columns: Columns, seed: int, targets: TargetKind, skipped: Skipped | None) -> Dataset:
    """A folder that ``save_to_disk`` wrote; columns are chosen as of a table, a column of images before all.

    Raises:
        DataError: it is damaged, or has no such columns.
        MissingDependencyError: the package datasets is not installed.
    """
    library = require("datasets", extra=EXTRA)
    check_inside(path)
    try:
        saved = library.load_from_disk(str(path))
    except Exception as error:  # pyarrow, json and the library raise what they like for a damaged file
        raise DataError(f"cannot read the data set in {path}: {_line(error)}", "save it again") from error
    return dataset_of(path.name, str(path), saved, columns, seed, targets, skipped, (path.resolve(),))


def read_repository(
    reference: str, columns: Columns, seed: int, targets: TargetKind, skipped: Skipped | None
) -> Dataset:
    """``hf://owner/name[@revision][#configuration]``: its name says the commit it was at. Its code is never run.

    Raises:
        BadReferenceError: it does not name a repository.
        DataError: it cannot be had, or has no such columns.
        MissingDependencyError: the package datasets is not installed.
    """
    ref = parse(reference)
    if not isinstance(ref, HubRef):
        raise BadReferenceError(f"{reference!r} is not a data set of the Hub", "write hf://owner/name")
    library = require("datasets", extra=EXTRA)
    bars = library.are_progress_bars_disabled()
    library.disable_progress_bars()
    try:
        builder = library.load_dataset_builder(
            ref.repo_id, ref.part or None, revision=ref.revision, cache_dir=str(home() / "datasets")
        )
        builder.download_and_prepare()
        downloaded = builder.as_dataset()
    except Exception as error:  # of the Hub's client, of pyarrow, and of its own
        raise DataError(
            f"cannot load the data set {reference}: {_line(error)}", "check its name on the Hub, or the connection"
        ) from error
    finally:
        if not bars:
            library.enable_progress_bars()
    name = f"hf://{ref.repo_id}@{builder.hash}" + (f"#{ref.part}" if ref.part else "")
    hub = os.environ.get("HF_HUB_CACHE") or Path(library.config.HF_CACHE_HOME) / "hub"
    kept = (home() / "datasets", Path(hub))
    roots = tuple(folder.resolve() for folder in kept)  # where the library puts what it downloads
    return dataset_of(name, reference, downloaded, columns, seed, targets, skipped, roots)


@dataclass(frozen=True)
class _Column(LazyImages):
    """A column of images, decoded one at a time: (H, W, 3)."""

    table: Any  # datasets.Dataset of this column alone, not decoded by the library
    name: str
    where: str
    roots: tuple[Path, ...]  # the folders that files of cells may be in
    numbers: npt.NDArray[np.int64]  # of each row, where it stands in the data set

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: Any) -> Any:
        name, stored = self.called(int(index)), self._stored(self.table[int(index)][self.name], int(index))
        try:
            source = stored if isinstance(stored, Path) else io.BytesIO(stored)
            return np.asarray(decode_image(source, name.removeprefix("image "), 3))
        except DataError as error:
            raise DataError(error.message, f"save the data set without it, or as {NAMED}, or use --skip-bad") from error

    def called(self, row: int) -> str:
        return f"image {self.numbers[row]} of {self.where}"

    def _stored(self, cell: Mapping[str, Any] | None, row: int) -> bytes | Path:
        data, path = (cell or {}).get("bytes"), (cell or {}).get("path")
        if data is not None:
            return bytes(data)
        if not path:
            raise DataError(f"{self.called(row)} is not in the data set: {path}", "save the data set with its images")
        return stored_file(path, self.roots, self.called(row))

    def __iter__(self) -> Iterator[ImageLike]:
        return (self[i] for i in range(len(self)))

    def encoded(self) -> Iterator[object]:
        for row, cell in enumerate(self.table[self.name]):
            try:
                stored = self._stored(cell, row)
            except DataError:  # which is named, or skipped, when it is read
                stored = b""
            yield stored if isinstance(stored, bytes) or stored.is_file() else str(stored)

    def take(self, rows: npt.NDArray[np.int64]) -> LazyImages:
        return _Column(self.table.select(rows), self.name, self.where, self.roots, self.numbers[rows])


def dataset_of(
    name: str,
    where: str,
    source: Any,
    columns: Columns,
    seed: int,
    targets: TargetKind,
    skipped: Skipped | None,
    roots: tuple[Path, ...],
) -> Dataset:
    """Tables of the library by split, or one, as a data set; ``where`` is what it is called in errors.

    Raises:
        DataError: it has no such columns, or a row lacks a value.
    """
    pieces: dict[str, Any] = dict(source) if isinstance(source, dict) else {"train": source}
    pieces = {split: _undecoded(piece) for split, piece in pieces.items()}
    if not pieces:
        raise DataError(f"{where} has no splits", "choose another data set")
    known = {split: next((pieces[n] for n in names if n in pieces), None) for split, names in NAMES.items()}
    if known["train"] is None:
        if len(pieces) > 1:
            raise DataError(f"{where} has no split called train, only {', '.join(pieces)}", "choose another data set")
        known = {"train": next(iter(pieces.values()))}
    tables = {
        split: _table(f"{where} ({split})", piece, columns, targets, skipped, roots)
        for split, piece in known.items()
        if piece is not None and len(piece)
    }
    if "train" not in tables:
        raise DataError(f"{where} has no training rows", "choose another data set")
    if tables["train"].targets is not None:  # a competition keeps the classes of its test split to itself
        tables = {split: table for split, table in tables.items() if table.targets is not None}
    everything = [target for table in tables.values() for target in table.targets or ()]
    everywhere = [place for split, table in tables.items() for place in _places(f"{where} ({split})", table)]
    labels, known_targets = classes(where, everything or None, targets, tables["train"].labels, everywhere)
    splits: dict[SplitName, Split] = {}
    start = 0
    for split, table in tables.items():
        end = start + len(table.samples)
        its_targets = None if known_targets is None else known_targets[start:end]
        places = everywhere[start:end] if table.places else ()
        splits[split] = Split(table.samples, its_targets, places, table.groups)
        start = end
    first = tables["train"]
    read = DataColumns(text=first.text, labels=first.labels)
    facts: dict[str, Any] = {"seed": seed, "columns": first.columns, "read": read, "header": first.header}
    if len(splits) == 1:
        return Dataset(name, labels, divided(splits["train"], seed, by_other(columns)), **facts)
    return Dataset(name, labels, completed(splits, seed, by_other(columns)), **facts)


def _table(
    name: str, piece: Any, columns: Columns, targets: TargetKind, skipped: Skipped | None, roots: tuple[Path, ...]
) -> Table:
    library = require("datasets", extra=EXTRA)
    header = tuple(piece.column_names)
    if columns.grouping:
        find_column(name, header, (), columns.grouping)
    tagged = targets == "tags"  # a class of each word
    kinds = {c: _each(feature) if tagged else feature for c, feature in piece.features.items()}
    names = {c: kind.names for c, kind in kinds.items() if isinstance(kind, library.ClassLabel)}
    if columns.label is None and not set(columns.fitted.labels) & set(header):
        columns = replace(columns, label=next(iter(names), None))
    labels = label_columns(name, header, columns.label, TAGS if tagged else LABEL, columns.fitted.labels)
    names = {c: names[c] for c in labels if c in names}
    targets = "classes" if targets == "numbers" and names else targets
    if images := _images(piece, columns, library):
        cells = list(zip(*([_named(cell, names.get(c)) for cell in piece[c]] for c in labels), strict=True))
        rows, known = _labeled(name, cells, labels, targets, skipped)
        column = _Column(piece.select_columns([images]), images, name, roots, np.arange(len(piece)))
        groups = of_column(columns.grouping, piece[columns.grouping]) if columns.grouping else None
        if rows is None:
            return Table(column, known, labels, (), (), images, header, groups)
        groups = None if groups is None else groups.take(rows)
        return Table(column.take(rows), known, labels, (), (), images, header, groups)
    if not names:
        return choose(name, header, piece, columns, skipped, targets=targets)
    named = [{**row, **{c: _named(row[c], names[c]) for c in names}} for row in piece]
    if all(row[c] is None for row in named for c in names):
        columns = replace(columns, targets=False)
    return choose(name, header, named, columns, skipped, targets=targets)


def image_cells(piece: Any, columns: Columns) -> list[Any]:
    """The cells of the column of images that would be read, not decoded; none where there is no such column."""
    library = require("datasets", extra=EXTRA)
    piece = _undecoded(piece)
    name = _images(piece, columns, library)
    return list(piece[name]) if name else []


def _images(piece: Any, columns: Columns, library: Any) -> str:
    """The column of images that is read; "" where it is one of texts, or numbers."""
    found = [c for c, feature in piece.features.items() if isinstance(feature, library.Image)]
    if columns.text is not None or not columns.images:
        return columns.text if columns.text is not None and columns.text in found else ""
    return columns.fitted.text if columns.fitted.text in found else next(iter(found), "")


def _named(cell: Any, names: Sequence[str] | None) -> Any:
    """A class, or each of several, by its name; None where it has none, as -1 says."""
    if names is None or cell is None:
        return cell
    if isinstance(cell, list):
        return [_named(each, names) for each in cell]
    return names[cell] if 0 <= cell < len(names) else None


def _labeled(
    name: str, cells: Sequence[Sequence[Any]], labels: Sequence[str], kind: TargetKind, skipped: Skipped | None
) -> tuple[npt.NDArray[np.int64] | None, list[Any] | None]:
    """The rows of images that have all labels (None: all rows), and those labels; None where no row has one."""
    if all(cell is None for row in cells for cell in row):
        return None, None
    rows, known = [], []
    for number, row in enumerate(cells):
        try:
            target = targets_of(row, labels, kind)
        except ValueError as error:
            if skipped is None:
                raise DataError(f"row {number + 1} of {name} {message_of(error)}", FIX) from error
            skipped.names.add(f"row {number + 1} of {name}")
            continue
        rows.append(number)
        known.append(target if len(labels) > 1 else target[0])
    return np.array(rows, np.int64), known


def _places(name: str, table: Table) -> list[str]:
    if isinstance(table.samples, LazyImages):
        return [table.samples.called(row) for row in range(len(table.samples))]
    return [f"{place} of {name}" for place in table.places]


def _each(feature: Any) -> Any:
    """What a list has, by its feature; None where it is no list."""
    return feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)


def _undecoded(piece: Any) -> Any:
    """The table as it is stored: the library would open images of any format, and sound and video with ffmpeg."""
    image = require("datasets", extra=EXTRA).Image
    piece = piece.with_format(None)  # it may have been saved to give tensors
    for column, feature in list(piece.features.items()):
        if isinstance(feature, image):
            piece = piece.cast_column(column, image(decode=False))
        elif _decodes(feature):
            piece = piece.remove_columns(column)  # which nothing here reads
    return piece


def _decodes(feature: Any) -> bool:
    if isinstance(feature, Mapping):
        return any(map(_decodes, feature.values()))
    if isinstance(feature, list | tuple):
        return any(map(_decodes, feature))
    return hasattr(feature, "decode_example") or _decodes(getattr(feature, "feature", ()))


def _line(error: Exception) -> str:
    return next(iter(message_of(error).splitlines()), type(error).__name__)
