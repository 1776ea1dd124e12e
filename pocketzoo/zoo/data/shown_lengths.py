"""What arrays by name show of a foreign graph before it is opened: how long its free axes usually are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import PocketzooError
from pocketzoo.zoo.catalog.signature import BATCH, ModelSignature, TensorSpec
from pocketzoo.zoo.data.npz_files import NOT_INPUTS, SUFFIXES, array_files, read_arrays_of


def shown_lengths(data: Path, signature: ModelSignature) -> dict[str, int]:
    """Free axis of an input by its name -> its length in the first file of ``data``, where all inputs agree on it.

    Empty for data that is no file of arrays by the names of inputs; of one input any name. Nothing is refused here:
    what reads the data says what is wrong with it.
    """
    files = array_files(data) if data.is_dir() else [data] if data.suffix.lower() in SUFFIXES else []
    try:
        arrays = read_arrays_of(files[0]) if files and files[0].is_file() else {}
    except PocketzooError:
        return {}
    return lengths_of(arrays, signature.inputs)


def lengths_of(arrays: Arrays, inputs: Sequence[TensorSpec]) -> dict[str, int]:
    """The same of arrays, rows of which are samples."""
    called: Mapping[str, str] = {}
    if len(inputs) == 1 and inputs[0].name not in arrays:
        others = [name for name in arrays if name not in NOT_INPUTS]
        called = {inputs[0].name: others[0]} if len(others) == 1 else {}
    seen: dict[str, set[int]] = {}
    for tensor in inputs:
        array = arrays.get(called.get(tensor.name, tensor.name))
        for name, length in _matched(tensor, () if array is None else array.shape).items():
            seen.setdefault(name, set()).add(length)
    return {name: lengths.pop() for name, lengths in seen.items() if len(lengths) == 1}


def _matched(tensor: TensorSpec, shape: tuple[int, ...]) -> dict[str, int]:
    """Name -> length, of the axes of a sample: an array has one for rows before them, in place of that of the batch."""
    if len(shape) == len(tensor.shape) + 1:  # a row is all that a run reads
        return _lengths(tensor.shape, shape[1:])
    if len(shape) != len(tensor.shape):
        return {}
    free = sorted(tensor.free, key=lambda axis: (tensor.free[axis].lower() != BATCH, axis))
    for axis in dict.fromkeys([*free, 0]):
        rest = tensor.shape[:axis] + tensor.shape[axis + 1 :]
        if _fits(rest, shape[1:]):
            return _lengths(rest, shape[1:])
    return {}


def _fits(dims: Sequence[int | str], shape: Sequence[int]) -> bool:
    return all(isinstance(dim, str) or dim == length for dim, length in zip(dims, shape, strict=True))


def _lengths(dims: Sequence[int | str], shape: Sequence[int]) -> dict[str, int]:
    if not _fits(dims, shape):
        return {}
    return {dim: length for dim, length in zip(dims, shape, strict=True) if isinstance(dim, str) and length > 0}
