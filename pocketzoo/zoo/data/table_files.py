"""Rows of the files that are tables: .csv, .tsv, .jsonl, .parquet, and lines of text, each row with its place."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pocketzoo.core.errors import DataError, message_of
from pocketzoo.core.optional import require
from pocketzoo.core.reading.documents import parse_json
from pocketzoo.zoo.data.batches import Skipped

SUFFIXES = {".csv", ".tsv", ".jsonl", ".parquet", ".txt"}
Row = Mapping[str, Any]


def rows_of(path: Path, skipped: Skipped | None) -> tuple[list[str], list[tuple[str, Row]]]:
    """Names of the columns, and the rows, each with its place in the file: "line 2", or "row 1".

    Raises:
        DataError: it cannot be read, or two columns have one name. Rows that cannot be are noted in ``skipped``.
        MissingDependencyError: it is Parquet, and pyarrow is not installed.
    """
    readers = {".txt": _lines, ".jsonl": _objects, ".parquet": _parquet}
    try:
        names, rows = readers.get(path.suffix.lower(), _separated)(path, skipped)
    except (ValueError, OSError, csv.Error) as error:  # pyarrow raises the first two
        raise DataError(
            f"cannot read {path}: {message_of(error)}", "it must be UTF-8; see docs/training.md for the forms"
        ) from error
    if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise DataError(f"{path} has two columns called {twice!r}", "give each column a name of its own")
    return names, rows


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
                row = parse_json(line)
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
