"""Write a graph that computes in float16, bfloat16 or float64 in float32, for what is planned and encoded there."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pocketzoo.zoo.graphs.contents import replace_nodes
from pocketzoo.zoo.graphs.float_precision import OTHER_FLOATS, computing_kinds
from pocketzoo.zoo.graphs.fresh_names import STANDARD, FreshNames, graphs
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.rewriting.batch_norms import fold_batch_norms

# Attributes that name the type of what a node makes, of all operators that have one.
TYPE_ATTRIBUTES = ("dtype", "output_datatype", "output_dtype", "stash_type", "to")
LARGEST = float(np.finfo(np.float32).max)


def in_float32(model: ModelProto, *, ends: bool = False) -> ModelProto:
    """The graph with layers, and all that is of their types, in float32; itself where its layers are already.

    Inputs and outputs keep their types, unless ``ends`` are to be in float32 as well. Tensors keep their names, but for
    inputs and outputs, which a Cast converts.
    float16 and bfloat16 lose nothing by it; of float64 numbers beyond float32 become its largest.
    """
    kinds = computing_kinds(model) & OTHER_FLOATS.keys()
    if not kinds:
        return model
    made = ModelProto()
    made.CopyFrom(model)
    every = list(graphs(made.graph))
    for graph in every:
        _retype(graph, kinds, ends=ends or graph is not made.graph)
    _cast_ends(made, kinds)
    _drop_casts(made)
    fold_batch_norms(made)
    return made


def _retype(graph: GraphProto, kinds: Iterable[int], *, ends: bool) -> None:
    """Give constants, and what nodes make, the type float32, in place."""
    for tensor in graph.initializer:
        _widen(tensor, kinds)
    for sparse in graph.sparse_initializer:
        _widen(sparse.values, kinds)
    del graph.value_info[:]
    for value in (*graph.input, *graph.output) if ends else ():
        if value.type.tensor_type.elem_type in kinds:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in TYPE_ATTRIBUTES and attribute.i in kinds:
                attribute.i = TensorProto.FLOAT
            for tensor in (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors):
                _widen(tensor, kinds)


def _widen(tensor: TensorProto, kinds: Iterable[int]) -> None:
    if tensor.data_type not in kinds:
        return
    values = numpy_helper.to_array(tensor)
    if tensor.data_type == TensorProto.DOUBLE:
        values = np.where(np.isfinite(values), np.clip(values, -LARGEST, LARGEST), values)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(values).astype(np.float32), tensor.name))


def _cast_ends(model: ModelProto, kinds: Iterable[int]) -> None:
    """Convert inputs and outputs of these types where they enter and leave, in place."""
    graph, fresh = model.graph, FreshNames.of(model)
    stored = {tensor.name for tensor in graph.initializer}
    called: dict[str, str] = {}
    first: list[NodeProto] = []
    last: list[NodeProto] = []
    for value in graph.input:
        if value.type.tensor_type.elem_type not in kinds:
            continue
        if value.name in stored:  # a constant that is listed as an input as well
            value.type.tensor_type.elem_type = TensorProto.FLOAT
            continue
        called[value.name] = fresh(f"{value.name}_float32")
        first.append(_cast(value.name, called[value.name], TensorProto.FLOAT))
    given = set(called)
    for value in graph.output:
        kind = value.type.tensor_type.elem_type
        if kind not in kinds or value.name in given:  # an input may be an output too
            continue
        called[value.name] = fresh(f"{value.name}_float32")
        last.append(_cast(called[value.name], value.name, kind))
    for each in graphs(graph):
        for node in each.node:
            for side in (node.input, node.output):
                for i, name in enumerate(side):
                    side[i] = called.get(name, name)
        if each is not graph:
            for value in each.output:
                value.name = called.get(value.name, value.name)
    for tensor in graph.initializer:
        tensor.name = called.get(tensor.name, tensor.name)
    replace_nodes(graph, [*first, *graph.node, *last])


def _cast(name: str, made: str, kind: int) -> NodeProto:
    return helper.make_node("Cast", [name], [made], to=kind, name=made)


def _drop_casts(model: ModelProto) -> None:
    """Take out the conversions from float32 to itself that are left, in place."""
    graph = model.graph
    types, outputs = GraphIndex(model).types, {value.name for value in graph.output}
    same: dict[str, str] = {}
    rest = []
    for node in graph.node:
        source = same.get(node.input[0], node.input[0]) if node.op_type == "Cast" and node.domain in STANDARD else ""
        if not source or types.get(source) != TensorProto.FLOAT or types.get(node.output[0]) != TensorProto.FLOAT:
            rest.append(node)
        elif node.output[0] in outputs:
            rest.append(helper.make_node("Identity", [source], list(node.output), name=node.name))
        else:
            same[node.output[0]] = source
    if not same:
        return
    replace_nodes(graph, rest)
    for each in graphs(graph):
        for node in each.node:
            for i, name in enumerate(node.input):
                node.input[i] = same.get(name, name)
        for value in each.output:
            value.name = same.get(value.name, value.name)
