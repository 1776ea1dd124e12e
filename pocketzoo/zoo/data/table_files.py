"""Rows of the files that are tables: .csv, .tsv, .jsonl, .parquet, and lines of text, each row with its place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pocketzoo.core.errors import DataError, message_of
from pocketzoo.core.optional import require
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.reading.documents import parse_json
from pocketzoo.zoo.data.batches import Skipped
from pocketzoo.zoo.data.processors.encoded_text import RENAME, TextLines, lines_of
from pocketzoo.zoo.data.table_dialects import STRAY, Dialect, Record, records, sniffed, swallowed

SUFFIXES = {".csv", ".tsv", ".jsonl", ".parquet", ".txt"}
FIX = "fix or remove it, or use --skip-bad"
SEPARATOR = re.compile(r'"?sep=(.)"?')  # a first line that names the delimiter
Row = Mapping[str, Any]
Rows = list[tuple[str, Row]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a file is read: what its reference names, and where to say what was found."""

    encoding: str = ""  # "": by its byte order mark, else UTF-8
    delimiter: str = ""  # "": by its first rows
    skipped: Skipped | None = None  # takes rows that cannot be read; None: the first is an error
    progress: Progress = field(default=SILENT)


def rows_of(path: Path, reading: Reading = Reading()) -> tuple[list[str], Rows]:
    """Names of the columns, and the rows, each with its place in the file: "line 2", or "row 1".

    How the file is written is said where it is not as its suffix says: in UTF-8, commas in ``.csv``, tabs in ``.tsv``.

    Raises:
        DataError: it cannot be read, or two columns have one name; or a row cannot be, and nothing takes it.
        MissingDependencyError: it is Parquet, and pyarrow is not installed.
    """
    readers = {".txt": _lines, ".jsonl": _objects, ".parquet": _parquet}
    try:
        names, rows = readers.get(path.suffix.lower(), _separated)(path, reading)
    except DataError:
        raise
    except (ValueError, OSError) as error:
        raise DataError(f"cannot read {path}: {message_of(error)}", "see docs/training.md for the forms") from error
    if (twice := next((name for i, name in enumerate(names) if name in names[:i]), None)) is not None:
        raise DataError(f"{path} has two columns called {twice!r}", "give each column a name of its own")
    return names, rows


def _read(path: Path, reading: Reading) -> TextLines:
    read = lines_of(path.read_bytes(), str(path), reading.encoding)
    for number, what in read.bad.items():
        _bad(path, f"line {number}", what, reading, RENAME + ", or use --skip-bad")
    if not reading.encoding and read.encoding.startswith("utf-") and read.encoding[4:] in ("16", "32"):
        reading.progress.say(f"{path} is in {read.encoding.upper()}, as its byte order mark says")
    return read


def _bad(path: Path, place: str, what: str, reading: Reading, hint: str = FIX) -> None:
    """A row that cannot be read: noted, or an error."""
    if reading.skipped is None:
        raise DataError(f"{place} of {path} {what}", hint)
    reading.skipped.names.add(f"{place} of {path}")


def _lines(path: Path, reading: Reading) -> tuple[list[str], Rows]:
    return ["text"], [(f"line {number}", {"text": text}) for number, text in _read(path, reading).texts()]


def _separated(path: Path, reading: Reading) -> tuple[list[str], Rows]:
    read = _read(path, reading)
    lines = read.lines
    usual, asked = "\t" if path.suffix.lower() == ".tsv" else ",", reading.delimiter
    if lines and (stated := SEPARATOR.fullmatch(lines[0][1].strip())):  # for Excel, in front of the header
        lines, asked = lines[1:], asked or stated[1]
    dialect = sniffed(lines, asked or usual, str(path)) if len(lines) else Dialect(usual)
    if asked:
        dialect = replace(dialect, delimiter=asked)
    elif dialect != Dialect(usual, spaces=dialect.spaces):
        reading.progress.say(f"{path} has {dialect.called}")
    found = [
        each for each in records(lines, dialect) if each.wrong or any(map(str.strip, each.cells[:1])) or each.cells[1:]
    ]
    if not found:
        return [], []
    header, *found = found
    number = lines[header.first][0]
    lost = [bad for bad in read.bad if bad < number]  # which may have been the header, so that this is none
    if wrong := header.wrong or (read.bad[lost[0]] if lost else ""):
        raise DataError(f"line {lost[0] if lost else number} of {path} {wrong}", "fix the names of the columns")
    names = [name.strip() for name in header.cells]
    if _are_numbers(names):
        raise DataError(f"line {number} of {path} has numbers, and no names of columns", "write them above the rows")
    rows: Rows = []
    for each in _whole(lines, found, dialect, len(names)):
        place = f"line {lines[each.first][0]}"
        if each.wrong:
            _bad(path, place, each.wrong, reading)
        elif len(each.cells) != len(names):  # cells may be moved to the side
            _bad(path, place, f"has {len(each.cells)} cells for {len(names)} columns", reading)
        else:
            rows.append((place, dict(zip(names, each.cells, strict=True))))
    return names, rows


def _are_numbers(names: Sequence[str]) -> bool:
    """Whether a header is rather a row. Numbers in their order are names that programs give: 0, 1, 2."""
    try:
        numbers = [float(name) for name in names]
    except ValueError:
        return False
    return numbers not in ([*map(float, range(len(names)))], [*map(float, range(1, len(names) + 1))])


def _whole(lines: Sequence[tuple[int, str]], found: Sequence[Record], dialect: Dialect, width: int) -> Iterable[Record]:
    """The records, without those in which a stray quote swallowed others: of these each line is read for itself."""
    columns: list[set[str]] | None = None
    for each in found:
        if each.wrong or each.first == each.last:
            yield each
            continue
        if lines[each.last][0] - lines[each.first][0] > each.last - each.first:
            yield replace(each, wrong="has a line that cannot be read")
            continue
        if columns is None:
            alone = [r.cells for r in found if r.first == r.last and len(r.cells) == width]
            columns = [{cells[i].strip() for cells in alone} for i in range(width)]
        if not swallowed(lines, each, dialect, columns):
            yield each
            continue
        for i in range(each.first, each.last + 1):
            line = lines[i : i + 1]
            for part in records(line, dialect):
                wrong = STRAY if dialect.quote in line[0][1] else part.wrong
                yield Record(i, i, part.cells, wrong)


def _objects(path: Path, reading: Reading) -> tuple[list[str], Rows]:
    rows: Rows = []
    names: dict[str, None] = {}
    for number, line in _read(path, reading).texts():
        try:
            row = parse_json(line, once=True)
            if not isinstance(row, dict):
                raise ValueError("it is not an object")
        except ValueError as error:
            _bad(path, f"line {number}", f"is not a row: {message_of(error)}", reading)
            continue
        rows.append((f"line {number}", row))
        names.update(dict.fromkeys(row))
    return list(names), rows


def _parquet(path: Path, reading: Reading) -> tuple[list[str], Rows]:
    parquet = require("pyarrow.parquet", extra="datasets")
    try:
        table = parquet.read_table(path)
        rows = [row for batch in table.to_batches(4096) for row in batch.to_pylist()]
    except Exception as error:  # pyarrow's own are of many builtin types
        raise DataError(f"cannot read {path}: {message_of(error)}", "see docs/training.md for the forms") from error
    return list(table.column_names), [(f"row {number}", row) for number, row in enumerate(rows, start=1)]
