"""Tables (.csv, .tsv, .jsonl, .parquet) as data sets: columns of texts or numbers, and one of labels or targets."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import ImageLike
from pocketzoo.core.errors import DataError, message_of, nearest
from pocketzoo.core.optional import require
from pocketzoo.zoo.catalog.dataset import Dataset, Split, Targets
from pocketzoo.zoo.catalog.task import TargetKind
from pocketzoo.zoo.data.batches import Skipped, divided
from pocketzoo.zoo.data.processors.table_cells import cell
from pocketzoo.zoo.data.target_kinds import read_targets

SUFFIXES = {".csv", ".tsv", ".jsonl", ".parquet", ".txt"}
TEXT = ("text", "sentence", "content", "document", "question")  # what a column of texts is called, best first
LABEL = ("label", "class", "target", "category", "intent")
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which columns of a table are read; None: found by their names."""

    text: str | None = None
    label: str | None = None
    numbers: tuple[str, ...] = ()  # those of numbers that a model reads, by name: others are not read
    targets: bool = True  # whether labels are read: predict needs none
    may_lack: bool = False  # whether a number may be missing, which is NaN: something fills it in


@dataclass(frozen=True, slots=True)
class Table:
    """What was read: texts, numbers (N, columns) of float32, or images; and the targets as they stand there."""

    samples: list[str] | npt.NDArray[np.float32] | Sequence[ImageLike]
    targets: list[Any] | None = None  # of several label columns, a list of each row
    labels: tuple[str, ...] = ()  # the columns they are from
    columns: tuple[str, ...] = ()  # of numbers: what each is
    places: tuple[str, ...] = ()  # of each sample: "line 2"


def read_table(
    path: Path,
    columns: Columns = Columns(),
    *,
    seed: int = 0,
    targets: TargetKind = "classes",
    skipped: Skipped | None = None,
) -> Dataset:
    """A table as a data set, divided by ``seed``.

    ``.csv`` and ``.tsv`` have a header, ``.jsonl`` has an object a line, ``.parquet`` needs pyarrow, ``.txt`` has a
    text a line and no classes. Columns are found by name (``text``, ``label``, ...) unless ``columns`` names them.
    Where no column holds texts, all but the label's must be numbers: the samples are vectors of them, in the table's
    order; of a model that knows its columns (``numbers``), those. ``targets`` says what the label column has; several
    are named with commas between. Rows that lack a value are an error, or noted in ``skipped``.

    Raises:
        DataError: it is empty or damaged, has no such columns, or a row lacks a value.
        MissingDependencyError: it is Parquet, and pyarrow is not installed.
    """
    return as_dataset(path.stem, read_columns(path, columns, skipped), seed, targets)


def read_columns(path: Path, columns: Columns = Columns(), skipped: Skipped | None = None) -> Table:
    """A table's samples, and its targets as they stand there; see ``read_table``."""
    names, rows = _rows(path, skipped)
    if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise DataError(f"{path} has two columns called {twice!r}", "give each column a name of its own")
    return choose(str(path), names, [row for _, row in rows], columns, skipped, [place for place, _ in rows])


