"""Find the outputs and inputs that a decoder reads, and check their shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import DataError, nearest
from pocketzoo.zoo.tasks.decoders.configs import TokenConfig


def output_named(outputs: Arrays, name: str) -> npt.NDArray[Any]:
    """The output of that name; the first for "".

    Raises:
        DataError: there is none.
    """
    if not outputs:
        raise DataError("the model has no outputs", "decode the outputs of a model")
    if not name:
        return next(iter(outputs.values()))
    if name not in outputs:
        raise DataError(f"the model has no output {name!r}, which its decoder reads", nearest(name, outputs))
    return outputs[name]


def table(outputs: Arrays, name: str, what: str) -> npt.NDArray[np.floating[Any]]:
    """An output (B, columns) of floating point numbers.

    Raises:
        DataError: it is of another shape or type.
    """
    out = output_named(outputs, name)
    if out.ndim != 2 or not is_float(out):
        raise DataError(f"the output is {out.dtype} of shape {out.shape}, not {what}", "name another decoder")
    return out


def per_token(outputs: Arrays, name: str, what: str) -> npt.NDArray[np.floating[Any]]:
    """An output (B, T, columns) of floating point numbers.

    Raises:
        DataError: it is of another shape or type.
    """
    out = output_named(outputs, name)
    if out.ndim != 3 or not is_float(out):
        raise DataError(f"the output is {out.dtype} of shape {out.shape}, not {what}", "name another decoder")
    return out


def tokens(inputs: Arrays, config: TokenConfig, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Where a batch of ``shape`` (B, T) has tokens: everywhere, where nothing says otherwise."""
    if config.mask in inputs and inputs[config.mask].shape == shape:
        return np.asarray(inputs[config.mask] != 0)
    ids = inputs.get(config.ids) if config.ids else next(iter(inputs.values()), None)
    if config.pad is None or ids is None or ids.shape != shape:
        return np.ones(shape, np.bool_)
    return np.asarray(ids != config.pad)


def is_float(array: npt.NDArray[Any]) -> bool:
    """Whether an array has floating point numbers, in any precision."""
    return bool(np.issubdtype(array.dtype, np.floating))
