"""Which type of floats a graph computes in: what its layers read, store and make."""

from __future__ import annotations

from collections import Counter
from typing import Any

from onnx import ModelProto, TensorProto

from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.layer_cost import FLOAT
from pocketzoo.zoo.graphs.layer_precisions import placed_layers

OTHER_FLOATS: dict[int, str] = {
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.DOUBLE: "float64",
}


def computing_kinds(model: ModelProto) -> set[int]:
    """ONNX's types of what the layers of a graph read, store and make, at any depth; without layers of all floats."""
    return set(_counted(model))


def float_precision(model: ModelProto) -> str:
    """numpy's name of the floats that most layers of a graph compute in; "float32" where none computes in floats."""
    floats = {kind: n for kind, n in _counted(model).items() if kind in OTHER_FLOATS or kind == TensorProto.FLOAT}
    most = max(floats, key=lambda kind: floats[kind], default=TensorProto.FLOAT)
    return OTHER_FLOATS.get(most, FLOAT)


def _counted(model: ModelProto) -> Counter[Any]:
    index = GraphIndex(model)
    types = {value.name: value.type.tensor_type.elem_type for value in index.values()} | index.types
    counted: Counter[Any] = Counter()
    for layer in placed_layers(model):
        made = {types.get(name, 0) for name in layer.node.output if name}
        counted.update(made - {TensorProto.UNDEFINED})
    if not counted:  # no layers, or nothing is known of them
        counted.update(types.get(name, 0) for node in index.nodes for name in node.output)
    return counted
