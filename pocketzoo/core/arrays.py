"""The arrays that modules exchange: their types, and batches of named arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Arrays = Mapping[str, npt.NDArray[Any]]  # the inputs or outputs of a model by their names
ImageLike = Path | npt.NDArray[np.uint8]  # a file, or pixels (H, W) or (H, W, 3)


def named(batch: Arrays | npt.NDArray[Any], name: str = "") -> Arrays:
    """A batch by the names of the inputs. One array alone is what the model's one input reads, here called ``name``."""
    return batch if isinstance(batch, Mapping) else {name: batch}


Axes = Mapping[str, int | None]  # which axis of each array counts samples; None: it is for all of them


def batch_size(batch: Arrays, axes: Axes | None = None) -> int:
    """How many samples a batch has: along the first axis of the first array that has one, or that of ``axes``."""
    places = {name: (axes or {}).get(name, 0) for name in batch}
    return next((x.shape[a] for name, x in batch.items() if (a := places[name]) is not None and x.ndim > a), 0)


def rows(
    batch: Arrays, which: slice | Sequence[int] | npt.NDArray[Any], axes: Axes | None = None
) -> dict[str, npt.NDArray[Any]]:
    """Some samples of a batch, along the first axis of each array, or that of ``axes``; None: it is for all samples."""
    places = {name: (axes or {}).get(name, 0) for name in batch}
    return {name: x if (a := places[name]) is None else x[(*[slice(None)] * a, which)] for name, x in batch.items()}


def joined(batches: Sequence[Arrays], axes: Axes | None = None) -> dict[str, npt.NDArray[Any]]:
    """Batches of the same names one after the other, along the first axis or that of ``axes``."""
    if not batches:
        return {}
    places = {name: (axes or {}).get(name, 0) for name in batches[0]}
    return {
        name: x if (a := places[name]) is None else np.concatenate([batch[name] for batch in batches], a)
        for name, x in batches[0].items()
    }


def own_memory(batch: Arrays) -> Arrays:
    """Rows of a batch with memory of their own, or the whole batch would stay."""
    return {name: x.copy() for name, x in batch.items()}


def row_of(output: npt.NDArray[Any], row: int, axis: int | None) -> npt.NDArray[Any]:
    """One sample of an output that counts them along ``axis``; None: it is for all samples.

    One of another shape for each sample is an array (N,) of these.
    """
    if axis is None:
        return output
    return np.asarray(output[row] if output.dtype == object and output.ndim == 1 else output.take(row, axis))


def first(arrays: Arrays) -> npt.NDArray[Any]:
    """The first of a model's arrays, in its order."""
    return next(iter(arrays.values()))


def is_type(name: str) -> bool:
    """Whether a type of arrays is called so, such as "float32"."""
    if not name.isidentifier():  # numpy reads more than names: "f4,f4", "(2,)f4"
        return False
    try:
        np.dtype(name)
    except TypeError:
        return False
    return True
