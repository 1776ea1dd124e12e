"""What the constants of a graph tell of the values that its inputs take: ranges of pixels, how many codes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, numpy_helper

from pocketzoo.zoo.graphs.index import GraphIndex

Values = npt.NDArray[np.float64]

PIXELS = ((0.0, 1.0), (0.0, 255.0), (-1.0, 1.0))  # what pixels usually go to and from
SPAN = (1.5, 8.0)  # of what a network reads: normalized pixels reach over 2 (-1 to 1) to 5
USUAL = (-2.0, 2.0)  # of pixels that were normalized before
MOVED = ("Identity", "Cast", "Transpose")  # pixels by which the order of axes does not matter
ARRANGED = (*MOVED, "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand")  # the same numbers in another shape


def pixel_range(model: ModelProto, name: str) -> tuple[float, float]:
    """From which to which value an input of images goes.

    Where the graph normalizes it first, the usual range that this makes what networks read; else one of normalized
    images.
    """
    index = GraphIndex(model)
    scale, shifted = 1.0, False
    for node, constant in _first_arithmetic(index, name):
        if node.op_type == "Mul":
            scale *= float(np.abs(constant).mean())
        elif node.op_type == "Div":
            scale /= max(float(np.abs(constant).mean()), 1e-12)
        elif node.op_type == "BatchNormalization":
            scale *= float(np.abs(constant).mean())
        shifted = True
    if shifted:
        for low, high in PIXELS:
            if SPAN[0] <= (high - low) * scale <= SPAN[1]:
                return low, high
    return USUAL


def code_count(model: ModelProto, name: str) -> int | None:
    """How many values an input of whole numbers takes, from 0 on; None where nothing in the graph tells.

    As many as the table has rows that it picks from, or as its one-hot code has places: a ``OneHot``, or a comparison
    with 0, 1, 2 and so on.
    """
    index = GraphIndex(model)
    return min((count for read in _same(index, name) for count in _counts(index, read)), default=None)


def _counts(index: GraphIndex, read: str) -> Iterator[int]:
    for node in index.consumers.get(read, ()):
        if node.op_type == "Gather" and node.input[1] == read:
            table = index.constants.get(node.input[0])
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            if table is not None and table.dims:
                yield int(table.dims[axis])
        elif node.op_type == "OneHot" and node.input[0] == read:
            depth = _constant(index, node.input[1])
            if depth is not None and depth.size == 1:
                yield int(depth.flat[0])
        elif node.op_type == "Equal":
            places = _constant(index, node.input[1] if node.input[0] == read else node.input[0])
            if places is not None and places.size > 1 and np.array_equal(places.ravel(), np.arange(places.size)):
                yield places.size


def _same(index: GraphIndex, name: str) -> Iterator[str]:
    """The tensor, and those that have its values in another type or shape."""
    yield name
    for node in index.consumers.get(name, ()):
        if node.op_type in ARRANGED and node.input[0] == name:
            yield from _same(index, node.output[0])


def _first_arithmetic(index: GraphIndex, name: str) -> Iterator[tuple[NodeProto, Values]]:
    """What is done to an input with constants before anything else reads it, and the constants."""
    while len(readers := index.consumers.get(name, [])) == 1:
        node = readers[0]
        if node.op_type == "BatchNormalization" and node.input[0] == name:
            scale, variance = (_constant(index, node.input[i]) for i in (1, 4))
            if scale is None or variance is None:
                return
            epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
            yield node, scale / np.sqrt(variance + epsilon)
        elif node.op_type in ("Add", "Sub", "Mul", "Div"):
            constant = _constant(index, node.input[1] if node.input[0] == name else node.input[0])
            if constant is None or not constant.size or (node.op_type == "Div" and node.input[0] != name):
                return
            yield node, constant
        elif node.op_type not in MOVED:
            return
        name = node.output[0]


def _constant(index: GraphIndex, name: str) -> Values | None:
    if name in index.constants:
        return np.asarray(numpy_helper.to_array(index.constants[name]), np.float64)
    node = index.producers.get(name)
    if node is None or node.op_type != "Constant":
        return None
    value: Any = next((a.t for a in node.attribute if a.name == "value"), None)
    return None if value is None else np.asarray(numpy_helper.to_array(value), np.float64)
