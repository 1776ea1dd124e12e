"""What arrays by name show of a foreign graph before it is opened: how long its free axes are, and what a sample is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import PocketzooError
from pocketzoo.zoo.catalog.signature import BATCH, TensorSpec
from pocketzoo.zoo.data.npz_files import NOT_INPUTS, SUFFIXES, array_files, read_arrays_of
from pocketzoo.zoo.graphs.foreign.one_sample import sample_axis


def shown_arrays(data: Path) -> Arrays:
    """The arrays of the first file of ``data``; none of what is no file of arrays.

    Nothing is refused here: what reads the data says what is wrong with it.
    """
    files = array_files(data) if data.is_dir() else [data] if data.suffix.lower() in SUFFIXES else []
    try:
        return read_arrays_of(files[0]) if files and files[0].is_file() else {}
    except PocketzooError:
        return {}


def lengths_of(arrays: Arrays, inputs: Sequence[TensorSpec]) -> dict[str, int]:
    """Free axis of an input by its name -> its length in arrays, rows of which are samples, where all inputs agree."""
    seen: dict[str, set[int]] = {}
    for tensor, shape in _shapes(arrays, inputs):
        for name, length in _matched(tensor, shape).items():
            seen.setdefault(name, set()).add(length)
    return {name: lengths.pop() for name, lengths in seen.items() if len(lengths) == 1}


def are_whole(arrays: Arrays, inputs: Sequence[TensorSpec]) -> bool:
    """Whether a row of each array is all that a run reads, of inputs whose first axis has a length that is no sample's.

    Of three rows of eight numbers nobody knows whether they are three samples of a batch, or one: data does.
    """
    return bool(inputs) and all(
        sample_axis(tensor) is None
        and len(shape) == len(tensor.shape) + 1
        and len(tensor.shape) > 0
        and _fits(tensor.shape, shape[1:])
        for tensor, shape in _shapes(arrays, inputs)
    )


def _shapes(arrays: Arrays, inputs: Sequence[TensorSpec]) -> Iterator[tuple[TensorSpec, tuple[int, ...]]]:
    """Each input with the shape of its array, of one input that of any name; () where there is none."""
    called: Mapping[str, str] = {}
    if len(inputs) == 1 and inputs[0].name not in arrays:
        others = [name for name in arrays if name not in NOT_INPUTS]
        called = {inputs[0].name: others[0]} if len(others) == 1 else {}
    for tensor in inputs:
        array = arrays.get(called.get(tensor.name, tensor.name))
        yield tensor, () if array is None else array.shape


def _matched(tensor: TensorSpec, shape: tuple[int, ...]) -> dict[str, int]:
    """Name -> length, of the axes of a sample: an array has one for rows before them, in place of that of the batch."""
    if len(shape) == len(tensor.shape) + 1:  # a row is all that a run reads
        return _lengths(tensor.shape, shape[1:])
    if len(shape) != len(tensor.shape):
        return {}
    # Which axis counts samples is not found yet. That one has no use for a length, so the others of each may be said.
    called = [axis for axis, name in tensor.free.items() if name.lower() == BATCH]
    lengths: dict[str, int] = {}
    for axis in called or dict.fromkeys([*tensor.free, 0]):
        rest = tensor.shape[:axis] + tensor.shape[axis + 1 :]
        lengths = _lengths(rest, shape[1:]) | lengths
    return lengths


def _fits(dims: Sequence[int | str], shape: Sequence[int]) -> bool:
    return all(isinstance(dim, str) or dim == length for dim, length in zip(dims, shape, strict=True))


def _lengths(dims: Sequence[int | str], shape: Sequence[int]) -> dict[str, int]:
    if not _fits(dims, shape):
        return {}
    return {dim: length for dim, length in zip(dims, shape, strict=True) if isinstance(dim, str) and length > 0}
