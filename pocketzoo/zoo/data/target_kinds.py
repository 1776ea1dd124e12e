"""Targets as they stand in data, as tasks want them: classes, numbers, flags of labels, tags of words, or arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.errors import DataError, message_of
from pocketzoo.zoo.catalog.dataset import Dataset, Targets
from pocketzoo.zoo.catalog.task import TargetKind
from pocketzoo.zoo.data.processors.table_cells import cell, is_number

Array = npt.NDArray[Any]
Read = tuple[tuple[str, ...], Targets]  # labels, and the targets
SEPARATOR = "|"  # between several labels in one column
IGNORED = -100  # the target of a word or token of which nothing is known, as torch's losses have it
# Kind -> axes and types, where targets of another kind could be taken for such: the number of a class for a number.
SHAPES: dict[TargetKind, tuple[int, str]] = {"numbers": (2, "f"), "flags": (2, "iub"), "tags": (2, "iu")}
TRUE, FALSE = {"1", "1.0", "true", "yes"}, {"", "0", "0.0", "false", "no", "none"}


def read_targets(kind: TargetKind, name: str, y: Array, count: int, names: Sequence[str] = ()) -> Read:
    """Labels, and the targets of ``count`` samples; ``names`` are what the columns of ``y`` are called.

    Raises:
        DataError: ``y`` is not such targets.
    """
    return _KINDS[kind](name, y, count, tuple(names))


def _classes(name: str, y: Array, count: int, names: tuple[str, ...]) -> Read:
    if y.ndim != 1 or (y.dtype.kind == "f" and not np.isfinite(y).all()):
        several = y.ndim == 2 and y.dtype.kind in "iub" and set(np.unique(y).tolist()) <= {0, 1}
        raise DataError(
            f"{name}: y is {y.dtype} of shape {y.shape}",
            "give one label or number per sample" + ", or fit a head for several labels: --head multi-label" * several,
        )
    if len(y) != count:
        raise DataError(f"{name}: x has {count} samples, y has {len(y)}", "give one y per x")
    labels, targets = np.unique(y, return_inverse=True)
    return tuple(str(label) for label in labels), targets.astype(np.int64)


def _numbers(name: str, y: Array, count: int, names: tuple[str, ...]) -> Read:
    return (), as_numbers(name, y, count)


def as_numbers(name: str, y: Array, count: int) -> Targets:
    """Targets as numbers (N, outputs)."""
    try:
        with np.errstate(over="ignore"):  # what float32 does not hold is infinite, which is refused below
            numbers = y.astype(np.float32)
    except (ValueError, TypeError, OverflowError) as error:  # texts; tables, lists and None; whole numbers
        raise DataError(
            f"the targets of {name} are not numbers: {message_of(error)}", "fit a classifier: --head linear"
        ) from error
    numbers = numbers[:, None] if numbers.ndim == 1 else numbers
    if numbers.ndim != 2 or len(numbers) != count or not np.isfinite(numbers).all():
        raise DataError(
            f"the targets of {name} have shape {y.shape} for {count} samples, or are not finite",
            "give one number, or one row of them, for each sample",
        )
    return numbers


def _flags(name: str, y: Array, count: int, names: tuple[str, ...]) -> Read:
    """0 or 1 of each label; one column of texts has the labels that are true, with ``SEPARATOR`` between them."""
    if y.ndim == 1 and y.dtype.kind in "UO" and len(names) <= 1:
        sets = [{part.strip() for part in str(text).split(SEPARATOR) if part.strip()} for text in y]
        labels = tuple(sorted(set().union(*sets)))
        return _checked(labels, np.array([[label in each for label in labels] for each in sets], np.int64), name, count)
    if y.ndim != 2:
        raise DataError(
            f"{name}: y is {y.dtype} of shape {y.shape}, not 0 or 1 for each label",
            "give an .npz whose y is (samples, labels), or a table with several label columns: --label-column a,b",
        )
    if y.dtype.kind in "UO":
        words = np.char.lower(y.astype(str))
        known = np.isin(words, list(TRUE | FALSE))
        flags = np.isin(words, list(TRUE)).astype(np.int64)
    else:
        known, flags = np.isin(y, (0, 1)), (y == 1).astype(np.int64)
    if not known.all():
        raise DataError(f"{name}: a label is {y[~known][0]!s}, and neither 0 nor 1", "give 0 or 1 for each label")
    return _checked(names or tuple(map(str, range(y.shape[1]))), flags, name, count)


def flag(value: Any, column: str) -> int:
    """0 or 1, as a table says it in a column of its own for each label.

    Raises:
        ValueError: it says something else.
    """
    said = str(value).strip().lower()
    if said not in TRUE | FALSE:
        raise ValueError(f"has neither 0 nor 1 in {column}: {value!r:.60}")
    return int(said in TRUE)


def _checked(labels: tuple[str, ...], flags: Targets, name: str, count: int) -> Read:
    if not labels or flags.shape != (count, len(labels)):
        raise DataError(
            f"{name}: there are {len(labels)} labels, and targets of shape {flags.shape} for {count} samples",
            "give 0 or 1 for each label of each sample",
        )
    if len(set(labels)) < len(labels):
        raise DataError(f"{name}: two labels have one name", "give each its own")
    return labels, flags


def tags_of(cell: Any) -> list[str]:
    """The tags of a text's words: a list of them, or a text with spaces between.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(cell, str):
        return cell.split()
    if isinstance(cell, Sequence | np.ndarray) and all(isinstance(tag, str | int | np.integer) for tag in cell):
        return [str(tag) for tag in cell]
    raise ValueError(f"has no tag for each word: {cell!r:.40}")


