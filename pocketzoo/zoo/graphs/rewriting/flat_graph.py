"""A graph and those inside it as one list of nodes, and which of their tensors ONNX lets be of 16 bits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, defs, numpy_helper

from pocketzoo.zoo.graphs.fresh_names import FreshNames, defined_names, graphs, nodes, rename
from pocketzoo.zoo.graphs.index import GraphIndex

WORDS = {"fp16": "float16", "bf16": "bfloat16"}  # as a user writes them, and as ONNX does


class FlatGraph:
    """The nodes of a graph and of those inside it in one list, where no two things are called the same."""

    def __init__(self, model: ModelProto) -> None:
        index = GraphIndex(model)
        self.opset = index.opset
        self.nodes = list(nodes(model.graph.node))
        self.outputs = {value.name for each in graphs(model.graph) for value in each.output}
        self.types = index.types | {v.name: v.type.tensor_type.elem_type for v in index.values()}
        self.constants = {t.name: t for each in graphs(model.graph) for t in each.initializer}
        self.types |= {name: tensor.data_type for name, tensor in self.constants.items()}
        self.producers = {name: node for node in self.nodes for name in node.output if name}
        self.consumers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)


def distinct(model: ModelProto) -> ModelProto:
    """The graph with names of their own for what graphs inside nodes make; itself where they have them."""
    defined = Counter(name for graph in graphs(model.graph) for name in defined_names(graph))
    if all(count == 1 for count in defined.values()):
        return model
    copied = ModelProto()
    copied.CopyFrom(model)
    fresh, used = FreshNames.of(copied), set(defined_names(copied.graph))
    for graph in list(graphs(copied.graph))[1:]:
        own = {name for name in defined_names(graph) if name}
        names = {name: fresh(name) for name in sorted(own & used)}
        for each in graphs(graph):
            rename(each, names)
        used |= own
    return copied


def node_id(node: NodeProto) -> str:
    """What a node makes: names of nodes may be empty, or the same twice."""
    return next((str(name) for name in node.output if name), "")


def makes_floats(node: NodeProto, graph: FlatGraph) -> bool:
    """Whether an output is float32."""
    return any(graph.types.get(name) == TensorProto.FLOAT for name in node.output)


def float_constant(graph: FlatGraph, name: str) -> npt.NDArray[np.float32] | None:
    """A constant of float32; None for anything else."""
    tensor = graph.constants.get(name)
    if tensor is None or tensor.data_type != TensorProto.FLOAT:
        return None
    return numpy_helper.to_array(tensor)


@cache
def _schema(op: str, opset: int, domain: str) -> defs.OpSchema | None:
    try:
        return defs.get_schema(op, opset, domain)
    except defs.SchemaError:
        return None


def _parameters(
    names: Iterable[str], formal: list[defs.OpSchema.FormalParameter]
) -> list[tuple[int, defs.OpSchema.FormalParameter]]:
    """Which parameter of a schema each name is; the last of a schema may stand for many."""
    return [(i, formal[min(i, len(formal) - 1)]) for i, name in enumerate(names) if name and formal]


def _takes(schema: defs.OpSchema, precision: str) -> Callable[[defs.OpSchema.FormalParameter], bool]:
    """Whether a parameter may be of the 16-bit type."""
    tensor_type = f"tensor({WORDS[precision]})"
    allowed = _allowed(schema.name, schema.since_version, schema.domain)
    return lambda parameter: tensor_type in allowed.get(parameter.type_str, {parameter.type_str})


@cache
def _allowed(op: str, opset: int, domain: str) -> dict[str, frozenset[str]]:
    """The types that each type variable of an operator may be: read once, not for each node."""
    schema = defs.get_schema(op, opset, domain)
    return {c.type_param_str: frozenset(c.allowed_type_strs) for c in schema.type_constraints}


def fits(node: NodeProto, graph: FlatGraph, precision: str) -> bool:
    """Whether ONNX defines the operator with all its float outputs in half precision."""
    schema = _schema(node.op_type, graph.opset, node.domain)
    if schema is None:
        return False
    takes = _takes(schema, precision)
    outputs = [p for i, p in _parameters(node.output, list(schema.outputs))
               if graph.types.get(node.output[i]) == TensorProto.FLOAT]  # fmt: skip
    return all(map(takes, outputs)) and (bool(outputs) or bool(convertible(node, graph, precision)))


def convertible(node: NodeProto, graph: FlatGraph, precision: str) -> set[int]:
    """The inputs that are floats and may be of 16 bits."""
    schema = _schema(node.op_type, graph.opset, node.domain)
    if schema is None or (node.op_type == "Cast"):
        return set()  # a Cast reads anything
    takes = _takes(schema, precision)
    floats = {i for i, name in enumerate(node.input) if graph.types.get(name) == TensorProto.FLOAT}
    return {i for i, p in _parameters(node.input, list(schema.inputs)) if i in floats and takes(p)}
