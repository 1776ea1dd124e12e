"""What each layer of an ONNX graph costs: parameters, bytes and multiply-accumulates per sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.node import layer_name
from pocketzoo.zoo.graphs.operators import operator_of


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


def costs_of(paths: Sequence[Path]) -> list[LayerCost]:
    """Costs of the layers of all graphs of a model; of several, the layer's name begins with that of its graph."""
    if len(paths) == 1:
        return layer_costs(paths[0])
    return [
        replace(cost, layer=f"{path.name.partition('.')[0]}:{cost.layer}")
        for path in paths
        for cost in layer_costs(path)
    ]


def layer_costs(path: Path) -> list[LayerCost]:
    """Costs of every Conv, Gemm, MatMul and MatMulInteger with a constant weight, in graph order.

    Biases count as parameters.
    """
    index = GraphIndex(onnx.load(path))
    costs = []
    for node in index.nodes:
        operator = operator_of(node)
        if operator is None or not operator.counted:
            continue
        weight = index.weight(node.input[operator.weights[0]])
        if weight is None:
            continue
        place = operator.bias
        bias = index.weight(node.input[place]) if place is not None and len(node.input) > place else None
        # The free batch axis counts as 1. Unknown after control flow: then one row, or one place, counts.
        out = [d if isinstance(d, int) and d else 1 for d in index.shapes.get(node.output[0], [])]
        parts = [t for t in (weight, bias) if t is not None]
        arrays = [numpy_helper.to_array(t) for t in parts]
        costs.append(
            LayerCost(
                layer=layer_name(weight.name),
                op=node.op_type,
                precision="int8" if weight.data_type in (TensorProto.INT8, TensorProto.UINT8) else "float32",
                parameters=sum(a.size for a in arrays),
                nonzero=sum(int(np.count_nonzero(a)) for a in arrays),
                bytes=sum(a.nbytes for a in arrays),
                macs=operator.macs(list(weight.dims), out),
            )
        )
    return costs
