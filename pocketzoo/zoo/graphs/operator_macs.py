"""Multiply-accumulates of each operator that computes, from the dims of its operands and its output.

Counted is what multiplies and sums: convolutions, products of matrices, contractions, recurrent layers, attention; of
weights or of two activations. As is usual, padding is multiplied too, masked positions of an attention likewise. What
works on each element alone, pools, normalizes or resizes is not counted, nor are Fourier transforms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from onnx import NodeProto

from pocketzoo.zoo.graphs.fresh_names import STANDARD
from pocketzoo.zoo.graphs.node import attribute

Sizes = Sequence[int]
ONNXRUNTIME = "com.microsoft"
_SOUND_LIKE_IT = ("Attention", "MoE", "MatMul", "Gemm", "Conv", "LSTM", "GRU")
_ELEMENTWISE = ("ai.onnx.ml",)  # trees and encoders: nothing there multiplies matrices


class UnknownSizesError(Exception):
    """An operand or output has sizes that nobody knows."""


class Dims:
    """The dims of a node's operands and outputs, as far as they are known."""

    def __init__(self, inputs: Sequence[Sizes | None], outputs: Sequence[Sizes | None]) -> None:
        """None for an operand that is left out, or whose dims are not known."""
        self._inputs, self._outputs = inputs, outputs

    def __getitem__(self, place: int) -> Sizes:
        """Of an operand.

        Raises:
            UnknownSizesError: nobody knows them.
        """
        return _known(self._inputs, place)

    @property
    def out(self) -> Sizes:
        """Of the first output.

        Raises:
            UnknownSizesError: nobody knows them.
        """
        return _known(self._outputs, 0)

    def has(self, place: int) -> bool:
        """Whether the operand is given, and known."""
        return len(self._inputs) > place and self._inputs[place] is not None


def _known(dims: Sequence[Sizes | None], place: int) -> Sizes:
    found = dims[place] if len(dims) > place else None
    if found is None:
        raise UnknownSizesError
    return found


Formula = Callable[[NodeProto, Dims], int]


def macs(node: NodeProto, dims: Dims) -> int:
    """The multiply-accumulates of one run of a node that ``computes``.

    Raises:
        UnknownSizesError: sizes that it takes are not known.
        KeyError: there is no formula for the operator.
    """
    return _costs(node)[node.op_type].macs(node, dims)


def weights(node: NodeProto) -> list[str]:
    """The operands of a node that may be weights or biases, by name: not scales, zero points or states."""
    cost = _costs(node).get(node.op_type)
    places = range(len(node.input)) if cost is None or cost.weights is None else cost.weights
    return [node.input[place] for place in places if len(node.input) > place and node.input[place]]


def computes(node: NodeProto) -> bool:
    """Whether a node multiplies and sums, whatever its operands are; also where there is no formula for it."""
    if node.domain == ONNXRUNTIME:
        return node.op_type in _ONNXRUNTIME or any(word in node.op_type for word in _SOUND_LIKE_IT)
    return node.domain not in _ELEMENTWISE and (node.domain not in STANDARD or node.op_type in _STANDARD)


def _costs(node: NodeProto) -> dict[str, _Cost]:
    return _STANDARD if node.domain in STANDARD else _ONNXRUNTIME if node.domain == ONNXRUNTIME else {}


def _convolution(node: NodeProto, dims: Dims, weight: int = 1) -> int:
    """One element of the output takes all of the weight but its output channels."""
    return math.prod(dims.out) * math.prod(dims[weight][1:])


def _transposed_convolution(node: NodeProto, dims: Dims) -> int:
    """One element of the input goes to all of the weight but its input channels."""
    return math.prod(dims[0]) * math.prod(dims[1][1:])


def _product(node: NodeProto, dims: Dims, left: int = 0, right: int = 1) -> int:
    """One element of the output takes a row of the left operand."""
    a = dims[left]
    inner = a[-2] if attribute(node, "transA", 0) and len(a) > 1 else a[-1]
    return math.prod(dims.out) * inner


def _blocked_product(node: NodeProto, dims: Dims) -> int:
    """Of a weight of K x N that is stored in blocks of few bits."""
    return math.prod(dims[0][:-1]) * int(attribute(node, "K", 0)) * int(attribute(node, "N", 0))


def _recurrent(node: NodeProto, dims: Dims) -> int:
    """At each step of each sample both weights are used once, in each direction."""
    return math.prod(dims[0][:2]) * (math.prod(dims[1]) + math.prod(dims[2]))


def _contraction(node: NodeProto, dims: Dims) -> int:
    """Operands are multiplied from the left, two at a time, and summed over what nobody reads any more.

    What one operand alone has is summed before; a product that sums nothing is one of elements.
    """
    equation = attribute(node, "equation", b"").decode().replace(" ", "")
    terms, arrow, result = equation.partition("->")
    labels: list[list[str]] = []
    sizes: dict[str, int] = {}
    for place, term in enumerate(terms.split(",")):
        named = len(term.replace("...", ""))
        more = [f"...{i}" for i in range(len(dims[place]) - named, 0, -1)] if "..." in term else []
        before, _, after = term.partition("...")
        labels.append([*before, *more, *after])
        for label, size in zip(labels[-1], dims[place], strict=True):
            sizes[label] = max(size, sizes.get(label, 0)) if 0 not in (size, sizes.get(label)) else 0
    every = [label for term in labels for label in dict.fromkeys(term)]
    if arrow:
        kept = {label for label in every if label in result or ("..." in result and label.startswith("..."))}
    else:
        kept = {label for label in every if label.startswith("...") or terms.count(label) == 1}
    read = [{label for label in term if label in kept or every.count(label) > 1} for term in labels]
    total, product = 0, read[0]
    for place, term in enumerate(read[1:], 1):
        joined = product | term
        product = joined & kept.union(*read[place + 1 :])
        total += math.prod(sizes[label] for label in joined) if product < joined else 0
    return total


