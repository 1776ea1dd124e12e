"""Files of numpy arrays (.npz) as data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import Dataset
from pocketzoo.zoo.catalog.task import TargetKind
from pocketzoo.zoo.data.batches import from_arrays
from pocketzoo.zoo.data.target_kinds import read_targets


def read_npz(path: Path, seed: int, targets: TargetKind = "classes") -> Dataset:
    """An ``.npz`` with ``x`` and perhaps ``y``, targets of a kind; ``labels`` may name the columns of flags.

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
    names = arrays.get("labels", np.empty(0, "U1"))
    labels, known = read_targets(targets, path.name if targets == "numbers" else str(path), y, len(x), names.tolist())
    return from_arrays(path.stem, labels, x, known, seed)
