"""Count the parameters and multiply-accumulates of a graph once more, from the arrays of a run."""

from __future__ import annotations

from math import prod
from typing import Any

from onnx import ModelProto, NodeProto, helper, numpy_helper

COMPUTING = ("Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulInteger", "Einsum", "LSTM", "GRU", "RNN")
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
            for name in filter(None, node.input[:2] if node.op_type == "MatMulInteger" else node.input):
                counted |= _leaves(name, stored, made, known) or {}
    return sum(counted.values()), macs


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
        terms = attributes["equation"].decode().split("->")[0].split(",")
        pairs = zip(terms, (first, second), strict=True)
        return prod({c: n for term, dims in pairs for c, n in zip(term, dims, strict=True)}.values())
    inner = first[0] if attributes.get("transA") else first[-1]
    return int(out * inner)
