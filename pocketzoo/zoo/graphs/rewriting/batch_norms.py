"""Batch normalization in the convolution before it (Jacob et al. 2017, arXiv:1712.05877, section 3.2)."""

from __future__ import annotations

from collections import Counter

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from pocketzoo.core.arrays import Array
from pocketzoo.zoo.graphs.contents import drop_unread, replace_nodes
from pocketzoo.zoo.graphs.fresh_names import STANDARD, FreshNames
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.node import attribute


def fold_batch_norms(model: ModelProto) -> None:
    """Scale the weights of each Conv that a BatchNormalization alone reads, instead of what it makes, in place.

    Both in float32, with constants that nobody else reads.
    """
    index, graph = GraphIndex(model), model.graph
    stored, fresh = index.constants, FreshNames.of(model)
    reads = Counter({name: len(nodes) for name, nodes in index.consumers.items()})
    reads.update(index.outputs)
    dropped: set[str] = set()
    convolutions = {node.output[0]: node for node in graph.node if node.op_type == "Conv" and node.domain in STANDARD}
    for norm in graph.node:
        convolution = convolutions.get(norm.input[0]) if _normalizes(norm) else None
        if convolution is None or reads[norm.input[0]] != 1 or not _plain(norm.input[1:], stored):
            continue
        if not _plain([name for name in convolution.input[1:] if name], stored) or reads[convolution.input[1]] != 1:
            continue
        scale, shift, mean, variance = (_values(stored[name]) for name in norm.input[1:5])
        factor = scale / np.sqrt(variance + attribute(norm, "epsilon", 1e-5))
        weight = stored[convolution.input[1]]
        old = _values(weight)
        biased = len(convolution.input) > 2 and bool(convolution.input[2])
        bias = _values(stored[convolution.input[2]]) if biased else np.zeros(1)
        _store(weight, old * factor.reshape(-1, *[1] * (old.ndim - 1)))
        name = fresh(f"{weight.name}_bias")
        _store(graph.initializer.add(name=name), (bias - mean) * factor + shift)
        del convolution.input[2:]
        convolution.input.append(name)
        convolution.output[0] = norm.output[0]
        dropped.add(norm.output[0])
    if dropped:
        rest = [node for node in graph.node if not (_normalizes(node) and node.output[0] in dropped)]
        replace_nodes(graph, rest)
        drop_unread(graph)


def _normalizes(node: NodeProto) -> bool:
    training = attribute(node, "training_mode", 0)
    outputs = [name for name in node.output if name]
    return node.op_type == "BatchNormalization" and node.domain in STANDARD and not training and len(outputs) == 1


def _plain(names: list[str], stored: dict[str, TensorProto]) -> bool:
    return all(name in stored and stored[name].data_type == TensorProto.FLOAT for name in names)


def _values(tensor: TensorProto) -> Array:
    return np.asarray(numpy_helper.to_array(tensor), np.float64)


def _store(tensor: TensorProto, values: Array) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(values, np.float32), tensor.name))
