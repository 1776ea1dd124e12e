"""Tables (.csv, .tsv, .jsonl, .parquet) as data sets: columns of texts or numbers, and one of labels or targets."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import ImageLike
from pocketzoo.core.errors import DataError, message_of, nearest
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.zoo.catalog.dataset import Dataset, Groups, Split
from pocketzoo.zoo.catalog.processor_configs import NO_COLUMNS, DataColumns
from pocketzoo.zoo.catalog.task import TargetKind
from pocketzoo.zoo.data.batches import Skipped, divided
from pocketzoo.zoo.data.grouping.group_by import NOTHING_SAID, GroupBy, of_column
from pocketzoo.zoo.data.processors.table_cells import cell, is_number
from pocketzoo.zoo.data.table_files import FIX, Reading, Row, rows_of
from pocketzoo.zoo.data.target_kinds import classes, tags_of, targets_of

COMMA = re.compile(r"[-+]?\d+,\d+")  # a number as much of Europe writes it
SNIFFED = 100  # rows that tell whether a column has numbers
TEXT = ("text", "sentence", "content", "document", "question")  # what a column of texts is called, best first
LABEL = ("label", "class", "target", "category", "intent")
WORDS = ("tokens", "words", *TEXT)  # of texts whose words have tags
TAGS = ("tags", "ner_tags", "pos_tags", "labels", *LABEL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which columns of a table are read; None: found by their names."""

    text: str | None = None
    label: str | None = None
    numbers: tuple[str, ...] = ()  # those of numbers that a model reads, by name: others are not read
    fitted: DataColumns = NO_COLUMNS  # those that a model was fitted to, which are read where the table has them
    images: bool = True  # whether a column of images is read before one of texts
    targets: bool = True  # whether labels are read: predict needs none
    may_lack: bool = False  # whether a number may be missing, which is NaN: something fills it in
    encoding: str = ""  # of the file; "": as its byte order mark says, else UTF-8
    delimiter: str = ""  # between columns; "": found by the first rows
    group: str = ""  # what a source is: "column=NAME" is of a table, which neither samples nor targets are read from

    @property
    def grouping(self) -> str:
        """The column that sources are told by; "" where it is none."""
        by = GroupBy.parse(self.group)
        return by.value if by.kind == "column" else ""


@dataclass(frozen=True, slots=True)
class Table:
    """What was read: texts, numbers (N, columns) of float32, or images; and the targets as they stand there."""

    samples: list[str] | npt.NDArray[np.float32] | Sequence[ImageLike]
    targets: list[Any] | None = None  # of several label columns, a list of each row
    labels: tuple[str, ...] = ()  # the columns they are from
    columns: tuple[str, ...] = ()  # of numbers: what each is
    places: tuple[str, ...] = ()  # of each sample: "line 2"
    text: str = ""  # the column of texts or images
    header: tuple[str, ...] = ()  # all columns
    groups: Groups | None = None  # the sources of the samples, as a column names them


def read_table(
    path: Path,
    columns: Columns = Columns(),
    *,
    seed: int = 0,
    targets: TargetKind = "classes",
    skipped: Skipped | None = None,
    progress: Progress = SILENT,
) -> Dataset:
    """A table as a data set, divided by ``seed``.

    ``.csv`` and ``.tsv`` have a header, ``.jsonl`` has an object a line, ``.parquet`` needs pyarrow, ``.txt`` has a
    text a line and no classes. Columns are found by name (``text``, ``label``, ...) unless ``columns`` names them.
    Where no column holds texts, all but the label's must be numbers: the samples are vectors of them, in the table's
    order; of a model that knows its columns (``numbers``), those. ``targets`` says what the label column has; several
    are named with commas between. Of tags there is one for each word, in lists or with spaces between. Rows that lack a
    value are an error, or noted in ``skipped``.

    Raises:
        DataError: it is empty or damaged, has no such columns, or a row lacks a value.
        MissingDependencyError: it is Parquet, and pyarrow is not installed.
    """
    table = read_columns(path, columns, skipped, targets, progress)
    return as_dataset(path.stem, table, seed, targets, str(path), by_other(columns))


def read_columns(
    path: Path,
    columns: Columns = Columns(),
    skipped: Skipped | None = None,
    targets: TargetKind = "classes",
    progress: Progress = SILENT,
) -> Table:
    """A table's samples, and its targets as they stand there; see ``read_table``."""
    named = {"encoding": columns.encoding, "delimiter": columns.delimiter}
    names, rows = rows_of(path, Reading(**named, skipped=skipped, progress=progress))
    places = [place for place, _ in rows]
    return choose(str(path), names, [row for _, row in rows], columns, skipped, places, targets)


