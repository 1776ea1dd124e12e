"""What one ONNX graph holds, nodes and constants, put in place of what it held."""

from __future__ import annotations

import math
from collections.abc import Iterable

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from pocketzoo.zoo.graphs.fresh_names import STANDARD, captured, graphs, nodes, read_names


def replace_nodes(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Put nodes in the place of those that a graph has, which may be among them."""
    made = GraphProto(node=nodes)  # a copy, before its own are gone
    del graph.node[:]
    graph.node.MergeFrom(made.node)


def drop_unread(graph: GraphProto) -> None:
    """Let go of the constants that nobody reads."""
    read = read_names(graph)
    stored = [tensor for tensor in graph.initializer if tensor.name in read]
    if len(stored) == len(graph.initializer):
        return
    del graph.initializer[:]
    graph.initializer.extend(stored)


def drop_dead(graph: GraphProto) -> None:
    """Let go of the nodes whose outputs nobody reads, directly or not, and of their constants."""
    read, kept = {value.name for value in graph.output}, list[NodeProto]()
    for node in reversed(graph.node):
        if not read.isdisjoint(node.output):
            kept.append(node)
            read.update((*node.input, *captured(node)))
        read.discard("")
    if len(kept) < len(graph.node):
        replace_nodes(graph, reversed(kept))
        drop_unread(graph)


def stored_bytes(model: ModelProto) -> int:
    """Of the constants of a graph, at any depth, those in Constant nodes too."""
    held = [held_tensor(node) for node in nodes(model.graph.node, *(function.node for function in model.functions))]
    stored = [tensor for graph in graphs(model.graph) for tensor in graph.initializer]
    return sum(tensor_bytes(tensor) for tensor in (*stored, *held) if tensor is not None)


def tensor_bytes(tensor: TensorProto) -> int:
    """What the values of a tensor take in its graph, without copying them; 0 where they lie in another file."""
    if tensor.data_location == TensorProto.EXTERNAL:
        return 0
    if not tensor.HasField("raw_data"):
        return int(tensor.ByteSize())
    try:
        size = int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except KeyError:
        return len(tensor.raw_data)
    return int(math.prod(tensor.dims)) * size


def held_tensor(node: NodeProto) -> TensorProto | None:
    """What a Constant of the standard holds; None where that is no tensor, and of other nodes."""
    if node.op_type != "Constant" or node.domain not in STANDARD:
        return None
    return next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)


def store_constants(graph: GraphProto) -> None:
    """Make initializers of the nodes that hold a constant: a weight is one. Outputs stay nodes."""
    outputs = {value.name for value in graph.output}
    rest = []
    for node in graph.node:
        tensor = held_tensor(node)
        if tensor is None or node.output[0] in outputs:
            rest.append(node)
            continue
        stored = graph.initializer.add()
        stored.CopyFrom(tensor)
        stored.name = node.output[0]
    replace_nodes(graph, rest)
