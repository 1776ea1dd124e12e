"""Dynamic quantization: int8 layers whose activation range is that of each input, not one from calibration.

Written with the standard's DynamicQuantizeLinear and MatMulInteger, which onnxruntime fuses into one kernel with the
scales and the bias after them. It runs no outliers into saturation, and saves what static Q/DQ nodes cost around
additions and normalizations that stay float.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pocketzoo.zoo.graphs.cost import layer_name
from pocketzoo.zoo.graphs.fresh_names import FreshNames
from pocketzoo.zoo.graphs.index import GraphIndex, is_layer


def suits(index: GraphIndex, weights: Iterable[str]) -> list[str]:
    """Those of ``weights`` that only MatMul nodes read: the linear layers of sequences."""
    return [
        name
        for name in weights
        if len(index.constants[name].dims) == 2
        and name not in index.outputs
        and all(node.op_type == "MatMul" and node.input[1] == name for node in index.readers[name])
    ]


def quantize(model: ModelProto, layers: Iterable[str], tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """Put the MatMul nodes of ``layers`` in integers, in place; ``tensors`` are those of ``Int8Plan``.

    y = x W becomes s_x s_w (x_q - z) W_q: x_q (uint8), s_x and z follow from the least and largest x.
    """
    wanted = set(layers)
    constants = {t.name: t for t in model.graph.initializer}
    fresh = FreshNames.of(model)
    nodes: list[NodeProto] = []
    ready: dict[str, list[str]] = {}  # tensors that are quantized already: layers that read the same fraction it
    stored: dict[str, list[str]] = {}  # weight -> its integers, scales and zero points
    for node in model.graph.node:
        if not is_layer(node, constants) or layer_name(node.input[1]) not in wanted:
            nodes.append(node)
            continue
        x, name, out = node.input[0], node.input[1], node.output[0]
        if x not in ready:
            ready[x] = [fresh(f"{x}_{part}") for part in ("dynamic", "dynamic_scale", "dynamic_zero")]
            nodes.append(helper.make_node("DynamicQuantizeLinear", [x], ready[x]))
        if name not in stored:
            levels, scale = tensors[f"{name}.levels"], tensors[f"{name}.scale"]
            stored[name] = [fresh(f"{name}_{part}") for part in ("quantized", "scale", "zero")]
            constants[name].CopyFrom(numpy_helper.from_array(levels, stored[name][0]))
            model.graph.initializer.append(numpy_helper.from_array(scale, stored[name][1]))
            model.graph.initializer.append(numpy_helper.from_array(np.zeros(scale.shape, np.int8), stored[name][2]))
        sums, floats, step = (fresh(f"{out}_{part}") for part in ("sums", "floats", "step"))
        nodes += [
            helper.make_node("MatMulInteger", [ready[x][0], stored[name][0], ready[x][2], stored[name][2]], [sums]),
            helper.make_node("Cast", [sums], [floats], to=TensorProto.FLOAT),
            helper.make_node("Mul", [ready[x][1], stored[name][1]], [step]),
            helper.make_node("Mul", [floats, step], [out]),
        ]
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