def _scores_and_sums(batch: int, queries: int, keys: int, width: int) -> int:
    """Of attention: ``width`` is that of a query and a value of all heads together."""
    return batch * queries * keys * width


def _attention(node: NodeProto, dims: Dims) -> int:
    """The standard's: (B, heads, T, size), or (B, T, heads x size)."""
    query, key, value = dims[0], dims[1], dims[2]
    past = dims[4][2] if dims.has(4) else 0
    if len(query) == 4:
        batch, heads, queries, size = query
        return _scores_and_sums(batch, queries, key[2] + past, heads * (size + value[3]))
    heads, groups = int(attribute(node, "q_num_heads", 1)), int(attribute(node, "kv_num_heads", 1))
    return _scores_and_sums(query[0], query[1], key[1] + past, query[2] + heads * (value[2] // groups))


def _packed_attention(node: NodeProto, dims: Dims, past: int) -> int:
    """onnxruntime's with the layer that makes queries, keys and values."""
    x, weight = dims[0], dims[1]
    batch, queries = x[:2]
    widths = list(attribute(node, "qkv_hidden_sizes", [])) or [weight[1] // 3] * 3
    keys = queries + (dims[past][3] if dims.has(past) else 0)
    return batch * queries * math.prod(weight) + _scores_and_sums(batch, queries, keys, widths[0] + widths[2])


def _multi_head_attention(node: NodeProto, dims: Dims) -> int:
    query = dims[0]
    if len(query) == 5:  # queries, keys and values in one: (B, T, heads, 3, size)
        return _scores_and_sums(query[0], query[1], query[1], 2 * query[2] * query[4])
    past = dims[6][2] if dims.has(6) else 0
    key = dims[1]
    if len(key) == 5:  # keys and values in one
        return _scores_and_sums(query[0], query[1], key[1], 2 * query[2])
    keys = key[2] if len(key) == 4 else key[1] + past
    value = dims[2]
    return _scores_and_sums(query[0], query[1], keys, query[2] + (value[1] * value[3] if len(value) == 4 else value[2]))


def _grouped_query_attention(node: NodeProto, dims: Dims) -> int:
    query = dims[0]
    heads, groups = int(attribute(node, "num_heads", 1)), int(attribute(node, "kv_num_heads", 1))
    width = query[2] if dims.has(1) else query[2] * heads // (heads + 2 * groups)
    past = dims[3][2] if dims.has(3) else 0
    return _scores_and_sums(query[0], query[1], query[1] + past, 2 * width)


@dataclass(frozen=True, slots=True)
class _Cost:
    macs: Formula
    weights: tuple[int, ...] | None = None  # the operands that may be weights or biases; None: all


_CONVOLUTION = _Cost(_convolution, (1, 2))
_TRANSPOSED = _Cost(_transposed_convolution, (1, 2))
_PRODUCT = _Cost(_product, (0, 1, 2))
_RECURRENT = _Cost(_recurrent, (1, 2, 3, 7))
_LATER_WEIGHT = _Cost(partial(_convolution, weight=3), (3, 8))  # scale and zero point come first
_BLOCKS = _Cost(_blocked_product, (1,))
_STANDARD: dict[str, _Cost] = {
    "Conv": _CONVOLUTION,
    "ConvInteger": _Cost(_convolution, (1,)),
    "QLinearConv": _LATER_WEIGHT,
    "DeformConv": _Cost(_convolution, (1, 3)),
    "ConvTranspose": _TRANSPOSED,
    "Gemm": _PRODUCT,
    "MatMul": _PRODUCT,
    "MatMulInteger": _Cost(_product, (0, 1)),
    "QLinearMatMul": _Cost(partial(_product, right=3), (0, 3)),
    "Einsum": _Cost(_contraction),
    "GRU": _RECURRENT,
    "LSTM": _RECURRENT,
    "RNN": _RECURRENT,
    "Attention": _Cost(_attention, (0, 1, 2)),
}
_ONNXRUNTIME: dict[str, _Cost] = {
    **dict.fromkeys(["FusedConv", "NhwcConv", "NhwcFusedConv"], _CONVOLUTION),
    "QLinearConv": _LATER_WEIGHT,
    "ConvTransposeWithDynamicPads": _Cost(_transposed_convolution, (1, 3)),
    **dict.fromkeys(["FusedMatMul", "FusedMatMulActivation", "FusedGemm", "TransposeMatMul"], _PRODUCT),
    "MatMulIntegerToFloat": _Cost(_product, (0, 1, 6)),
    "MatMulInteger16": _Cost(_product, (0, 1)),
    "DynamicQuantizeMatMul": _Cost(_product, (1, 4)),
    "QGemm": _Cost(partial(_product, right=3), (3, 6)),
    **dict.fromkeys(["MatMulNBits", "MatMulBnb4"], _BLOCKS),
    "DynamicQuantizeLSTM": _RECURRENT,
    "Attention": _Cost(partial(_packed_attention, past=4), (1, 2)),
    "QAttention": _Cost(partial(_packed_attention, past=8), (1, 2)),
    "MultiHeadAttention": _Cost(_multi_head_attention, (3,)),
    "GroupQueryAttention": _Cost(_grouped_query_attention, ()),
}
