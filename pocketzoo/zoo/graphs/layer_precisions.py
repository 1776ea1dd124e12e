"""The layers of a graph at any depth, and what each stores its weight in."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from pocketzoo.zoo.graphs.contents import held_tensor
from pocketzoo.zoo.graphs.fresh_names import inner_graphs
from pocketzoo.zoo.graphs.node import layer_name, node_name
from pocketzoo.zoo.graphs.operators import operator_of

CONVERSIONS = ("DequantizeLinear", "Cast", "Transpose")  # between a constant and the layer whose weight it is
EIGHT_BITS: dict[int, str] = {
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "int8",
    TensorProto.FLOAT8E4M3FN: "fp8",
    TensorProto.FLOAT8E5M2: "fp8",
}


@dataclass(frozen=True, slots=True)
class PlacedLayer:
    """A node that multiplies and sums, and where it is."""

    node: NodeProto
    weight: TensorProto | None  # the constant that one of its operands comes from; None where all are computed
    direct: bool = True  # the operand is that constant, or what dequantizes it
    inside: str = ""  # the operator whose branch or body it is in; "" in the graph itself

    @property
    def name(self) -> str:
        """That of its weight; of the node where it has none, or one that is made of a constant that others may read."""
        return layer_name(self.weight.name) if self.weight is not None and self.direct else node_name(self.node)

    @property
    def precision(self) -> str:
        """What its weight is in, "int8" or "fp8"; "" where it is in floats, or computed."""
        return "" if self.weight is None else EIGHT_BITS.get(self.weight.data_type, "")


def placed_layers(model: ModelProto) -> Iterator[PlacedLayer]:
    """Every convolution, product, contraction and recurrent layer of a graph, of branches, bodies and functions too."""
    yield from _layers(model.graph, ChainMap(), ChainMap(), "")
    for function in model.functions:
        producers = {name: node for node in function.node for name in node.output}
        yield from _of(function.node, ChainMap(), ChainMap(producers), function.name)


def _layers(
    graph: GraphProto, constants: ChainMap[str, TensorProto], producers: ChainMap[str, NodeProto], inside: str
) -> Iterator[PlacedLayer]:
    constants = constants.new_child({tensor.name: tensor for tensor in graph.initializer})
    producers = producers.new_child({name: node for node in graph.node for name in node.output})
    yield from _of(graph.node, constants, producers, inside)


def _of(
    nodes: Iterable[NodeProto],
    constants: ChainMap[str, TensorProto],
    producers: ChainMap[str, NodeProto],
    inside: str,
) -> Iterator[PlacedLayer]:
    for node in nodes:
        operator = operator_of(node)
        if operator is not None and operator.kind != "lookup":
            operands = operator.weights or range(len(node.input))
            found = (_constant(node.input[at], constants, producers) for at in operands if at < len(node.input))
            weight, direct = next((each for each in found if each[0] is not None), (None, True))
            yield PlacedLayer(node, weight, direct, inside)
        for inner in inner_graphs(node):
            yield from _layers(inner, constants, producers, inside or node.op_type)


def _constant(
    name: str, constants: Mapping[str, TensorProto], producers: Mapping[str, NodeProto]
) -> tuple[TensorProto | None, bool]:
    """The constant that a tensor is, or is converted from; and whether nothing but its type differs."""
    direct = True
    while name not in constants:
        producer = producers.get(name)
        if producer is None or producer.op_type not in (*CONVERSIONS, "Constant"):
            return None, True
        if producer.op_type == "Constant":
            held = held_tensor(producer)
            if held is None:
                return None, True
            # What it holds is not asked.
            return TensorProto(name=name, data_type=held.data_type, dims=held.dims), direct
        direct = direct and producer.op_type == "DequantizeLinear"
        name = str(producer.input[0])
    return constants[name], direct


def float_layers(model: ModelProto) -> list[str]:
    """The names of the layers whose weights are in floats, or computed, in graph order."""
    return list(dict.fromkeys(layer.name for layer in placed_layers(model) if not layer.precision))