def _tags(name: str, y: Array, count: int, names: tuple[str, ...]) -> Read:
    """Tags as ``tags_of`` takes them, numbered in the order of their names; or numbers (N, tokens) as they are.

    Of maps (N, H, W) each position is one, in their order.
    """
    y = y.reshape(len(y), -1) if y.ndim > 2 and y.dtype.kind in "iu" else y
    if y.ndim == 2 and y.dtype.kind in "iu":
        if len(y) != count:
            raise DataError(f"{name}: x has {count} samples, y has {len(y)}", "give one row of y per x")
        if bad := [int(value) for value in np.unique(y) if value < 0 and value != IGNORED]:
            raise DataError(
                f"{name}: y has the class {bad[0]}", f"give 0 or more, and {IGNORED} where a token has no class"
            )
        return names, y.astype(np.int64)
    if y.ndim != 1 or y.dtype.kind not in "UO" or len(y) != count:
        raise DataError(
            f"{name}: y is {y.dtype} of shape {y.shape} for {count} samples, not a tag for each word",
            "give a CoNLL file, or a table with a column of words and one of tags, a text a row",
        )
    try:
        rows = [tags_of(cell) for cell in y]
    except ValueError as error:
        raise DataError(f"{name} {message_of(error)}", "give as many tags as words") from error
    seen = {tag for row in rows for tag in row}
    numbers = all(tag.isdecimal() and len(tag) < 19 for tag in seen)
    labels = sorted(seen, key=int) if numbers else sorted(seen)
    number = {label: i for i, label in enumerate(labels)}
    targets = np.full((count, max(map(len, rows), default=0)), IGNORED, np.int64)
    for target, row in zip(targets, rows, strict=True):
        target[: len(row)] = [number[tag] for tag in row]
    return tuple(labels), targets


def _arrays(name: str, y: Array, count: int, names: tuple[str, ...]) -> Read:
    if y.dtype.kind not in "uifb" or not y.ndim or len(y) != count:
        raise DataError(f"{name}: y is {y.dtype} of shape {y.shape} for {count} samples", "give one row per sample")
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise DataError(f"{name}: y has non-finite values", "remove samples with NaN or infinity")
    return (), y.astype(np.float32 if y.dtype.kind == "f" else np.int64)


_KINDS: dict[TargetKind, Callable[[str, Array, int, tuple[str, ...]], Read]] = {
    "classes": _classes,
    "numbers": _numbers,
    "flags": _flags,
    "tags": _tags,
    "arrays": _arrays,
}


def classes(
    name: str,
    targets: Sequence[Any] | None,
    kind: TargetKind = "classes",
    columns: Sequence[str] = (),
    places: Sequence[str] = (),
) -> tuple[tuple[str, ...], Targets | None]:
    """Labels and targets of a kind, of what stands in a table's label ``columns``; no labels where there are none.

    ``places`` are those of the rows, for errors.

    Raises:
        DataError: the targets are not of that kind.
    """
    if targets is None:
        return (), None
    if kind == "classes" and len(columns) < 2:
        called = _as_labels(name, targets, places)
        labels = sorted(set(called))
        number = {label: i for i, label in enumerate(labels)}
        return tuple(labels), np.array([number[label] for label in called], np.int64)
    if kind == "tags" and len(columns) < 2:
        cells = np.empty(len(targets), object)  # a list each, of different lengths
        for i, target in enumerate(targets):
            cells[i] = target
        return read_targets(kind, name, cells, len(targets))
    try:
        together = np.array(targets)
    except (ValueError, OverflowError) as error:  # lists of different lengths
        odd = next((i for i, target in enumerate(targets) if np.shape(target) != np.shape(targets[0])), 0)
        place = places[odd] if places else f"row {odd + 1} of {name}"
        raise DataError(
            f"{place} has other targets than the first: {targets[odd]!r:.60}", "give each as many"
        ) from error
    return read_targets(kind, name, together, len(targets), columns)


