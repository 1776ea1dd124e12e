"""What the constants of a graph tell of the values that its inputs take: ranges of pixels, rows of embedding tables."""

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
SAME = ("Identity", "Cast")


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


def table_rows(model: ModelProto, name: str) -> int | None:
    """How many rows the table has that an input of whole numbers picks from; None where it picks from none."""
    index = GraphIndex(model)
    rows = [
        int(table.dims[axis])
        for read in _same(index, name)
        for node in index.consumers.get(read, ())
        if node.op_type == "Gather" and node.input[1] == read
        if (table := index.constants.get(node.input[0])) is not None
        for axis in [next((a.i for a in node.attribute if a.name == "axis"), 0)]
        if table.dims
    ]
    return min(rows, default=None)


def _same(index: GraphIndex, name: str) -> Iterator[str]:
    """The tensor, and those that are the same in another type."""
    yield name
    for node in index.consumers.get(name, ()):
        if node.op_type in SAME:
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
        elif node.op_type not in SAME:
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