def choose(
    name: str,
    names: Sequence[str],
    rows: Iterable[Row],
    columns: Columns,
    skipped: Skipped | None,
    places: Sequence[str] = (),
    targets: TargetKind = "classes",
) -> Table:
    """The columns of a table that are samples and targets of a kind.

    ``name`` is the table's, for errors, ``places`` its rows'.

    Raises:
        DataError: there are no such columns, or a row lacks a value.
    """
    names = _without_sources(name, names, columns.grouping)
    numbers = [column for column in columns.numbers if column in names]
    if (absent := [column for column in columns.numbers if column not in names]) and not columns.may_lack:
        reads = f"the model reads {', '.join(columns.numbers)}"
        raise DataError(f"{name} has no column {absent[0]!r}", f"{nearest(absent[0], names)}; {reads}")
    others = [column for column in names if column not in numbers]  # a model's columns are no texts, nor labels
    tagged = targets == "tags"
    usual = WORDS if tagged else TEXT
    text = None if numbers else find_column(name, others, usual, columns.text, columns.fitted.text)
    fitted = [column for column in columns.fitted.labels if column in names or columns.targets]
    candidates = others if columns.label is None else names
    label = label_columns(name, candidates, columns.label, TAGS if tagged else LABEL, fitted)
    numbers = numbers or [column for column in names if column not in label]
    if not columns.targets:
        label = ()
    if text is not None and text in label:
        raise DataError(f"the column {text!r} of {name} cannot be both text and label", "name two columns")
    rows = list(rows)
    if not rows:
        raise DataError(f"{name} has no rows", "give a header and one sample per row")
    inputs = [text] if text is not None else numbers
    number = _number_or_nothing if columns.may_lack else _number
    read: Callable[[Any, str], Any] = number if text is None else _words if tagged else _text
    known = text is not None or bool(columns.numbers)
    if not known:
        _check_numbers(name, names, inputs, rows, usual[0], places[0] if places else "row 1")
    # A table whose labels are no numbers at all is one of classes, which is said of all of it.
    kind: TargetKind = targets
    if targets == "numbers" and not any(is_number(row.get(column)) for row in rows for column in label):
        kind = "classes"
    samples, values, read_places, sources = list[list[Any]](), list[Any](), list[str](), list[Any]()
    for i, row in enumerate(rows):
        place = places[i] if places else f"row {i + 1}"
        try:
            sample = [read(row.get(column), column) for column in inputs]
            target = targets_of([row.get(column) for column in label], label, kind)
            if tagged and text is not None and len(label) == 1:
                target = [_as_many(tags_of(target[0]), sample[0])]
        except ValueError as error:
            if skipped is None:
                raise DataError(f"{place} of {name} {message_of(error)}", _fix(row, inputs, text)) from None
            skipped.names.add(f"{place} of {name}")
            continue
        samples.append(sample)
        read_places.append(place)
        sources.append(row.get(columns.grouping))
        values.append(target if len(label) > 1 else next(iter(target), None))
    if not samples:
        raise DataError(f"{name} has no readable rows", "fix the file")
    readable: Any = [row[0] for row in samples] if text is not None else np.array(samples, np.float32)
    named = () if text is not None else tuple(inputs)
    return Table(
        readable,
        values if label else None,
        label,
        named,
        tuple(read_places),
        text or "",
        tuple(names),
        of_column(columns.grouping, sources) if columns.grouping else None,
    )


def _without_sources(name: str, names: Sequence[str], grouping: str) -> Sequence[str]:
    """The columns but that of the sources, which the table has to have."""
    if not grouping:
        return names
    find_column(name, names, (), grouping)
    return [column for column in names if column != grouping]


def by_other(columns: Columns) -> GroupBy:
    """What tells sources that is no column."""
    by = GroupBy.parse(columns.group)
    return GroupBy() if by.kind == "column" else by


def as_dataset(
    name: str, table: Table, seed: int, targets: TargetKind = "classes", where: str = "", by: GroupBy = NOTHING_SAID
) -> Dataset:
    """A table divided by ``seed``, with its targets of a kind. ``where`` is what it is called in errors: its path.

    ``by`` tells sources where the table does not.

    Raises:
        DataError: the targets are not of that kind.
    """
    places = [f"{place} of {where or name}" for place in table.places]
    labels, known = classes(where or name, table.targets, targets, table.labels, places)
    splits = divided(Split(table.samples, known, places, table.groups), seed, by)
    read = DataColumns(text=table.text, labels=table.labels)
    return Dataset(name, labels, splits, seed, table.columns, read, table.header)


