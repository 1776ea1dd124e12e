"""Dynamic quantization: int8 layers whose activation range is that of each input, not one from calibration.

Written with the standard's DynamicQuantizeLinear and MatMulInteger, which onnxruntime fuses into one kernel with the
scales and the bias after them. It runs no outliers into saturation, and saves what static Q/DQ nodes cost around
additions and normalizations that stay float.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pocketzoo.zoo.graphs.contents import replace_nodes
from pocketzoo.zoo.graphs.fresh_names import FreshNames
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.node import layer_name
from pocketzoo.zoo.graphs.operators import OPERATORS, operator_of


def suits(index: GraphIndex, weights: Sequence[str]) -> list[str]:
    """Those of ``weights`` that only nodes with a dynamic form read, MatMul: the linear layers of sequences.

    Weights of one layer's name, such as ``a`` and ``a.weight``, go together.
    """
    others = {
        layer_name(node.input[1]) for node in index.nodes if index.is_layer(node) and not _has_dynamic_form(node, index)
    }
    others |= {
        layer_name(name)
        for name in weights
        if name in index.outputs
        or not all(_has_dynamic_form(node, index) and node.input[1] == name for node in index.consumers[name])
    }
    return [name for name in weights if layer_name(name) not in others]


def _has_dynamic_form(node: NodeProto, index: GraphIndex) -> bool:
    operator = operator_of(node)
    return operator is not None and bool(operator.dynamic) and len(index.constants[node.input[1]].dims) == 2


def quantize(model: ModelProto, layers: Iterable[str], tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """Put the MatMul nodes of ``layers`` in integers, in place; ``tensors`` are those of ``Int8Plan``.

    y = x W becomes s_x s_w (x_q - z) W_q: x_q (uint8), s_x and z follow from the least and largest x.
    """
    layer_names, index = set(layers), GraphIndex(model)
    fresh = FreshNames.of(model)
    nodes: list[NodeProto] = []
    ready: dict[str, list[str]] = {}  # tensors that are quantized already, for all layers that read them
    stored: dict[str, list[str]] = {}  # weight -> its integers, scales and zero points
    for node in model.graph.node:
        if not index.is_layer(node) or layer_name(node.input[1]) not in layer_names:
            nodes.append(node)
            continue
        x, name, out = node.input[0], node.input[1], node.output[0]
        if x not in ready:
            ready[x] = [fresh(f"{x}_{part}") for part in ("dynamic", "dynamic_scale", "dynamic_zero")]
            nodes.append(helper.make_node("DynamicQuantizeLinear", [x], ready[x]))
        if name not in stored:
            quantized, scale = tensors[f"{name}.levels"], tensors[f"{name}.scale"]
            stored[name] = [fresh(f"{name}_{part}") for part in ("quantized", "scale", "zero")]
            index.constants[name].CopyFrom(numpy_helper.from_array(quantized, stored[name][0]))
            model.graph.initializer.append(numpy_helper.from_array(scale, stored[name][1]))
            model.graph.initializer.append(numpy_helper.from_array(np.zeros(scale.shape, np.int8), stored[name][2]))
        sums, floats, step = (fresh(f"{out}_{part}") for part in ("sums", "floats", "step"))
        nodes += [
            helper.make_node(
                OPERATORS[node.op_type].dynamic, [ready[x][0], stored[name][0], ready[x][2], stored[name][2]], [sums]
            ),
            helper.make_node("Cast", [sums], [floats], to=TensorProto.FLOAT),
            helper.make_node("Mul", [ready[x][1], stored[name][1]], [step]),
            helper.make_node("Mul", [floats, step], [out]),
        ]
    replace_nodes(model.graph, nodes)