def choose(
    name: str,
    names: Sequence[str],
    rows: Iterable[Row],
    columns: Columns,
    skipped: Skipped | None,
    places: Sequence[str] = (),
) -> Table:
    """The columns of a table that are samples and targets; ``name`` is the table's, for errors, ``places`` its rows'.

    Raises:
        DataError: there are no such columns, or a row lacks a value.
    """
    numbers = [column for column in columns.numbers if column in names]
    if (absent := [column for column in columns.numbers if column not in names]) and not columns.may_lack:
        reads = f"the model reads {', '.join(columns.numbers)}"
        raise DataError(f"{name} has no column {absent[0]!r}", f"{nearest(absent[0], names)}; {reads}")
    others = [column for column in names if column not in numbers]  # a model's columns are no texts, nor labels
    text = None if numbers else find_column(name, others, "text", columns.text)
    label = label_columns(name, others if columns.label is None else names, columns.label)
    if not columns.targets:
        numbers = numbers or [column for column in names if column not in label]
        label = ()
    if text is not None and text in label:
        raise DataError(f"the column {text!r} of {name} cannot be both text and label", "name two columns")
    rows = list(rows)
    if not rows:
        raise DataError(f"{name} has no rows", "give a header and one sample per row")
    numbers = numbers or [column for column in names if column not in label]
    inputs = [text] if text is not None else numbers
    read = _text if text is not None else _number_or_nothing if columns.may_lack else _number
    known = text is not None or columns.numbers
    if not known and not (inputs and all(_is_number(rows[0].get(column)) for column in inputs)):
        raise DataError(
            f"{name} has no column of texts among: {', '.join(names)}",
            f"name it with --text-column, or call it {TEXT[0]!r}; a table of numbers has no other columns",
        )
    samples, targets, read_places = [], [], []
    for number, row in enumerate(rows):
        place = places[number] if places else f"row {number + 1}"
        try:
            sample = [read(row.get(column), column) for column in inputs]
            target = [_target(row.get(column), column) for column in label]
        except ValueError as error:
            if skipped is None:
                raise DataError(f"{place} of {name} {message_of(error)}", _fix(row, inputs, text)) from None
            skipped.names.add(f"{place} of {name}")
            continue
        samples.append(sample)
        read_places.append(place)
        targets.append(target if len(label) > 1 else next(iter(target), None))
    if not samples:
        raise DataError(f"{name} has no readable rows", "fix the file")
    values: Any = [row[0] for row in samples] if text is not None else np.array(samples, np.float32)
    named = () if text is not None else tuple(inputs)
    return Table(values, targets if label else None, label, named, tuple(read_places))


def as_dataset(name: str, table: Table, seed: int, targets: TargetKind = "classes") -> Dataset:
    """A table divided by ``seed``, with its targets of a kind.

    Raises:
        DataError: the targets are not of that kind.
    """
    labels, known = classes(name, table.targets, targets, table.labels)
    return Dataset(name, labels, divided(Split(table.samples, known), seed), seed, table.columns)


def classes(
    name: str, targets: Sequence[Any] | None, kind: TargetKind = "classes", columns: Sequence[str] = ()
) -> tuple[tuple[str, ...], Targets | None]:
    """Labels and targets of a kind, of what stands in a table's label ``columns``; no labels where there are none.

    Raises:
        DataError: the targets are not of that kind.
    """
    if targets is None:
        return (), None
    if kind == "classes" and len(columns) < 2:  # whatever stands there, 1 and 1.0 apart
        labels = sorted({str(target) for target in targets})
        number = {label: i for i, label in enumerate(labels)}
        return tuple(labels), np.array([number[str(target)] for target in targets], np.int64)
    return read_targets(kind, name, np.array(targets), len(targets), columns)


def find_column(name: str, names: Sequence[str], what: str, asked: str | None) -> str | None:
    """The column of the texts, or of the labels: the one that is asked for, or found by name; None: there is none.

    Raises:
        DataError: the table has not what is asked for.
    """
    if asked is not None:
        if asked not in names:
            raise DataError(f"{name} has no column {asked!r}", nearest(asked, names))
        return asked
    usual_names = TEXT if what == "text" else LABEL
    return next((column for want in usual_names for column in names if column.lower() == want), None)


def label_columns(name: str, names: Sequence[str], asked: str | None) -> tuple[str, ...]:
    """The columns of the labels: none, one, or several that are asked for with commas between.

    Raises:
        DataError: the table has not what is asked for.
    """
    if asked is not None and asked not in names and "," in asked:
        parts = [part.strip() for part in asked.split(",") if part.strip()]
        return tuple(str(find_column(name, names, "label", part)) for part in dict.fromkeys(parts))
    found = find_column(name, names, "label", asked)
    return () if found is None else (found,)


