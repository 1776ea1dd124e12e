"""The tensors of a graph wherever it has them, and those that lie in other files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto

from pocketzoo.zoo.graphs.fresh_names import graphs, nodes


def with_weights_in(graph: Path, renamed: dict[str, str]) -> bytes:
    """The bytes of a graph whose weights lie in other files now: former name -> new name."""
    model = onnx.load(graph, load_external_data=False)
    for tensor in external_tensors(model):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = renamed[entry.value]
    return bytes(model.SerializeToString())


def external_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Those that lie in other files."""
    for tensor in tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            yield tensor


def tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a graph: stored ones, and those in attributes of nodes, functions included."""
    for graph in graphs(model.graph):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in nodes(model.graph.node, *(function.node for function in model.functions)):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
