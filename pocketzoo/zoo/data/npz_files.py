"""Files of numpy arrays (.npz) as data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import Dataset, Targets
from pocketzoo.zoo.data.batches import from_arrays


def read_npz(path: Path, seed: int, numeric: bool = False) -> Dataset:
    """An ``.npz`` with ``x`` and perhaps ``y``: classes, or with ``numeric`` numbers.

    Raises:
        DataError: it is damaged, or its arrays are not samples with their targets.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:  # numpy leaks a file it opened itself
            arrays = {key: file[key] for key in file.files}
    except Exception as error:  # zipfile, numpy and zlib raise half a dozen types for a damaged file
        raise DataError(f"cannot read {path}: {error}", "write it with numpy.savez(path, x=x, y=y)") from error
    if "x" not in arrays:
        raise DataError(f"{path} has no array 'x'", f"it has: {', '.join(arrays) or 'nothing'}")
    x, y = arrays["x"], arrays.get("y")
    if x.ndim < 2 or len(x) == 0 or x.dtype.kind not in "uifb":
        raise DataError(f"{path}: x is {x.dtype} of shape {x.shape}", "give numbers, one sample per row")
    if x.dtype == np.uint8 and x.ndim == 4 and x.shape[-1] == 1:
        x = x[..., 0]
    if x.dtype != np.uint8:
        x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise DataError(f"{path}: x has non-finite values", "remove samples with NaN or infinity")
    if y is None:
        return from_arrays(path.stem, (), x, None, seed)
    if numeric:
        return from_arrays(path.stem, (), x, as_numbers(path.name, y, len(x)), seed)
    if y.ndim != 1 or (y.dtype.kind == "f" and not np.isfinite(y).all()):
        raise DataError(f"{path}: y is {y.dtype} of shape {y.shape}", "give one label or number per sample")
    if len(y) != len(x):
        raise DataError(f"{path}: x has {len(x)} samples, y has {len(y)}", "give one y per x")
    names, targets = np.unique(y, return_inverse=True)
    return from_arrays(path.stem, tuple(str(n) for n in names), x, targets.astype(np.int64), seed)


def as_numbers(name: str, y: npt.NDArray[Any], count: int) -> Targets:
    """Targets as numbers (N, outputs)."""
    try:
        numbers = y.astype(np.float32)
    except ValueError as error:
        raise DataError(f"the targets of {name} are not numbers: {error}", "fit a classifier: --head linear") from error
    numbers = numbers[:, None] if numbers.ndim == 1 else numbers
    if numbers.ndim != 2 or len(numbers) != count or not np.isfinite(numbers).all():
        raise DataError(
            f"the targets of {name} have shape {y.shape} for {count} samples, or are not finite",
            "give one number, or one row of them, for each sample",
        )
    return numbers
