"""The processor of tables: rows of numbers, by column or in order, standardized."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import Array, Arrays
from pocketzoo.core.errors import DataError, nearest
from pocketzoo.zoo.catalog.dataset import Dataset
from pocketzoo.zoo.catalog.processor_configs import TableSpec
from pocketzoo.zoo.catalog.signature import TensorSpec
from pocketzoo.zoo.data.processors.base import ProcessorBase, by, called
from pocketzoo.zoo.data.processors.table_cells import cell


class TableProcessor(ProcessorBase):
    """Rows as float32 (B, columns). Arrays of float32 are in the order of the columns, and are standardized too."""

    def __init__(self, spec: TableSpec) -> None:
        self.spec = self.table = spec
        self.inputs = (TensorSpec(name=spec.name, shape=("batch", spec.width)),)
        named = f", or a mapping with {', '.join(spec.columns[:5])}" if spec.columns else ""
        self.wants = f"give rows of {spec.width} numbers, float32{named}"

    def row(self, sample: Any) -> Arrays:
        """A mapping of column -> number, or numbers in the order of the columns."""
        return {self.spec.name: self._finished(self._raw(sample)[None])[0]}

    def _raw(self, sample: Any) -> Array:
        """A sample as it is given, in the order of the columns: (columns,), NaN where it lacks a value."""
        spec = self.spec
        if isinstance(sample, Mapping):
            if self.is_ready(sample):
                return self._raw(sample[spec.name])
            if not spec.columns:
                raise DataError("the columns of this model have no names", self.wants)
            if unknown := [column for column in sample if column not in spec.columns]:
                raise DataError(f"the model reads no column {unknown[0]!r}", nearest(str(unknown[0]), spec.columns))
            values = [self._number(sample.get(column), column) for column in spec.columns]
        elif isinstance(sample, np.ndarray | list | tuple):
            try:
                shape = np.shape(sample)
            except ValueError:  # lists of different lengths
                raise DataError("a row has lists within it", self.wants) from None
            if len(shape) != 1:
                raise DataError(f"a row has shape {by(shape)}", self.wants)
            values = self._numbers(list(sample))
        else:
            raise DataError(f"a row cannot be {called(sample)}", self.wants)
        return np.array(values, np.float32)

    def raw(self, samples: Sequence[Any]) -> Array:
        """Samples as they are given, in the order of the columns: (N, columns), NaN where one lacks a value.

        Raises:
            DataError: one cannot be read.
        """
        if isinstance(samples, np.ndarray) or all(isinstance(sample, np.ndarray) for sample in samples):
            shapes = {np.shape(sample) for sample in samples}
            if shapes == {(self.spec.width,)}:  # at once: a table may have a million rows
                rows = np.stack(samples)
                if rows.dtype.kind in "uifb":
                    return rows.astype(np.float32, copy=False)
        return np.array([self._raw(sample) for sample in samples], np.float32).reshape(-1, self.spec.width)

    def __call__(self, samples: Sequence[Any]) -> Arrays:
        return {self.spec.name: self._finished(self.raw(samples))}

    def is_ready(self, sample: Any) -> bool:
        """See ``ProcessorBase``: a row by the input's name, which is read as the row alone."""
        return isinstance(sample, Mapping) and super().is_ready(sample)

    def arrays(self, given: Any) -> Arrays | None:
        if isinstance(given, np.ndarray) and given.dtype.kind in "uifb":
            given = {self.spec.name: given}
        ready = super().arrays(given)
        if ready is None and isinstance(given, Mapping) and isinstance(given.get(self.spec.name), np.ndarray):
            ready = given  # of one axis too few, which the check says
        if ready is None or self.spec.name not in ready:
            return ready
        x = ready[self.spec.name]
        if x.dtype != np.float32 or x.shape[1:] != (self.spec.width,):
            return ready  # whose check says what is wrong
        return {**ready, self.spec.name: self._finished(x)}

    def samples(self, given: Any) -> Sequence[Any]:
        flat = isinstance(given, list | tuple) and all(isinstance(value, int | float) for value in given)
        return [given] if flat and given else super().samples(given)

    def reads(self, dataset: Dataset) -> Dataset:
        """See ``Processor``: the columns of the data by name, in the order of the model's."""
        names, columns = dataset.columns, self.spec.columns
        if names and not columns and len(names) != self.spec.width:
            raise DataError(
                f"{dataset.name} has {len(names)} columns, {', '.join(names)}; the model reads {self.spec.width}",
                "if one has labels, name it: TABLE?label=COLUMN",
            )
        if not names or not columns or names == columns:
            return dataset
        missing = [column for column in columns if column not in names]
        if missing and (not self.spec.missing or len(missing) == len(columns)):
            near = nearest(missing[0], names)
            raise DataError(
                f"{dataset.name} has no column {missing[0]!r}", f"{near}; the model reads {', '.join(columns)}"
            )
        places = [names.index(column) if column in names else -1 for column in columns]
        splits = {name: replace(split, samples=_taken(split.samples, places)) for name, split in dataset.splits.items()}
        return replace(dataset, splits=splits, columns=columns)

    def _number(self, value: Any, column: str) -> float:
        try:
            number = cell(value)
        except ValueError:
            raise DataError(f"column {column!r} has no number: {value!r}", self.wants) from None
        if math.isinf(number):
            raise DataError(f"column {column!r} is {value!r}", "give a finite number")
        return number

    def _numbers(self, sample: Sequence[Any]) -> list[float]:
        if len(sample) != self.spec.width:
            raise DataError(f"a row has {len(sample)} numbers, the model reads {self.spec.width}", self.wants)
        return [self._number(value, self._called(i)) for i, value in enumerate(sample)]

    def _finished(self, rows: Array) -> Array:
        return self._standard(self._filled(rows))

    def _filled(self, rows: Array) -> Array:
        """The rows with what they lack filled in, which is NaN."""
        lacking = np.isnan(rows)
        if not lacking.any():
            return rows
        if not self.spec.missing:
            column = self._called(int(np.flatnonzero(lacking.any(0))[0]))
            raise DataError(f"a row lacks its {column!r}", "fill it in, or remove the row")
        return np.where(lacking, np.asarray(self.spec.missing, np.float32), rows).astype(np.float32, copy=False)

    def _standard(self, rows: Array) -> Array:
        spec = self.spec
        if not (spec.mean or spec.std):
            return rows
        mean, std = (np.asarray(values or (fill,), np.float32) for values, fill in ((spec.mean, 0.0), (spec.std, 1.0)))
        return ((rows - mean) / std).astype(np.float32, copy=False)

    def _called(self, column: int) -> str:
        return self.spec.columns[column] if self.spec.columns else f"column {column}"


def _taken(samples: Any, places: Sequence[int]) -> npt.NDArray[Any]:
    """Columns by their place; of place -1 there is none, which is NaN."""
    rows = np.asarray(samples)
    chosen = rows[:, places].astype(np.float32, copy=False)
    chosen[:, [place < 0 for place in places]] = np.nan
    return chosen
