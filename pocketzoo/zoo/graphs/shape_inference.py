"""Shape inference that takes no memory without end.

onnx also follows the values of shapes (``data_prop``), and lists every number of a ``Range`` between constants: one of
2^31 takes a hundred gigabytes, before any runtime has the graph. Those that are long are left out there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper, shape_inference

from pocketzoo.zoo.graphs.fresh_names import STANDARD, graphs, nodes

LONG = 2**16  # numbers that are not worth to be listed: no shape has so many
LEFT_OUT = "left.out"  # a domain that nobody knows


def inferred(model: ModelProto) -> list[GraphProto]:
    """The graph with the types and shapes that are known: one, or where a ``Range`` is long, each half of them."""
    long = [node for node in nodes(model.graph.node) if node.op_type == "Range" and node.domain in STANDARD]
    if long:
        constants = {tensor.name: tensor for tensor in _constants(model)}
        long = [node for node in long if _length(node, constants) > LONG]
    if not long:
        return _graphs(model, data_prop=True)
    found = _graphs(model, data_prop=False)
    domains = [node.domain for node in long]
    for node in long:
        node.domain = LEFT_OUT
    try:
        found += _graphs(model, data_prop=True)
    finally:
        for node, domain in zip(long, domains, strict=True):
            node.domain = domain
    return found


def _graphs(model: ModelProto, *, data_prop: bool) -> list[GraphProto]:
    try:
        return [shape_inference.infer_shapes(model, data_prop=data_prop).graph]
    except shape_inference.InferenceError:  # of a graph that is refused for it later
        return [model.graph]


def _constants(model: ModelProto) -> Iterator[TensorProto]:
    """Those that are stored, and those that nodes hold, by the names that nodes read."""
    for graph in graphs(model.graph):
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute if node.op_type == "Constant" else ():
                made = attribute.t if attribute.HasField("t") else TensorProto(data_type=TensorProto.INT64)
                if attribute.name == "value_int":
                    made.int64_data.append(attribute.i)
                named = TensorProto()
                named.CopyFrom(made)
                named.name = node.output[0]
                yield named


def _length(node: NodeProto, constants: dict[str, TensorProto]) -> float:
    """How many numbers a Range has; 0 where that is not known, and nothing is listed."""
    try:
        start, limit, delta = (float(numpy_helper.to_array(constants[name]).reshape(())) for name in node.input)
        return max(0.0, (limit - start) / delta)
    except (KeyError, ValueError, TypeError):
        return 0
    except ZeroDivisionError:
        return math.inf
