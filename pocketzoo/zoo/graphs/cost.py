"""What each layer of an ONNX graph costs: parameters, bytes and multiply-accumulates per sample."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, shape_inference

from pocketzoo.zoo.graphs.fresh_names import STANDARD


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One layer with weights."""

    layer: str  # the weight's name without ".weight"
    op: str  # Conv, Gemm, MatMul or MatMulInteger
    precision: str  # of its weight: "float32" or "int8"
    parameters: int  # weight and bias
    nonzero: int
    bytes: int
    macs: int  # multiply-accumulates for one sample


def layer_costs(path: Path) -> list[LayerCost]:
    """Costs of every Conv, Gemm, MatMul and MatMulInteger with a constant weight, in graph order.

    Biases count as parameters.
    """
    model = shape_inference.infer_shapes(onnx.load(path))
    graph = model.graph
    constants = {t.name: t for t in graph.initializer}
    made = {out: node for node in graph.node for out in node.output}
    shapes = {
        v.name: [d.dim_value or 1 for d in v.type.tensor_type.shape.dim]  # the free batch axis counts as 1
        for v in [*graph.value_info, *graph.output, *graph.input]
    }
    found = []
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul", "MatMulInteger") or node.domain not in STANDARD:
            continue
        weight = _constant(node.input[1], constants, made)
        if weight is None:
            continue
        bias = _constant(node.input[2], constants, made) if len(node.input) > 2 else None
        out = shapes.get(node.output[0], [])  # unknown after control flow: then one row, or one place, counts
        parts = [t for t in (weight, bias) if t is not None]
        arrays = [onnx.numpy_helper.to_array(t) for t in parts]
        found.append(
            LayerCost(
                layer=layer_name(weight.name),
                op=node.op_type,
                precision="int8" if weight.data_type in (TensorProto.INT8, TensorProto.UINT8) else "float32",
                parameters=sum(a.size for a in arrays),
                nonzero=sum(int(np.count_nonzero(a)) for a in arrays),
                bytes=sum(a.nbytes for a in arrays),
                macs=_macs(node, list(weight.dims), out),
            )
        )
    return found


def layer_name(weight: str) -> str:
    """The module's name of the layer a weight tensor belongs to."""
    return re.sub(r"_quantized(_\d+)?$", "", weight).removesuffix(".weight")


def _macs(node: NodeProto, weight: list[int], out: list[int]) -> int:
    if node.op_type == "Conv":  # weight (O, I / groups, kh, kw): one output element takes all but O
        return int(np.prod(out[1:] or weight[:1]) * np.prod(weight[1:]))
    # Gemm and MatMul: every weight is used once for every row of the output, the batch axis left out
    rows = int(np.prod(out[1:-1])) if len(out) > 2 else 1
    return rows * int(np.prod(weight))


def _constant(name: str, constants: dict[str, TensorProto], made: dict[str, NodeProto]) -> TensorProto | None:
    """The initializer that a name stands for, seen through DequantizeLinear and Transpose."""
    while name not in constants:
        node = made.get(name)
        if node is None or node.op_type not in ("DequantizeLinear", "Transpose"):
            return None
        name = node.input[0]
    return constants[name]
