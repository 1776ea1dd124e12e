"""Inputs that are given once: they become constants of the graph, so that what hangs on them alone can be folded."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, numpy_helper

from pocketzoo.core.errors import DataError, UnknownNameError, nearest
from pocketzoo.zoo.graphs.foreign.metadata import Number
from pocketzoo.zoo.graphs.index import graph_inputs
from pocketzoo.zoo.graphs.signature import numpy_type


def fix_inputs(model: ModelProto, values: Mapping[str, Number | tuple[Number, ...]], source: str) -> None:
    """Make each input that has a value a constant, in place. One number fills an input of any shape that is stated.

    Raises:
        UnknownNameError: the graph has no such input; the hint is the nearest.
        DataError: the values are not of the input's type, or of another number than it holds.
    """
    inputs = {value.name: value for value in graph_inputs(model)}
    for name, given in values.items():
        if name not in inputs:
            raise UnknownNameError(f"{source} has no input {name!r}", nearest(name, inputs))
        tensor = inputs[name].type.tensor_type
        numbers = given if isinstance(given, tuple) else (given,)
        dims = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in tensor.shape.dim]
        if 0 in dims and len(dims) == 1:
            dims = [len(numbers)]
        count = math.prod(dims)
        if len(numbers) != count and (len(numbers) > 1 or count < 1):
            shape = " x ".join(str(dim or "?") for dim in dims)
            raise DataError(
                f"the input {name!r} of {source} is {shape or 'one number'}, and {len(numbers)} are given",
                f"give {count} numbers, or one for all" if count else "give it with the data",
            )
        dtype = numpy_type(inputs[name])
        with np.errstate(all="ignore"):
            array = np.array(numbers).astype(dtype)
            same = dtype.kind == "f" or np.array_equal(array.astype(np.float64), np.array(numbers, np.float64))
        if not same:
            raise DataError(f"{given} is not what the input {name!r} of {source} holds: {dtype}", "give another value")
        constant = np.full(dims, array[0]) if len(numbers) < count else array.reshape(dims)
        former = [value for value in model.graph.input if value.name != name]
        del model.graph.input[:]
        model.graph.input.extend(former)
        model.graph.initializer.append(numpy_helper.from_array(constant, name))