def _text(value: Any, column: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"lacks its {column}")
    return value


def _number(value: Any, column: str) -> float:
    if not math.isfinite(number := _number_or_nothing(value, column)):
        raise ValueError(f"has no number in {column}: {value!r}")
    return number


def _number_or_nothing(value: Any, column: str) -> float:
    """NaN where there is none."""
    if not _is_number(value):
        raise ValueError(f"has no number in {column}: {value!r}")
    return cell(value)


def _is_number(value: Any) -> bool:
    """Whether it is one, or says that there is none."""
    try:
        return not math.isinf(cell(value))
    except ValueError:
        return False


def _fix(row: Row, inputs: Sequence[str], text: str | None) -> str:
    """What to do about a row that cannot be read."""
    numbers = () if text is not None else [row.get(column) for column in inputs]
    lacks = any(_is_number(value) and math.isnan(cell(value)) for value in numbers)
    return "fix or remove it, or use --skip-bad" + (
        "; fit --set missing=mean fills in what is missing" if lacks else ""
    )


def _target(value: Any, column: str) -> Any:
    if value is None or value == "":
        raise ValueError(f"lacks its {column}")
    return value


def _rows(path: Path, skipped: Skipped | None) -> tuple[list[str], list[tuple[str, Row]]]:
    """Names of the columns, and the rows, each with its place in the file."""
    readers = {".txt": _lines, ".jsonl": _objects, ".parquet": _parquet}
    try:
        return readers.get(path.suffix.lower(), _separated)(path, skipped)
    except (ValueError, OSError, csv.Error) as error:  # pyarrow raises the first two
        raise DataError(
            f"cannot read {path}: {message_of(error)}", "it must be UTF-8; see docs/training.md for the forms"
        ) from error


def _lines(path: Path, skipped: Skipped | None) -> tuple[list[str], list[tuple[str, Row]]]:
    lines = enumerate(path.read_text("utf8").splitlines(), start=1)
    return ["text"], [(f"line {number}", {"text": line.strip()}) for number, line in lines if line.strip()]


def _separated(path: Path, skipped: Skipped | None) -> tuple[list[str], list[tuple[str, Row]]]:
    rows: list[tuple[str, Row]] = []
    with path.open(encoding="utf-8-sig", newline="") as file:  # Excel begins a file with a byte order mark
        reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        names, end = next(reader, []), reader.line_num
        for cells in reader:
            place, end = f"line {end + 1}", reader.line_num  # a cell in quotes may have several
            if cells and (len(cells) < len(names) or any(cells[len(names) :])):  # which may be moved to the side
                if skipped is None:
                    what = f"{place} of {path} has {len(cells)} cells for {len(names)} columns"
                    raise DataError(what, "fix or remove it, or use --skip-bad")
                skipped.names.add(f"{place} of {path}")
            elif cells:
                rows.append((place, dict(zip(names, cells, strict=False))))
    return names, rows


def _objects(path: Path, skipped: Skipped | None) -> tuple[list[str], list[tuple[str, Row]]]:
    rows: list[tuple[str, Row]] = []
    with path.open(encoding="utf8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("it is not an object")
            except ValueError as error:
                if skipped is None:
                    raise ValueError(f"line {number}: {message_of(error)}") from error
                skipped.names.add(f"line {number} of {path}")
                continue
            rows.append((f"line {number}", row))
    return list(dict.fromkeys(name for _, row in rows[:100] for name in row)), rows


def _parquet(path: Path, skipped: Skipped | None) -> tuple[list[str], list[tuple[str, Row]]]:
    table = require("pyarrow.parquet", extra="datasets").read_table(path)
    rows = (row for batch in table.to_batches(4096) for row in batch.to_pylist())
    return list(table.column_names), [(f"row {number}", row) for number, row in enumerate(rows, start=1)]
