"""What ONNX's standard asks of a graph and onnxruntime does without, put right where a file is read."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, ValueInfoProto, helper, numpy_helper

from pocketzoo.core.errors import UnsafeFileError
from pocketzoo.core.untrusted.limits import TENSOR_VALUES
from pocketzoo.zoo.graphs.contents import replace_nodes
from pocketzoo.zoo.graphs.fresh_names import STANDARD, captured, graphs, nodes

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")


def put_in_standard_form(model: ModelProto, source: str) -> None:
    """Sort nodes by what they read, store sparse constants in full, and give each output once; in place.

    Raises:
        UnsafeFileError: a sparse constant has values outside its shape.
        TooLargeError: one is larger in full than tensors may be.
    """
    once: dict[str, ValueInfoProto] = {}
    for value in model.graph.output:
        once.setdefault(value.name, value)
    kept = GraphProto(output=once.values())
    del model.graph.output[:]
    model.graph.output.MergeFrom(kept.output)
    for graph in graphs(model.graph):
        for sparse in graph.sparse_initializer:
            graph.initializer.append(_in_full(sparse, source))
        del graph.sparse_initializer[:]
        for attribute in (each for node in graph.node if node.op_type == "Constant" for each in node.attribute):
            if attribute.name == "sparse_value":
                full = _in_full(attribute.sparse_tensor, source)
                attribute.CopyFrom(helper.make_attribute("value", full))
        ordered = in_order(graph.node)
        if ordered is not None:
            replace_nodes(graph, ordered)


def in_order(given: Sequence[NodeProto]) -> list[NodeProto] | None:
    """The nodes, each after those that make what it reads; None where they are so, or read one another in a circle."""
    maker = {name: number for number, node in enumerate(given) for name in node.output if name}
    reads = [{maker[name] for name in (*node.input, *captured(node)) if name in maker} for node in given]
    if all(number > max(read, default=-1) for number, read in enumerate(reads)):
        return None
    readers: dict[int, list[int]] = {}
    for number, read in enumerate(reads):
        for each in read:
            readers.setdefault(each, []).append(number)
    waiting = [len(read) for read in reads]
    ready, ordered = deque(number for number, count in enumerate(waiting) if not count), []
    while ready:
        ordered.append(number := ready.popleft())
        for reader in readers.get(number, ()):
            waiting[reader] -= 1
            if not waiting[reader]:
                ready.append(reader)
    return [given[number] for number in ordered] if len(ordered) == len(given) else None


def random_nodes(model: ModelProto) -> list[NodeProto]:
    """The nodes that make other numbers each time: those of random numbers, and a Dropout that is training."""
    constants = {t.name: t for graph in graphs(model.graph) for t in graph.initializer}
    return [
        node
        for node in nodes(model.graph.node)
        if node.domain in STANDARD and (node.op_type in RANDOM or _trains(node, constants))
    ]


def not_numbers(model: ModelProto) -> str:
    """The name of a stored tensor with a NaN; "" if none. What is infinite may be a mask."""
    for tensor in (tensor for graph in graphs(model.graph) for tensor in graph.initializer):
        if tensor.data_type in FLOATS and np.isnan(numpy_helper.to_array(tensor)).any():
            return str(tensor.name)
    return ""


def _trains(node: NodeProto, constants: dict[str, TensorProto]) -> bool:
    if node.op_type != "Dropout" or len(node.input) < 3 or not node.input[2]:
        return False
    told = constants.get(node.input[2])
    return told is None or bool(numpy_helper.to_array(told).any())


def _in_full(sparse: SparseTensorProto, source: str) -> TensorProto:
    values, places = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    name, dims = sparse.values.name, tuple(sparse.dims)
    TENSOR_VALUES.check(math.prod(dims), f"the tensor {name!r} of {source}", "values")
    try:
        full = np.zeros(dims, values.dtype)
        if places.min(initial=0) < 0:
            raise IndexError
        if places.ndim == 2:  # indices of each axis
            full[tuple(places.T)] = values
        else:
            full.reshape(-1)[places] = values
    except (IndexError, ValueError) as error:
        raise UnsafeFileError(f"{source} has values of {name!r} outside its shape", "export it again") from error
    return numpy_helper.from_array(full, name)
