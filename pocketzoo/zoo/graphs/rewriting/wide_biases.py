"""Biases in float16 of layers with 8-bit weights, where onnxruntime's rewriting of them would leave float16's range."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pocketzoo.zoo.graphs.contents import drop_unread, replace_nodes
from pocketzoo.zoo.graphs.fresh_names import STANDARD, FreshNames
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.node import attribute

# Of a bias in steps of its layer, which onnxruntime counts in float16 before it rounds them to int32: half its range.
MOST_STEPS = 2.0**15


def add_wide_biases_apart(model: ModelProto) -> None:
    """Add a bias behind its layer where it has too many steps, in place.

    onnxruntime makes int32 of the bias of a layer whose input and weight are dequantized, and divides it by their
    scales in float16: what is beyond 65504 becomes infinite, and of the sum nothing is left.
    """
    index, fresh = GraphIndex(model), FreshNames.of(model)
    nodes: list[NodeProto] = []
    changed = False
    for node in model.graph.node:
        nodes.append(node)
        if not _is_wide(node, index):
            continue
        changed = True
        bias, out = numpy_helper.to_array(index.constants[node.input[2]]), node.output[0]
        if node.op_type != "Gemm":
            bias = bias.reshape(-1, *[1] * (len(index.shapes[node.input[1]]) - 2))
        name = fresh(f"{node.input[2]}_apart")
        model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(bias), name))
        node.output[0] = fresh(f"{out}_unbiased")
        nodes.append(helper.make_node("Add", [node.output[0], name], [out], name=fresh(f"{node.name or out}_bias")))
        del node.input[2:]
    if changed:
        replace_nodes(model.graph, nodes)
        drop_unread(model.graph)


def _is_wide(node: NodeProto, index: GraphIndex) -> bool:
    """Whether a layer has a bias of too many steps."""
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm") or node.domain not in STANDARD or len(node.input) < 3:
        return False
    bias = index.constants.get(node.input[2])
    if bias is None or bias.data_type != TensorProto.FLOAT16:
        return False
    if node.op_type == "Gemm" and attribute(node, "beta", 1.0) != 1:
        return False
    steps = np.ones(1)
    for name in node.input[:2]:
        dequantized = index.producers.get(name)
        if dequantized is None or dequantized.op_type != "DequantizeLinear":
            return False
        scale = index.constants.get(dequantized.input[1])
        if scale is None:
            return False
        steps = steps * numpy_helper.to_array(scale).astype(np.float64).reshape(-1)
    values = np.abs(numpy_helper.to_array(bias).astype(np.float64)).reshape(-1)
    return len(steps) in (1, len(values)) and bool((values > MOST_STEPS * steps).any())
