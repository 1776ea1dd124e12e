"""Index of an ONNX graph: producer and consumers of each tensor, and the layers that can be quantized."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from onnx import ModelProto, NodeProto, TensorProto, helper, shape_inference

from pocketzoo.core.name_patterns import check_skip, matches
from pocketzoo.zoo.graphs.cost import layer_name
from pocketzoo.zoo.graphs.fresh_names import STANDARD, FreshNames, captured, graphs, inner_graphs

LAYERS = ("Conv", "Gemm", "MatMul")
OTHERS = ("ConvTranspose", "Einsum", "GRU", "LSTM", "RNN")  # that have weights, and stay in floats
SMALL = 64  # values of a constant that may be a shape


class GraphIndex:
    """Look-ups over a graph as it was when the index was made."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.constants = {t.name: t for t in model.graph.initializer}
        self.outputs = {o.name for o in model.graph.output}
        inferred = shape_inference.infer_shapes(_without_weights(model)).graph
        known = [*inferred.input, *inferred.value_info, *model.graph.output]
        self.types = {value.name: value.type.tensor_type.elem_type for value in known}
        self.makers: dict[str, NodeProto] = {}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            copy = NodeProto()
            copy.CopyFrom(node)  # the graph's own nodes change while it is rewritten
            for name in node.output:
                self.makers[name] = copy
            # What graphs inside a node read, the node reads: no operator with a graph inside is one that changes.
            for name in (*node.input, *sorted(captured(node))):
                self.readers.setdefault(name, []).append(copy)

    def is_float(self, name: str) -> bool:
        """Whether a tensor holds floats; shapes that a graph computes are integers."""
        return self.types.get(name, TensorProto.FLOAT) in (TensorProto.FLOAT, TensorProto.UNDEFINED)

    def read_once(self, name: str) -> bool:
        """Whether one node reads a tensor and nobody else does, so that it can change with that node."""
        return len(self.readers.get(name, ())) == 1 and name not in self.outputs

    def after_activation(self, name: str, activations: set[str]) -> str:
        """The output of the activation that alone reads ``name``, or ``name`` itself."""
        readers = self.readers.get(name, [])
        if self.read_once(name) and readers[0].op_type in activations:
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


def is_layer(node: NodeProto, constants: Collection[str]) -> bool:
    """Whether a node is a Conv, Gemm or MatMul of the standard with a constant weight."""
    return node.op_type in LAYERS and node.domain in STANDARD and len(node.input) > 1 and node.input[1] in constants


def quantizable(index: GraphIndex, skip: Sequence[str], others: Sequence[str] = ()) -> list[NodeProto]:
    """Conv, Gemm and MatMul nodes with a constant weight that ``skip`` does not name, in graph order.

    Those that ``left_alone`` names are not among them. ``others`` are weights of other kinds that ``skip`` may name as
    well.

    Raises:
        UnknownNameError: ``skip`` names no layer.
    """
    left = left_alone(index)
    found = [node for node in index.model.graph.node if is_layer(node, index.constants)]
    check_skip(skip, dict.fromkeys([*(layer_name(n.input[1]) for n in found), *left, *map(layer_name, others)]))
    open_ = [node for node in found if layer_name(node.input[1]) not in left]
    return [node for node in open_ if not matches(layer_name(node.input[1]), skip)]


def left_alone(index: GraphIndex) -> dict[str, str]:
    """The layers that no 8-bit form is known for, with the reason: those that read a weight of one name go together."""
    reasons: dict[str, str] = {}
    for node in index.model.graph.node:
        if is_layer(node, index.constants):
            name = layer_name(node.input[1])
            reasons[name] = reasons.get(name) or _unsuited(node, index)
        elif weight := next((name for name in node.input if name in index.constants), ""):
            if node.op_type in OTHERS and node.domain in STANDARD:
                reasons.setdefault(layer_name(weight), f"a {node.op_type}: Conv, Gemm and MatMul have an 8-bit form")
            elif node.op_type in ("Gemm", "MatMul") and weight == node.input[0]:
                reasons.setdefault(layer_name(weight), "its weight comes first")
    for node in index.model.graph.node:
        for graph in (each for inner in inner_graphs(node) for each in graphs(inner)):
            constants = {*index.constants, *(t.name for t in graph.initializer)}
            for layer in graph.node:
                if is_layer(layer, constants):
                    reasons.setdefault(layer_name(layer.input[1]), f"it is inside a node of {node.op_type}")
    return {name: reason for name, reason in reasons.items() if reason}


def _unsuited(node: NodeProto, index: GraphIndex) -> str:
    """Why a layer stays in floats; "" where it need not."""
    weight = index.constants[node.input[1]]
    if weight.data_type != TensorProto.FLOAT:
        return f"its weight is in {TensorProto.DataType.Name(weight.data_type).lower()}"
    if node.input[0] in index.constants:
        return "its input is a constant"
    if node.op_type == "MatMul" and len(weight.dims) != 2:
        return "its weight is a vector" if len(weight.dims) == 1 else "its weight is a batch of matrices"
    if attribute(node, "transA", 0):
        return "it transposes its input"
    if attribute(node, "alpha", 1.0) != 1.0 and not index.read_once(node.input[1]):
        return "it scales a weight that is shared"
    return ""


def attribute(node: NodeProto, name: str, default: float) -> float:
    """A number among a node's attributes, or what it is where it is left out."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def out_axis(node: NodeProto) -> int:
    """The axis of a layer's weight that holds its output channels."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return 1  # MatMul: (I, O)


def stored_names(model: ModelProto) -> dict[str, str]:
    """What the 8-bit weight of each layer is stored under, by what the layer makes: the name of its weight.

    Nodes that read one weight alike share it. One that reads it along another axis, as the second half of a tied
    autoencoder does, has other scales, and so a weight of its own.
    """
    constants = {t.name for t in model.graph.initializer}
    fresh = FreshNames(constants)
    ways: dict[str, dict[tuple[int, float], str]] = {}
    found: dict[str, str] = {}
    for node in model.graph.node:
        if is_layer(node, constants):
            weight, out = node.input[1], node.output[0]
            known = ways.setdefault(weight, {})
            way = (out_axis(node), attribute(node, "group", 1))
            if way not in known:
                known[way] = fresh(f"{weight}/{out}") if known else weight
            found[out] = known[way]
    return found
