"""Index of an ONNX graph: shapes, types, producer and consumers of each tensor, and its layers with their weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from pocketzoo.core.name_patterns import check_skip, matches
from pocketzoo.zoo.graphs.fresh_names import STANDARD, FreshNames, captured, graphs
from pocketzoo.zoo.graphs.layer_precisions import CONVERSIONS, EIGHT_BITS, PlacedLayer, placed_layers
from pocketzoo.zoo.graphs.node import attribute, layer_name
from pocketzoo.zoo.graphs.operators import OPERATORS, QUANTIZABLE, channels, is_quantizable, out_axis
from pocketzoo.zoo.graphs.shape_inference import inferred

Dims = list[int | str]
BY_CHANNEL = 13  # opset that scales of QuantizeLinear for each channel begin with
SMALL = 64  # values of a constant that may be a shape
_LISTED = " and ".join((", ".join(QUANTIZABLE[:-1]), QUANTIZABLE[-1]))


class GraphIndex:
    """Look-ups over a graph as it was when the index was made. Shapes and types are inferred when they are asked for.

    ``nodes`` are copies, since the graph's own change while it is rewritten; ``constants`` are the graph's own.
    """

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self._snapshot = _without_weights(model)
        self.nodes: Sequence[NodeProto] = self._snapshot.graph.node
        self.constants: dict[str, TensorProto] = {t.name: t for t in model.graph.initializer}
        self._stored = {t.name: (t.data_type, list(t.dims)) for t in model.graph.initializer}
        self.inputs = [value.name for value in graph_inputs(model)]
        self.outputs = {value.name for value in model.graph.output}

    @property
    def opset(self) -> int:
        """The version of the standard's operators."""
        return opset_of(self.model)

    @cached_property
    def producers(self) -> dict[str, NodeProto]:
        """The node that outputs each tensor; inputs and constants have none."""
        return {name: node for node in self.nodes for name in node.output if name}

    @cached_property
    def consumers(self) -> dict[str, list[NodeProto]]:
        """The nodes that read each tensor, once for each time.

        What graphs inside a node read, the node reads: no operator with a graph inside is one that changes.
        """
        consumers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in (*node.input, *sorted(captured(node))):
                if name:
                    consumers.setdefault(name, []).append(node)
        return consumers

    @cached_property
    def types(self) -> dict[str, int]:
        """The element type of each tensor, as far as it can be inferred."""
        types = {name: kind for name, (kind, _) in self._stored.items()}
        return types | {value.name: value.type.tensor_type.elem_type for value in self._values()}

    @cached_property
    def shapes(self) -> dict[str, Dims]:
        """The dims of each tensor, as far as they can be inferred: a length, or the name of a free axis."""
        shapes: dict[str, Dims] = {name: list(dims) for name, (_, dims) in self._stored.items()}
        for value in self._values():
            if (tensor := value.type.tensor_type).HasField("shape"):
                shapes[value.name] = [d.dim_param or d.dim_value for d in tensor.shape.dim]
        return shapes

    def shapes_at(self, inputs: Mapping[str, Sequence[int | str]]) -> dict[str, tuple[int, ...]]:
        """The dims of each tensor where ``inputs`` have these, as far as they can be inferred."""
        return {
            name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
            for name, value in self._values_at(inputs)
            if all(dim.HasField("dim_value") and dim.dim_value >= 0 for dim in value.type.tensor_type.shape.dim)
        }

    def sizes(self, inputs: Mapping[str, Sequence[int]]) -> dict[str, int]:
        """How many values each tensor has where ``inputs`` have these lengths, as far as it can be inferred."""
        sizes: dict[str, int] = {}
        for name, value in self._values_at(inputs):
            size = math.prod(dim.dim_value for dim in value.type.tensor_type.shape.dim)
            sizes[name] = max(size, sizes.get(name, 0))
        return sizes

    def _values_at(self, inputs: Mapping[str, Sequence[int | str]]) -> Iterator[tuple[str, ValueInfoProto]]:
        fixed = ModelProto()
        fixed.CopyFrom(self._snapshot)
        del fixed.graph.value_info[:]  # they may say less
        for value in (each for each in fixed.graph.input if each.name in inputs):
            value.CopyFrom(
                helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, inputs[value.name])
            )
        for value in fixed.graph.output:
            value.ClearField("type")
        for graph in inferred(fixed):
            for value in (*graph.input, *graph.value_info, *graph.output):
                if value.type.tensor_type.HasField("shape"):
                    yield value.name, value

    @cached_property
    def _inferred(self) -> list[GraphProto]:
        return inferred(self._snapshot)

    def _values(self) -> Iterator[ValueInfoProto]:
        for graph in self._inferred:
            yield from (*graph.input, *graph.value_info, *graph.output)

    def values(self) -> Iterator[ValueInfoProto]:
        """Every tensor that shape inference knows, of the graphs inside nodes too."""
        for graph in chain.from_iterable(map(graphs, self._inferred)):
            yield from (*graph.input, *graph.value_info, *graph.output)

    def is_float(self, name: str) -> bool:
        """Whether a tensor holds floats; shapes that a graph computes are integers."""
        return self.types.get(name, TensorProto.FLOAT) in (TensorProto.FLOAT, TensorProto.UNDEFINED)

    def has_one_consumer(self, name: str) -> bool:
        """Whether one node reads a tensor and nobody else does, so that it can change with that node."""
        return len(self.consumers.get(name, ())) == 1 and name not in self.outputs

    def after_activation(self, name: str, activations: Collection[str]) -> str:
        """The output of the activation that alone reads ``name``, or ``name`` itself."""
        consumers = self.consumers.get(name, [])
        if self.has_one_consumer(name) and consumers[0].op_type in activations:
            return str(consumers[0].output[0])
        return name

    def read_through(
        self, reads: Callable[[NodeProto], Iterable[str]], passes: Callable[[NodeProto], bool]
    ) -> set[str]:
        """What nodes read (``reads`` says of each), as it is or through nodes that pass it on."""
        found = set[str]()
        for node in reversed(self.nodes):
            found.update(reads(node))
            if passes(node) and not found.isdisjoint(node.output):
                found.update(node.input)
        return found

    def is_layer(self, node: NodeProto) -> bool:
        """Whether a node is a Conv, Gemm or MatMul of the standard with a constant weight, of any type."""
        return is_layer(node, self.constants)

    def weight(self, name: str) -> TensorProto | None:
        """The constant that a layer's weight comes from, through the nodes that convert it; None if it is computed."""
        while name not in self.constants:
            producer = self.producers.get(name)
            if producer is None or producer.op_type not in CONVERSIONS:
                return None
            name = str(producer.input[0])
        return self.constants[name]

    def number(self, name: str) -> float | None:
        """The number that a float32 constant holds, where it holds one."""
        tensor = self.constants.get(name)
        if tensor is None or tensor.data_type != TensorProto.FLOAT or math.prod(tensor.dims) != 1:
            return None
        return float(numpy_helper.to_array(tensor).reshape(-1)[0])

    def layers(self) -> Iterator[tuple[NodeProto, int, int, int]]:
        """Each layer whose weight comes from a constant: its channels in and out, and its groups."""
        for node in self.nodes:
            if is_quantizable(node) and len(node.input) > 1:
                weight = self.weight(node.input[1])
                if weight is not None and len(weight.dims) > 1:
                    yield node, *channels(node, weight.dims)

    def quantized(self, node: NodeProto) -> str:
        """What a layer's weight is in, "int8" or "fp8"; "" where it is in floats."""
        weight = self.weight(node.input[1])
        return "" if weight is None else EIGHT_BITS.get(weight.data_type, "")