def _as_labels(name: str, targets: Sequence[Any], places: Sequence[str]) -> list[str]:
    """Whatever stands there as the names of classes; numbers that are equal have one, however they are written."""
    flags = [isinstance(target, bool | np.bool_) for target in targets]
    if any(flags) and not all(flags):
        few = flags.index(sum(flags) * 2 <= len(flags))  # the first that is not as most are
        place = places[few] if places else f"row {few + 1} of {name}"
        others = "no true or false, as others are" if not flags[few] else "true or false, and others are not"
        raise DataError(f"{place} has the label {targets[few]!r:.60}, {others}", "write each label in one way")
    whole = any(isinstance(target, int | np.integer) for target in targets) and not any(flags)
    return [str(int(t)) if whole and isinstance(t, float) and t.is_integer() else str(t) for t in targets]


def targets_of(values: Sequence[Any], columns: Sequence[str], kind: TargetKind) -> list[Any]:
    """The targets of a row, of what its label columns have; of several flags each is 0 or 1.

    Raises:
        ValueError: one is missing, or is not of that kind.
    """
    targets = [target_of(value, column, kind) for value, column in zip(values, columns, strict=True)]
    if kind == "flags" and len(columns) > 1:
        return [flag(target, column) for target, column in zip(targets, columns, strict=True)]
    return targets


def target_of(value: Any, column: str, kind: TargetKind) -> Any:
    """A label without what is blank around it, or a number.

    Raises:
        ValueError: there is none, or it is not of that kind.
    """
    value = value.strip() if isinstance(value, str) else value
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)) or _says_nan(value):
        raise ValueError(f"lacks its {column}")
    if kind == "numbers" and not (is_number(value) and math.isfinite(cell(value))):
        raise ValueError(f"has no number in {column}: {value!r:.60}")
    if isinstance(value, list | tuple | np.ndarray) and kind == "flags":
        if not all(isinstance(each, str | int) for each in value) or any(SEPARATOR in str(each) for each in value):
            raise ValueError(f"has no labels in {column}: {value!r:.60}")
        return SEPARATOR.join(str(each).strip() for each in value)
    if isinstance(value, Mapping | list | tuple | np.ndarray) and kind == "classes":
        raise ValueError(f"has several values in {column}, and not one label: {value!r:.60}")
    return value


def _says_nan(value: Any) -> bool:
    return isinstance(value, str) and value.lower() == "nan"


def of_kind(dataset: Dataset, kind: TargetKind) -> Dataset:
    """The data set, without its targets where they are of another kind."""
    return without_targets(dataset) if kind in SHAPES and not holds(dataset, *SHAPES[kind]) else dataset


def without_targets(dataset: Dataset) -> Dataset:
    """The samples alone."""
    bare = {name: replace(split, targets=None) for name, split in dataset.splits.items()}
    return replace(dataset, labels=(), splits=bare)


def labels_of(dataset: Dataset) -> str:
    """The data in an error about its labels: of a table with the column that they are in."""
    columns = dataset.read.labels if dataset.read is not None else ()
    return f"{dataset.name}, column {' and '.join(map(repr, columns))}," if columns else dataset.name


def naming_hint(dataset: Dataset, otherwise: str) -> str:
    """What to do about targets that are missing: of a table that has other columns, to name one."""
    if not dataset.header:
        return otherwise
    return f"{otherwise}; its columns are {', '.join(dataset.header)}: name that of labels with --label-column"


def holds(dataset: Dataset, axes: int, kinds: str) -> bool:
    """Whether all targets that it has are arrays of so many axes, of types of these kinds."""
    targets = [split.targets for split in dataset.splits.values() if split.targets is not None]
    return bool(targets) and all(each.ndim == axes and each.dtype.kind in kinds for each in targets)
