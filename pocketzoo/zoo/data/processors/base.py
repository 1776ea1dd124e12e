"""What processors have in common: rows put together to batches, arrays that are ready, random samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import DataError, nearest
from pocketzoo.zoo.catalog.dataset import Dataset
from pocketzoo.zoo.catalog.processor_configs import TableSpec
from pocketzoo.zoo.catalog.signature import TensorSpec
from pocketzoo.zoo.catalog.specs import InputSpec, TextSpec

USUAL = 16  # of a free axis, where nobody says how long it is


class ProcessorBase:
    """A ``Processor`` that reads its samples one by one: a subclass sets ``inputs`` and ``wants``, and has ``row``."""

    inputs: tuple[TensorSpec, ...]
    wants: str  # what to give, as a hint of errors: "give .wav files, ..."
    lengths: tuple[int, int] | None = None
    image: InputSpec | None = None
    text: TextSpec | None = None
    table: TableSpec | None = None
    taken: Mapping[str, int] = MappingProxyType({})  # of free axes: a length that the model is known to take

    def row(self, sample: Any) -> Arrays:
        """One sample as the inputs of the model, without the batch axis.

        Raises:
            DataError: it cannot be read, or does not fit.
        """
        raise NotImplementedError

    def __call__(self, samples: Sequence[Any]) -> Arrays:
        ready = [self.is_ready(sample) for sample in samples]
        rows = [
            self._ready_row(sample) if is_ready else self.row(sample)
            for sample, is_ready in zip(samples, ready, strict=True)
        ]
        arrays = {tensor.name: self._joined(tensor, [row[tensor.name] for row in rows]) for tensor in self.inputs}
        if any(ready):  # the same as of a batch that is ready: what predict refuses, nothing is fitted to
            self.check_values(arrays)
        return arrays

    def batch(self, given: Any) -> Arrays:
        """See ``Processor``."""
        arrays = self.arrays(given)
        if arrays is None:
            return self(self.samples(given))
        for name in arrays:
            if name not in (names := [tensor.name for tensor in self.inputs]):
                raise DataError(f"the model has no input {name!r}", nearest(name, names))
        ready = {}
        for tensor in self.inputs:
            if tensor.name not in arrays:
                raise DataError(f"input {tensor.name!r} is missing", self.wants)
            self._check(tensor, arrays[tensor.name])
            ready[tensor.name] = arrays[tensor.name]
        counts = {t.name: ready[t.name].shape[t.batch] for t in self.inputs if t.batch is not None}
        if len(set(counts.values())) > 1:
            said = ", ".join(f"{count} of {name!r}" for name, count in counts.items())
            raise DataError(f"the inputs have different numbers of samples: {said}", self.wants)
        self.check_values(ready)
        return ready

    def arrays(self, given: Any) -> Arrays | None:
        """What is given, if it is a batch of arrays that are meant to be ready; None if it is samples."""
        if isinstance(given, Mapping) and all(isinstance(value, np.ndarray) for value in given.values()):
            by_name = {tensor.name: tensor for tensor in self.inputs}
            batched = [value.ndim == len(by_name[name].shape) for name, value in given.items() if name in by_name]
            return given if batched and all(batched) else None
        (tensor, *others) = self.inputs
        if isinstance(given, np.ndarray) and not others and given.ndim == len(tensor.shape):
            return {tensor.name: given}
        return None

    def samples(self, given: Any) -> Sequence[Any]:
        """What is given as samples: one alone, or several."""
        if isinstance(given, str | bytes | Path | Mapping):
            return [given]
        if (
            isinstance(given, np.ndarray) or not hasattr(given, "__iter__") or hasattr(given, "read")
        ):  # of a file: lines
            raise DataError(f"a batch cannot be {called(given)}", self.wants)
        if not (samples := list(given)):
            raise DataError("the batch is empty", self.wants)
        return samples

    def sample(self, argument: str | Path) -> Any:
        """See ``Processor``."""
        return Path(argument)

    def reads(self, dataset: Dataset) -> Dataset:
        """See ``Processor``."""
        return dataset

    def random(self, count: int, length: int = 0) -> Arrays:
        """See ``Processor``: normal numbers, and zeros and ones of what are whole."""
        generator = np.random.default_rng(0)
        arrays = {}
        for tensor in self.inputs:
            free = {axis for axis in tensor.free if axis != tensor.batch}
            shape = [count if axis == tensor.batch
                     else length or self.taken.get(str(size), USUAL) if axis in free else int(size)
                     for axis, size in enumerate(tensor.shape)]  # fmt: skip
            floats = np.dtype(tensor.dtype).kind == "f"
            values = generator.normal(size=shape) if floats else generator.integers(0, 2, shape)
            arrays[tensor.name] = values.astype(tensor.dtype)
        return arrays

    def truncated(self, samples: Sequence[Any]) -> int:
        """See ``Processor``."""
        return 0

    def check_values(self, arrays: Arrays) -> None:
        """Refuse arrays of the right shape and type whose values are not what the model reads.

        Raises:
            DataError: they are not.
        """
        for tensor in self.inputs:
            check_finite(tensor.name, arrays[tensor.name])

    def is_ready(self, sample: Any) -> bool:
        """Whether a sample is arrays that are ready: a mapping of them, or the one of the only input."""
        names = {tensor.name for tensor in self.inputs}
        if isinstance(sample, Mapping):
            return sample.keys() == names and all(isinstance(value, np.ndarray) for value in sample.values())
        (tensor, *others) = self.inputs
        return (
            isinstance(sample, np.ndarray)
            and not others
            and (sample.ndim, sample.dtype) == (len(tensor.sample_shape), np.dtype(tensor.dtype))
        )

    def _ready_row(self, sample: Any) -> Arrays:
        row = sample if isinstance(sample, Mapping) else {self.inputs[0].name: sample}
        for tensor in self.inputs:
            x = row[tensor.name]
            if x.dtype != tensor.dtype or not fits(x.shape, tensor.sample_shape):
                what = f"shape {by(x.shape)}" if x.dtype == tensor.dtype else f"type {x.dtype}"
                reads = by(tensor.sample_shape) if x.dtype == tensor.dtype else tensor.dtype
                raise DataError(f"a sample has {what}, the model reads {reads}", self.wants)
        return row

    def _joined(self, tensor: TensorSpec, rows: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        if not rows:
            return np.empty(0, tensor.dtype)
        shapes = {row.shape for row in rows}
        if len(shapes) > 1:
            raise DataError(
                f"samples of one batch have different shapes: {' and '.join(sorted(map(by, shapes)))}", self.wants
            )
        if tensor.batch is None:
            if not all(np.array_equal(rows[0], row) for row in rows[1:]):
                raise DataError(
                    f"input {tensor.name!r} has no axis for samples, and they differ in it", "give them one at a time"
                )
            return rows[0]
        return np.stack(rows, axis=tensor.batch)

    def _check(self, tensor: TensorSpec, x: npt.NDArray[Any]) -> None:
        """Refuse an array of another shape or type than the input's."""
        if not fits(x.shape, tensor.shape):
            alone = fits(x.shape, tensor.sample_shape) and tensor.batch == 0
            hint = " (one sample alone needs a batch axis: x[None])" if alone else ""
            raise DataError(f"input {tensor.name!r} is {x.shape}, the model expects {tensor.shape}{hint}", self.wants)
        if tensor.batch is not None and x.shape[tensor.batch] == 0:
            raise DataError("the batch is empty", self.wants)
        if x.dtype != tensor.dtype:
            raise DataError(f"input {tensor.name!r} is {x.dtype}, the model expects {tensor.dtype}", self.wants)


def fits(shape: Sequence[int], wanted: Sequence[int | str]) -> bool:
    """Whether a shape is as wanted; a string stands for any length."""
    return len(shape) == len(wanted) and all(isinstance(b, str) or a == b for a, b in zip(shape, wanted, strict=True))


def check_finite(name: str, x: npt.NDArray[Any]) -> None:
    """Raises:
    DataError: an input has NaN or infinity.
    """
    # The ends of a range say so at once, and no array as large as it is made for that.
    if x.dtype.kind == "f" and x.size and not (np.isfinite(x.min()) and np.isfinite(x.max())):
        raise DataError(f"input {name!r} has non-finite values", "check the data for NaN and infinity")


def by(shape: Sequence[int | str]) -> str:
    """A shape in words."""
    return " x ".join(map(str, shape)) or "()"


def called(thing: object) -> str:
    """What was given, in an error."""
    if isinstance(thing, np.ndarray):
        return f"an array of {thing.dtype}, {thing.shape}"
    return f"the file {thing.name}" if isinstance(thing, Path) else type(thing).__name__