def graph_inputs(model: ModelProto) -> list[ValueInfoProto]:
    """The inputs that are to be given: before IR 4 constants were listed as well."""
    constants = {t.name for t in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constants]


def opset_of(model: ModelProto) -> int:
    """The version of the standard's operators that a graph is written in."""
    return max((int(o.version) for o in model.opset_import if o.domain in STANDARD), default=1)


def _without_weights(model: ModelProto) -> ModelProto:
    """The graph for shape inference: large constants, which it would copy twice, become inputs of their shape."""
    light = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    light.graph.value_info.extend(model.graph.value_info)
    light.graph.sparse_initializer.extend(model.graph.sparse_initializer)
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= SMALL:
            light.graph.initializer.append(tensor)
        else:
            light.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return light


def is_layer(node: NodeProto, constants: Collection[str]) -> bool:
    """Whether a node is a Conv, Gemm or MatMul of the standard with a constant weight."""
    return is_quantizable(node) and len(node.input) > 1 and node.input[1] in constants


def quantizable(
    index: GraphIndex, skip: Sequence[str], others: Sequence[str] = (), left: Collection[str] = ()
) -> list[NodeProto]:
    """Conv, Gemm and MatMul nodes with a constant weight that ``skip`` does not name, in graph order.

    Those that ``left_alone`` names are not among them, nor those of the names in ``left``. ``others`` are weights of
    other kinds that ``skip`` may name as well.

    Raises:
        UnknownNameError: ``skip`` names no layer.
    """
    left = {*left, *left_alone(index, inside=False)}
    layers = [node for node in index.nodes if index.is_layer(node)]
    known = [*(layer_name(n.input[1]) for n in layers), *left_alone(index), *map(layer_name, others)]
    check_skip(skip, dict.fromkeys(known))
    open_ = [node for node in layers if layer_name(node.input[1]) not in left]
    return [node for node in open_ if not matches(layer_name(node.input[1]), skip)]


