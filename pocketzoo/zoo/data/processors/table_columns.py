"""What is learned of a table's training rows: names, means and deviations of its columns, and what fills their gaps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.processor import TrainingSamples
from pocketzoo.zoo.catalog.processor_configs import TableSpec
from pocketzoo.zoo.data.processors.table_processor import TableProcessor


def fitted(spec: TableSpec, training: TrainingSamples) -> TableSpec:
    """The spec with the names of the columns, ``missing``, ``mean`` and ``std``, where it does not state them.

    A column that has one value is not scaled. Of a pretrained backbone only names and ``missing`` are learned: it has
    seen numbers as they are.

    Raises:
        DataError: the samples are not rows of such a table; or a column that is to be filled has no value at all.
    """
    if not spec.columns and len(training.columns) == spec.width:
        spec = replace(spec, columns=training.columns)
    if not len(training.samples):
        return spec
    rows = TableProcessor(spec).raw(training.samples).astype(np.float64)
    if training.missing and not spec.missing:
        if (empty := np.isnan(rows).all(0)).any():
            column = int(np.flatnonzero(empty)[0])
            name = repr(spec.columns[column]) if spec.columns else str(column)
            raise DataError(f"column {name} has no value in any training row", "remove the column")
        middle = np.nanmean(rows, 0) if training.missing == "mean" else np.nanmedian(rows, 0)
        spec = replace(spec, missing=tuple(map(float, middle)))
    if spec.mean or spec.std or training.pretrained:
        return spec
    if spec.missing:
        rows = np.where(np.isnan(rows), spec.missing, rows)
    mean, std = moments(rows)
    return replace(spec, mean=tuple(map(float, mean)), std=tuple(map(float, std)))


def moments(rows: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation of each column of rows (N, columns), in float64; 1 for one that does not vary."""
    rows = rows.astype(np.float64, copy=False)
    # Of equal numbers the computed deviation may be a little above 0, and dividing by it would blow up their rounding.
    std = np.where(np.ptp(rows, 0) > 0, rows.std(0), 1.0)
    return rows.mean(0), np.where(std >= np.finfo(np.float32).tiny, std, 1.0)
