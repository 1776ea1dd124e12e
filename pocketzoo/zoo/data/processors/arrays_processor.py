"""The processor of arrays that are ready: the inputs of a foreign graph, or a state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import DataError, nearest
from pocketzoo.zoo.catalog.processor_configs import ArraysSpec
from pocketzoo.zoo.catalog.signature import TensorSpec
from pocketzoo.zoo.data.processors.base import ProcessorBase, by, called, fits


class ArraysProcessor(ProcessorBase):
    """Arrays by the names of the inputs; one of another type is converted where every value stays what it is."""

    def __init__(self, spec: ArraysSpec) -> None:
        self.spec, self.inputs, self.taken = spec, spec.inputs, spec.lengths
        said = ", ".join(f"{t.name}: {t.dtype} of {by(t.shape)}" for t in spec.inputs)
        self.wants = f"give {'arrays by name, ' if len(spec.inputs) > 1 else ''}{said}"

    def row(self, sample: Any) -> Arrays:
        if not isinstance(sample, Mapping):
            if len(self.inputs) > 1 or isinstance(sample, str | bytes) or np.asarray(sample).dtype.kind not in "biuf":
                raise DataError(f"a sample cannot be {called(sample)}", self.wants)
            sample = {self.inputs[0].name: sample}
        names = [tensor.name for tensor in self.inputs]
        if unknown := [name for name in sample if name not in names]:
            raise DataError(f"the model has no input {unknown[0]!r}", nearest(str(unknown[0]), names))
        if missing := [name for name in names if name not in sample]:
            raise DataError(f"a sample lacks its {missing[0]!r}", self.wants)
        return {tensor.name: self._array(tensor, np.asarray(sample[tensor.name])) for tensor in self.inputs}

    def is_ready(self, sample: Any) -> bool:
        """See ``ProcessorBase``: ``row`` reads those too."""
        return False

    def _array(self, tensor: TensorSpec, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if not fits(x.shape, tensor.sample_shape) and fits(x.shape, _one(tensor)):
            x = x.squeeze(tensor.batch)
        if not fits(x.shape, tensor.sample_shape):
            raise DataError(
                f"a sample of {tensor.name!r} has shape {by(x.shape)}, the model reads {by(tensor.sample_shape)}",
                self.wants,
            )
        if x.dtype == tensor.dtype:
            return x
        with np.errstate(all="ignore"):
            converted = x.astype(tensor.dtype)
            floats = x.dtype.kind == "f" and converted.dtype.kind == "f"  # which are rounded, as everywhere
            same = floats or np.array_equal(converted.astype(x.dtype), x)
        if not same:
            raise DataError(
                f"a sample of {tensor.name!r} is {x.dtype}, and not every value is one of {tensor.dtype}", self.wants
            )
        return converted


def _one(tensor: TensorSpec) -> tuple[int | str, ...]:
    """The axes of a batch of one sample."""
    return tuple(1 if axis == tensor.batch else dim for axis, dim in enumerate(tensor.shape))
