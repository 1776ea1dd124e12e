"""int8 layers whose activations are quantised as they come, by the range of each input and not one from calibration.

Written with the standard's DynamicQuantizeLinear and MatMulInteger, which onnxruntime fuses into one kernel with the
scales and the bias behind them. It runs no outliers into saturation, and saves what static pairs cost around additions
and normalisations that stay float.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pocketzoo.compress.graph_index import GraphIndex
from pocketzoo.zoo.cost import layer_name


def suits(index: GraphIndex, weights: Iterable[str]) -> list[str]:
    """Those of ``weights`` that only MatMul nodes read: the linear layers of sequences."""
    return [
        name
        for name in weights
        if len(index.constants[name].dims) == 2
        and all(node.op_type == "MatMul" and node.input[1] == name for node in index.readers[name])
    ]


def quantise(model: ModelProto, layers: Iterable[str], tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """Put the MatMul nodes of ``layers`` in integers, in place; ``tensors`` are those of ``Int8Plan``.

    y = x W becomes s_x s_w (x_q - z) W_q: x_q (uint8), s_x and z follow from the least and largest x.
    """
    wanted = set(layers)
    constants = {t.name: t for t in model.graph.initializer}
    nodes: list[NodeProto] = []
    ready: set[str] = set()  # tensors that are quantised already: layers that read the same share it
    stored: set[str] = set()
    for node in model.graph.node:
        if node.op_type != "MatMul" or layer_name(node.input[1]) not in wanted:
            nodes.append(node)
            continue
        x, name, out = node.input[0], node.input[1], node.output[0]
        parts = [f"{x}_dynamic", f"{x}_dynamic_scale", f"{x}_dynamic_zero"]  # x may have a static pair as well
        if x not in ready:
            ready.add(x)
            nodes.append(helper.make_node("DynamicQuantizeLinear", [x], parts))
        if name not in stored:
            stored.add(name)
            levels, scale = tensors[f"{name}.levels"], tensors[f"{name}.scale"]
            constants[name].CopyFrom(numpy_helper.from_array(levels, f"{name}_quantized"))
            model.graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
            model.graph.initializer.append(numpy_helper.from_array(np.zeros(scale.shape, np.int8), f"{name}_zero"))
        sums, floats, step = f"{out}_sums", f"{out}_floats", f"{out}_step"
        nodes += [
            helper.make_node("MatMulInteger", [parts[0], f"{name}_quantized", parts[2], f"{name}_zero"], [sums]),
            helper.make_node("Cast", [sums], [floats], to=TensorProto.FLOAT),
            helper.make_node("Mul", [parts[1], f"{name}_scale"], [step]),
            helper.make_node("Mul", [floats, step], [out]),
        ]
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
