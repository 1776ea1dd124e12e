"""How a table of separated values is written: what stands between its columns and around its cells; and its records."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pocketzoo.core.errors import DataError

DELIMITERS = (",", ";", "\t", "|")
NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "|"}
SNIFFED = 100  # lines
SEVERAL = 2  # columns, and rows, from which on quotes around cells can be told from a part of them
STRAY, UNCLOSED = "has a stray quote", "has a quote that is not closed"
Lines = Sequence[tuple[int, str]]  # with their numbers and ends


@dataclass(frozen=True, slots=True)
class Dialect:
    """How cells are told apart."""

    delimiter: str = ","
    quote: str = '"'
    spaces: bool = False  # whether a space follows each delimiter, which is no part of the cell

    @property
    def called(self) -> str:
        """In words, for users."""
        return f"{NAMES.get(self.delimiter, repr(self.delimiter))} between columns" + (
            f" and {self.quote} around cells" if self.quote != '"' else ""
        )


@dataclass(frozen=True, slots=True)
class Record:
    """A row with the lines it stands on; one with ``wrong`` cannot be read."""

    first: int  # of the lines, counted from 0
    last: int
    cells: list[str]
    wrong: str = ""


def sniffed(lines: Lines, usual: str, name: str) -> Dialect:
    """The dialect by which most of the first rows have as many cells as the header, the ``usual`` delimiter first.

    Raises:
        DataError: two delimiters are equally likely, and the usual one is not.
    """
    head = [line for line in lines[: 2 * SNIFFED] if line[1].strip()][:SNIFFED]
    quote = "'" if _single_quoted(head) else '"'
    dialects = {d: Dialect(d, quote, _spaced(head, d)) for d in (usual, *DELIMITERS)}
    scores = {d: _score(head, dialect) for d, dialect in dialects.items()}
    best = max(scores.values(), default=0.0)
    if scores[usual] == best or not best:
        return dialects[usual]
    likely = [d for d in scores if scores[d] == best]
    if len(likely) > 1:
        said = " or ".join(NAMES[d] for d in likely)
        raise DataError(f"{name} may have {said} between its columns", f"say which: {name}?delimiter={likely[0]}")
    return dialects[likely[0]]


def _score(head: Lines, dialect: Dialect) -> float:
    """The fraction of rows that have as many cells as the header, of several columns."""
    rows = list(records(head, dialect))
    if not rows or rows[0].wrong or len(rows[0].cells) < SEVERAL:
        return 0.0
    width = len(rows[0].cells)
    return sum(not row.wrong and len(row.cells) == width for row in rows[1:]) / max(len(rows) - 1, 1) or 1e-9


def _single_quoted(head: Lines) -> bool:
    """Whether each row has a cell in single quotes, and none has double ones."""
    rows = [line.strip() for _, line in head[1:]]
    between = "".join(map(re.escape, DELIMITERS))
    cell = re.compile(rf"(?:^|[{between}])\s*'[^']*(?:''[^']*)*'\s*(?:$|[{between}])")
    return len(rows) >= SEVERAL and not any('"' in row for row in rows) and all(map(cell.search, rows))


def _spaced(head: Lines, delimiter: str) -> bool:
    header = head[0][1].strip() if head else ""
    return delimiter in header and header.count(f"{delimiter} ") == header.count(delimiter)


def records(lines: Lines, dialect: Dialect) -> Iterator[Record]:
    """The rows in their order. After one that cannot be read it continues with the next line."""
    longest = sum(len(line) for _, line in lines)
    if longest > csv.field_size_limit():  # which is for streams, and the file is in memory
        csv.field_size_limit(longest)
    start = 0
    while start < len(lines):
        reader = csv.reader(
            (lines[i][1] for i in range(start, len(lines))),
            delimiter=dialect.delimiter,
            quotechar=dialect.quote,
            skipinitialspace=dialect.spaces,
            strict=True,
        )
        begun = start
        try:
            for cells in reader:
                yield Record(begun, start + reader.line_num - 1, cells)
                begun = start + reader.line_num
            return
        except csv.Error as error:
            yield Record(begun, begun, [], UNCLOSED if "end of data" in str(error) else STRAY)
            start = begun + 1


def swallowed(lines: Lines, record: Record, dialect: Dialect, columns: Sequence[set[str]]) -> bool:
    """Whether a record of several lines is as many rows, of which the first begins with a quote that is none.

    That is so where each of its lines but the last has a cell for every column as it stands, and those outside of the
    one that a quote opens are values that ``columns`` have elsewhere. Tabs are in no text, so that there the first is
    enough.
    """
    for i in range(record.first, record.last):
        cells = [cell.strip() for cell in lines[i][1].split(dialect.delimiter)]
        if len(cells) != len(columns):
            return False
        outside = [cell in known for cell, known in zip(cells, columns, strict=True) if dialect.quote not in cell]
        if dialect.delimiter != "\t" and not (any(outside) if i > record.first else all(outside) and outside):
            return False
    return record.last > record.first