def layer_names(index: GraphIndex) -> list[str]:
    """The names of all layers with a constant weight, in graph order."""
    return list(dict.fromkeys(layer_name(node.input[1]) for node in index.nodes if index.is_layer(node)))


def left_alone(index: GraphIndex, *, inside: bool = True) -> dict[str, str]:
    """The layers that no 8-bit form is known for, at any depth, or ``inside`` no node, with the reason.

    Those that read a weight of one name go together. What multiplies two activations has no weight, and goes by the
    name of its node.
    """
    reasons: dict[str, str] = {}
    for layer in placed_layers(index.model):
        if layer.inside and not inside:
            continue
        reasons[layer.name] = reasons.get(layer.name) or _reason(layer, index)
    return {name: reason for name, reason in reasons.items() if reason}


def _reason(layer: PlacedLayer, index: GraphIndex) -> str:
    """Why a layer stays in floats; "" where it need not."""
    node = layer.node
    operator = OPERATORS[node.op_type]
    if layer.precision:  # it does not
        return ""
    if layer.inside:
        return f"it is inside a node of {layer.inside}"
    if index.is_layer(node):
        return _unsuited(node, index)
    if layer.weight is None:
        return (
            "its weight is computed" if operator.kind == "convolution" else "its operands are computed, none a weight"
        )
    if not operator.form:
        return f"{_LISTED} have an 8-bit form, {node.op_type} has none"
    if 0 in operator.weights and node.input[0] in index.constants:
        return "its weight comes first"
    return "its weight is computed from a constant"


def _is_finite(tensor: TensorProto) -> bool:
    return math.isfinite(abs(numpy_helper.to_array(tensor)).max(initial=0))


def _unsuited(node: NodeProto, index: GraphIndex) -> str:
    """Why a layer stays in floats; "" where it need not."""
    weight = index.constants[node.input[1]]
    if index.opset < BY_CHANNEL:
        return f"its graph has opset {index.opset}, which cannot be raised; int8 by channel is from {BY_CHANNEL} on"
    if weight.data_type != TensorProto.FLOAT:
        return f"its weight is in {TensorProto.DataType.Name(weight.data_type).lower()}"
    if not all(_is_finite(index.constants[name]) for name in node.input[2:] if name in index.constants):
        return "its bias is not finite"  # as of a mask that onnxruntime makes one
    if node.input[0] in index.constants:
        return "its input is a constant"
    if len(weight.dims) < OPERATORS[node.op_type].rank:
        return "its weight is a vector"
    if attribute(node, "transA", 0):
        return "it transposes its input"
    if attribute(node, "alpha", 1.0) != 1.0 and not index.has_one_consumer(node.input[1]):
        return "it scales a weight that is shared"
    return ""


def stored_names(index: GraphIndex) -> dict[str, str]:
    """What the 8-bit weight of each layer is stored under, by the layer's output: the name of its weight.

    Nodes that read one weight alike share it. One that reads it along another axis, as the second half of a tied
    autoencoder does, has other scales, and so a weight of its own.
    """
    fresh = FreshNames(index.constants)
    ways: dict[str, dict[tuple[int, float], str]] = {}
    stored: dict[str, str] = {}
    for node in index.nodes:
        if index.is_layer(node):
            weight, out = node.input[1], node.output[0]
            known = ways.setdefault(weight, {})
            way = (out_axis(node, len(index.constants[weight].dims)), attribute(node, "group", 1))
            if way not in known:
                known[way] = fresh(f"{weight}/{out}") if known else weight
            stored[out] = known[way]
    return stored
