"""What each layer of an ONNX graph costs: parameters, bytes and multiply-accumulates per sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from pocketzoo.core.arrays import Array
from pocketzoo.zoo.graphs.fresh_names import STANDARD
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.layer_cost import LayerCost
from pocketzoo.zoo.graphs.node import layer_name
from pocketzoo.zoo.graphs.operators import operator_of

FLOAT, CODEBOOK = "float32", "codebook"  # precisions of weights that are numbers, and that are looked up
EIGHT_BITS = (TensorProto.INT8, TensorProto.UINT8)


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
        name = node.input[operator.weights[0]]
        weight = index.weight(name)
        constants = [] if weight is None else [weight]
        lookup = _lookup(index, name) if weight is None else None
        if weight is None and lookup is None:
            continue
        place = operator.bias
        bias = index.weight(node.input[place]) if place is not None and len(node.input) > place else None
        # The free batch axis counts as 1. Unknown after control flow: then one row, or one place, counts.
        out = [d if isinstance(d, int) and d else 1 for d in index.shapes.get(node.output[0], [])]
        constants += [] if bias is None else [bias]
        arrays = [numpy_helper.to_array(t) for t in constants]
        values = [*arrays] if lookup is None else [lookup.weight, *arrays]
        costs.append(
            LayerCost(
                layer=layer_name(name if weight is None else weight.name),
                op=node.op_type,
                precision=CODEBOOK if weight is None else "int8" if weight.data_type in EIGHT_BITS else FLOAT,
                parameters=sum(a.size for a in values),
                nonzero=sum(int(np.count_nonzero(a)) for a in values),
                bytes=sum(a.nbytes for a in arrays) + (0 if lookup is None else lookup.bytes),
                macs=operator.macs(list(values[0].shape), out),
            )
        )
    return costs


@dataclass(frozen=True, slots=True)
class _Lookup:
    """A weight whose values are looked up in a constant, and what the graph stores for it."""

    weight: Array
    bytes: int


def _lookup(index: GraphIndex, name: str) -> _Lookup | None:
    """The weight that ``Gather`` makes of a codebook and constant indices; None for one that is computed otherwise."""
    producer = index.producers.get(name)
    if producer is None or producer.op_type != "Gather" or producer.domain not in STANDARD:
        return None
    codebook, indices = index.constants.get(producer.input[0]), index.weight(producer.input[1])
    if codebook is None or indices is None or len(codebook.dims) != 1:
        return None
    values, places = numpy_helper.to_array(codebook), numpy_helper.to_array(indices)
    return _Lookup(values[places.astype(np.int64)], values.nbytes + places.nbytes)
