"""The ONNX operators that have weights: where these are, along which axes, and their 8-bit form.

What they multiply is in ``operator_macs``, with that of those that need no weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from onnx import NodeProto

from pocketzoo.zoo.graphs.fresh_names import STANDARD
from pocketzoo.zoo.graphs.node import attribute

Kind = Literal["convolution", "product", "contraction", "recurrent", "lookup"]
Form = Literal["", "Q/DQ", "integers", "rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """An operator of the standard. Inputs are counted from 0; axes are those of the weight, from the end if negative.

    The operand that is a weight in one node may be computed in another where ``computed`` is true: then the node
    multiplies two activations, and is no layer.
    """

    kind: Kind
    weights: tuple[int, ...] = ()  # inputs that may be the weight, the usual one first; () is any of them
    computed: bool = False
    bias: int | None = None  # input
    axes: tuple[int, int] = (0, 1)  # of the input channels (of one group, in a convolution), and of the output channels
    transposed_by: str = ""  # the attribute that swaps them
    rank: int = 0  # that a weight must have at the least for the 8-bit form
    # "Q/DQ": a DequantizeLinear makes the weight, with one scale per output channel; "integers": it reads integers;
    # "rows": rows are read as integers, with one scale each; "": none is written, and it stays in floats.
    form: Form = ""
    dynamic: str = ""  # the operator that takes its place where activations are quantized dynamically
    quantizes_output: bool = True  # its 8-bit kernels give 8 bits; else floats


OPERATORS: dict[str, Operator] = {
    "Conv": Operator(kind="convolution", weights=(1,), bias=2, axes=(1, 0), form="Q/DQ"),
    "ConvTranspose": Operator(kind="convolution", weights=(1,), bias=2, axes=(0, 1)),
    "Gemm": Operator(
        kind="product", weights=(1, 0), computed=True, bias=2, axes=(-2, -1), transposed_by="transB",
        form="Q/DQ", quantizes_output=False,
    ),
    "MatMul": Operator(
        kind="product", weights=(1, 0), computed=True, axes=(-2, -1), rank=2, form="Q/DQ",
        dynamic="MatMulInteger", quantizes_output=False,
    ),
    "MatMulInteger": Operator(kind="product", weights=(1,), axes=(-2, -1), form="integers"),
    "Einsum": Operator(kind="contraction", computed=True),
    "GRU": Operator(kind="recurrent", weights=(1, 2), bias=3),  # of the inputs, and of the state; (D, gates x H, I)
    "LSTM": Operator(kind="recurrent", weights=(1, 2), bias=3),
    "RNN": Operator(kind="recurrent", weights=(1, 2), bias=3),
    "Gather": Operator(kind="lookup", weights=(0,), form="rows"),  # of whole rows: an embedding
}  # fmt: skip
QUANTIZABLE = tuple(name for name, operator in OPERATORS.items() if operator.form == "Q/DQ")
# What a module's layer with one weight becomes, as floats.
LAYERS = tuple(
    name for name, operator in OPERATORS.items()
    if operator.kind in ("convolution", "product") and operator.form != "integers"
)  # fmt: skip
RECURRENT = tuple(name for name, operator in OPERATORS.items() if operator.kind == "recurrent")


def operator_of(node: NodeProto) -> Operator | None:
    """The table's row of a node; None for one without weights, or of another domain."""
    return OPERATORS.get(node.op_type) if node.domain in STANDARD else None


def is_quantizable(node: NodeProto) -> bool:
    """Whether a node's operator has an 8-bit form as Q/DQ nodes, whatever its weight is."""
    return node.op_type in QUANTIZABLE and node.domain in STANDARD


def weight_axes(node: NodeProto, rank: int = 2) -> tuple[int, int]:
    """The axes of the input and of the output channels in a weight of ``rank`` axes that a layer's node reads."""
    operator = OPERATORS[node.op_type]
    inputs, outputs = (axis % rank for axis in operator.axes)
    if operator.transposed_by and attribute(node, operator.transposed_by, 0):
        return outputs, inputs
    return inputs, outputs


def out_axis(node: NodeProto, rank: int = 2) -> int:
    """The axis of a layer's weight that holds its output channels."""
    return weight_axes(node, rank)[1]


def channels(node: NodeProto, weight: Sequence[int]) -> tuple[int, int, int]:
    """A layer's channels in and out, and its groups, from the dims of its weight."""
    inputs, outputs = weight_axes(node, len(weight))
    groups = int(attribute(node, "group", 1)) if OPERATORS[node.op_type].kind == "convolution" else 1
    return weight[inputs] * groups, weight[outputs], groups


def runs_layer(operator: str) -> bool:
    """Whether a runtime's operator is one of ``QUANTIZABLE``, or made of one: QLinearConv, FusedMatMul."""
    return any(name in operator for name in QUANTIZABLE)
