"""Count the parameters and multiply-accumulates of a graph once more, from the arrays of a run."""

from __future__ import annotations

from math import prod
from typing import Any

from onnx import ModelProto, NodeProto, helper, numpy_helper

COMPUTING = ("Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulInteger", "Einsum", "LSTM", "GRU", "RNN")
ONE_SIDED = ("Conv", "ConvTranspose")  # what they read first is data, also where it is constant
FLOW = ("If", "Loop", "Scan")


def recounted(model: ModelProto, values: dict[str, Any]) -> tuple[int, int] | None:
    """Parameters and multiply-accumulates; None of a graph with control flow. ``values``: every tensor of a run."""
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    known, counted, macs = {**values, **stored}, dict[str, int](), 0
    made = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type in FLOW:
            return None
        if node.op_type in COMPUTING:
            macs += _macs(node, known)
            for name in filter(None, _operands(node)):
                counted |= _leaves(name, stored, made, known) or {}
    return sum(counted.values()), macs


def _operands(node: NodeProto) -> list[str]:
    """What may be weights or biases."""
    if node.op_type in ("LSTM", "GRU", "RNN"):  # then come lengths and first states, and an LSTM's peepholes
        return [*node.input[1:4], *node.input[7:8]]
    if node.op_type == "MatMulInteger":
        return list(node.input[:2])
    return list(node.input[1:] if node.op_type in ONE_SIDED else node.input)


def _leaves(
    name: str, stored: dict[str, Any], made: dict[str, NodeProto], known: dict[str, Any]
) -> dict[str, int] | None:
    """The constants that a tensor is made of, and their sizes; None where it depends on an input.

    Axes and shapes are no such, nor are the steps of integers.
    """
    if name in stored or (name in made and made[name].op_type == "Constant"):
        array = known[name]
        return {name: array.size} if array.dtype.kind == "f" or array.dtype.itemsize in (1, 4) else {}
    if name not in made:
        return None
    of = made[name].input[:1] if made[name].op_type == "DequantizeLinear" else made[name].input
    parts = [_leaves(each, stored, made, known) for each in of if each]
    return None if None in parts else {key: size for part in parts for key, size in (part or {}).items()}


def _macs(node: NodeProto, known: dict[str, Any]) -> int:
    """Each product that is summed counts one."""
    first, second = (known[name].shape for name in node.input[:2])
    if node.op_type == "ConvTranspose":  # each value that is read meets the filters of its group
        return prod(first) * prod(second[1:])
    if node.op_type in ("LSTM", "GRU", "RNN"):
        return first[0] * first[1] * (prod(second) + known[node.input[2]].size)
    out = known[node.output[0]].size
    if node.op_type == "Conv":
        return out * prod(second[1:])
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Einsum":
        return _contracted(attributes["equation"].decode(), [known[name].shape for name in node.input])
    inner = first[0] if attributes.get("transA") else first[-1]
    return int(out * inner)


def _contracted(equation: str, shapes: list[tuple[int, ...]]) -> int:
    """Two operands at a time, from the left: all labels of both, where one of them is summed."""
    terms, _, result = equation.replace(" ", "").partition("->")
    labels = [list(term.replace("...", "")) for term in terms.split(",")]
    for i, (own, term) in enumerate(zip(labels, terms.split(","), strict=True)):
        if "..." in term:  # only ever at the front
            labels[i] = [str(n) for n in range(len(shapes[i]) - len(own))] + own
    lengths = {c: n for own, dims in zip(labels, shapes, strict=True) for c, n in zip(own, dims, strict=True)}
    every = [c for own in labels for c in own]
    kept = {c for c in lengths if (c in result if result else every.count(c) == 1) or c.isdigit()}
    total, joined = 0, set(labels[0])
    for i, own in enumerate(labels[1:], 1):
        joined |= set(own)
        left = joined & kept.union(*labels[i + 1 :])
        total += prod(lengths[c] for c in joined) if left < joined else 0
        joined = left
    return total