def find_column(
    name: str, names: Sequence[str], usual_names: Sequence[str], asked: str | None, fitted: str = ""
) -> str | None:
    """The column that is asked for, that a model was ``fitted`` to, or the first of a usual name; None: there is none.

    Raises:
        DataError: the table has not what is asked for.
    """
    if asked is not None:
        if asked not in names:
            raise DataError(f"{name} has no column {asked!r} among: {', '.join(names)}", nearest(asked, names))
        return asked
    if fitted and fitted in names:
        return fitted
    return next((column for want in usual_names for column in names if column.lower() == want), None)


def label_columns(
    name: str,
    names: Sequence[str],
    asked: str | None,
    usual_names: Sequence[str] = LABEL,
    fitted: Sequence[str] = (),
) -> tuple[str, ...]:
    """The columns of the labels: none, one, or several that are asked for with commas between.

    Where none is asked for, those that a model was ``fitted`` to, if the table has them.

    Raises:
        DataError: the table has not what is asked for.
    """
    if asked is not None and asked not in names and "," in asked:
        parts = [part.strip() for part in asked.split(",") if part.strip()]
        return tuple(str(find_column(name, names, usual_names, part)) for part in dict.fromkeys(parts))
    there = [column for column in fitted if column in names] if asked is None else []
    if there and len(there) < len(fitted):
        absent = next(column for column in fitted if column not in names)
        raise DataError(
            f"{name} has no column {absent!r} of labels among: {', '.join(names)}",
            f"the model was fitted to {', '.join(fitted)}; name others with --label-column",
        )
    if there:
        return tuple(there)
    found = find_column(name, names, usual_names, asked)
    return () if found is None else (found,)


def _text(value: Any, column: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"lacks its {column}")
    return value


def _words(value: Any, column: str) -> str:
    """A text with one space between words, which are given so or as a list."""
    words = value.split() if isinstance(value, str) else value
    whole = isinstance(words, Sequence | np.ndarray) and all(isinstance(word, str) and word.strip() for word in words)
    if not whole or not len(words):
        raise ValueError(f"lacks its {column}")
    return " ".join("".join(word.split()) for word in words)


def _as_many(tags: list[str], text: str) -> list[str]:
    if len(tags) != len(text.split(" ")):
        raise ValueError(f"has {len(text.split(' '))} words and {len(tags)} tags")
    return tags


def _number(value: Any, column: str) -> float:
    if not math.isfinite(number := _number_or_nothing(value, column)):
        raise ValueError(f"has no number in {column}: {value!r}")
    return number


def _number_or_nothing(value: Any, column: str) -> float:
    """NaN where there is none."""
    if not is_number(value):
        raise ValueError(f"has no number in {column}: {value!r}")
    return cell(value)


def _check_numbers(
    name: str, names: Sequence[str], inputs: Sequence[str], rows: Sequence[Row], usual: str, place: str
) -> None:
    """Refuse a table that is neither one of texts nor one of numbers, as its first rows have them."""
    texts = [column for column in inputs if not _has_numbers(rows[:SNIFFED], column)]
    if texts or not inputs:
        first = next(iter(texts), "")
        there = rows[0].get(first, "")
        raise DataError(
            f"{name} has no column of texts among: {', '.join(names)}",
            f"name it with --text-column, or call it {usual!r}; a table of numbers has no other columns"
            + (f", and {first!r} has {there!r:.40} in {place}" if inputs else "")
            + ("; write numbers with a point" if COMMA.fullmatch(str(there).strip()) else ""),
        )
    if "" in inputs:
        raise DataError(
            f"{name} has a column of numbers without a name", "name it, or remove it: index=False in pandas"
        )


def _has_numbers(rows: Sequence[Row], column: str) -> bool:
    """Whether half of its cells or more are numbers, so that the others are wrong."""
    return 2 * sum(is_number(row.get(column)) for row in rows) >= len(rows)


def _fix(row: Row, inputs: Sequence[str], text: str | None) -> str:
    """What to do about a row that cannot be read."""
    numbers = () if text is not None else [row.get(column) for column in inputs]
    lacks = any(is_number(value) and math.isnan(cell(value)) for value in numbers)
    comma = any(isinstance(value, str) and COMMA.fullmatch(value.strip()) for value in numbers)
    return (
        FIX
        + ("; fit --set missing=mean fills in what is missing" if lacks else "")
        + ("; write numbers with a point" if comma else "")
    )
