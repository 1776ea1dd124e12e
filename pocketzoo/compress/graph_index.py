"""Who makes and who reads each tensor of an ONNX graph, and which layers in it can be quantised."""

from __future__ import annotations

import math
from collections.abc import Sequence

from onnx import ModelProto, NodeProto, TensorProto, helper, shape_inference

from pocketzoo.compress.patterns import check_skip, matches
from pocketzoo.zoo.cost import layer_name

SMALL = 64  # values of a constant that may be a shape


class GraphIndex:
    """Look-ups over a graph as it was when the index was made."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.constants = {t.name: t for t in model.graph.initializer}
        self.outputs = {o.name for o in model.graph.output}
        known = [*shape_inference.infer_shapes(_without_weights(model)).graph.value_info, *model.graph.output]
        self.types = {value.name: value.type.tensor_type.elem_type for value in known}
        self.makers: dict[str, NodeProto] = {}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            copy = NodeProto()
            copy.CopyFrom(node)  # the graph's own nodes change while it is rewritten
            for name in node.output:
                self.makers[name] = copy
            for name in node.input:
                self.readers.setdefault(name, []).append(copy)

    def is_float(self, name: str) -> bool:
        """Whether a tensor holds floats; shapes that a graph computes are integers."""
        return self.types.get(name, TensorProto.FLOAT) in (TensorProto.FLOAT, TensorProto.UNDEFINED)

    def after_activation(self, name: str, activations: set[str]) -> str:
        """The tensor behind ``name`` once an activation that alone reads it has run."""
        readers = self.readers.get(name, [])
        if len(readers) == 1 and readers[0].op_type in activations and name not in self.outputs:
            return str(readers[0].output[0])
        return name


def _without_weights(model: ModelProto) -> ModelProto:
    """The graph for shape inference: large constants, which it would copy twice, become inputs of their shape."""
    light = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    light.graph.value_info.extend(model.graph.value_info)
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= SMALL:
            light.graph.initializer.append(tensor)
        else:
            light.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return light


def quantisable(index: GraphIndex, skip: Sequence[str], others: Sequence[str] = ()) -> list[NodeProto]:
    """Conv, Gemm and MatMul nodes with a constant weight that ``skip`` does not name, in graph order.

    ``others`` are weights of other kinds that ``skip`` may name as well.

    Raises:
        UnknownNameError: ``skip`` names no layer.
    """
    found = [
        node
        for node in index.model.graph.node
        if node.op_type in ("Conv", "Gemm", "MatMul") and len(node.input) > 1 and node.input[1] in index.constants
    ]
    check_skip(skip, [*(layer_name(node.input[1]) for node in found), *map(layer_name, others)])
    return [node for node in found if not matches(layer_name(node.input[1]), skip)]


def out_axis(node: NodeProto) -> int:
    """The axis of a layer's weight that holds its output channels."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
    return 1  # MatMul: (I, O)
