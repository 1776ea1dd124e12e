"""Rules that find what a target rejects or runs slowly, from the graph alone.

Sources: those of ``plugins/targets.py``; NVIDIA's "Deep Learning Performance" guides for alignment (tensor cores take
multiples of 8 values in half precision and of 16 in int8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx
from onnx import TensorProto

from pocketzoo.zoo.catalog.backend import TargetFinding
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.node import node_name

KINDS = {
    "fp16": (TensorProto.FLOAT16,),
    "bf16": (TensorProto.BFLOAT16,),
    "fp8": (TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2),
}
TEXT = (TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128)


Rule = Callable[[GraphIndex, TargetSpec], Iterator[TargetFinding]]


def _opset(graph: GraphIndex, target: TargetSpec) -> Iterator[TargetFinding]:
    if target.newest_opset and graph.opset > target.newest_opset:
        yield TargetFinding(
            level="refused",
            what=f"the graph is in opset {graph.opset}, {target.name} reads up to {target.newest_opset}",
            todo=f"export it with opset {target.opset}",
        )


def _operators(graph: GraphIndex, target: TargetSpec) -> Iterator[TargetFinding]:
    names: dict[tuple[str, str], list[str]] = {}
    for node in graph.nodes:
        domain = "" if node.domain == "ai.onnx" else node.domain
        names.setdefault((domain, node.op_type), []).append(node_name(node))
    for (domain, op), nodes in names.items():
        if domain not in target.domains:
            what = f"{target.name} does not know {domain}.{op}"
            todo = "write it in ONNX's own operators"
            yield TargetFinding(level="refused", what=what, todo=todo, nodes=tuple(nodes))
        elif domain == "" and op in target.refuses:
            what = f"{target.name} has no {op}"
            yield TargetFinding(level="refused", what=what, todo=target.refuses[op], nodes=tuple(nodes))
        elif domain == "" and op in target.slow:
            what = f"{target.name} runs {op} slowly"
            yield TargetFinding(level="slow", what=what, todo=target.slow[op], nodes=tuple(nodes))


def _types(graph: GraphIndex, target: TargetSpec) -> Iterator[TargetFinding]:
    if target.device != "gpu":
        return
    odd = {n: t for n, t in graph.types.items() if t in TEXT}
    if odd:
        types = ", ".join(sorted({TensorProto.DataType.Name(t).lower() for t in odd.values()}))
        yield TargetFinding(
            level="refused",
            what=f"{target.name} has no tensors of {types}",
            todo="move what needs them out of the graph",
            nodes=tuple(_producer(graph, n) for n in odd),
        )
    double = [n for n, t in graph.types.items() if t == TensorProto.DOUBLE]
    if double:
        yield TargetFinding(
            level="slow",
            what=f"{len(double)} float64 tensors: this kind of GPU is slow in float64, and NVIDIA's parser rounds them",
            todo="export the model in float32",
            nodes=tuple(_producer(graph, n) for n in double),
        )


def _producer(graph: GraphIndex, tensor: str) -> str:
    """The name of the node that outputs a tensor; the tensor's own where none does."""
    return node_name(graph.producers[tensor]) if tensor in graph.producers else tensor


def _precisions(graph: GraphIndex, target: TargetSpec) -> Iterator[TargetFinding]:
    """Types of 16 and 8 bits that the target does not compute in."""
    for name, types in KINDS.items():
        tensors = [n for n, t in graph.types.items() if t in types]
        if tensors and name not in target.precisions:
            yield TargetFinding(
                level="slow" if name == "fp16" else "refused",
                what=f"{len(tensors)} tensors in {name}, and {target.name} computes in {', '.join(target.precisions)}",
                todo="export the model again with another --precision, or for another target",
            )


def _encoding(graph: GraphIndex, target: TargetSpec) -> Iterator[TargetFinding]:
    """Whether the Q/DQ nodes are written as the target reads them."""
    uneven, wide = [], []
    for node in graph.nodes:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        zero = graph.constants.get(node.input[2]) if len(node.input) > 2 else None
        if zero is not None and onnx.numpy_helper.to_array(zero).any():
            uneven.append(node_name(node))
        if node.op_type == "DequantizeLinear" and graph.types.get(node.input[0]) == TensorProto.INT32:
            wide.append(node_name(node))
    todo = f"compress the model for it: --target {target.name}"
    if target.int8.symmetric and uneven:
        what = f"zero points that are not 0: {target.name} takes symmetric int8 only"
        yield TargetFinding(
            level="refused" if target.int8.required else "slow", what=what, todo=todo, nodes=tuple(uneven)
        )
    if not target.int8.int32_bias and wide and target.int8.required:
        what = f"biases in int32: {target.name} has no such DequantizeLinear"
        yield TargetFinding(level="refused", what=what, todo=todo, nodes=tuple(wide))


def _float_layers(graph: GraphIndex, target: TargetSpec) -> Iterator[TargetFinding]:
    """Layers of an int8 graph that were left in float. Next to fp8 they run in half precision, for want of kernels."""
    layers = list(graph.layers())
    kinds = {graph.quantized(node) for node, *_ in layers}
    left = [node_name(node) for node, *_ in layers if not graph.quantized(node)]
    if left and "int8" in kinds and "int8" in target.precisions:
        yield TargetFinding(
            level="slow",
            what=f"{len(left)} of {len(layers)} layers are not in int8, with conversions to float and back around them",
            todo="see the plan for why: pocketzoo info BUNDLE --json; or run them in fp16: --precision fp16",
            nodes=tuple(left),
        )


def _alignment(graph: GraphIndex, target: TargetSpec) -> Iterator[TargetFinding]:
    """Sizes that fall off tensor cores: they are filled up with zeros, which cost what numbers cost."""
    if target.device != "gpu":
        return
    odd, deep = [], []
    for node, inputs, outputs, groups in graph.layers():
        multiple = target.channel_multiple if graph.quantized(node) else target.half_multiple
        if groups > 1:
            if inputs // groups < target.half_multiple:
                deep.append(node_name(node))
        elif inputs % multiple or outputs % multiple:
            odd.append(f"{node_name(node)} ({inputs} to {outputs})")
    if odd:
        sizes = f"{target.half_multiple} (16 bits) or {target.channel_multiple} (8 bits)"
        what = f"channels that are not multiples of {sizes}"
        todo = "prune for this target, which keeps multiples; ignore it for the first and last layer"
        yield TargetFinding(level="slow", what=what, todo=todo, nodes=tuple(odd))
    if deep:
        what = "depthwise convolutions: bound by memory, tensor cores do not help"
        todo = "measure with and without int8; a model with plain convolutions may be as fast"
        yield TargetFinding(level="note", what=what, todo=todo, nodes=tuple(deep))


RULES: tuple[Rule, ...] = (_opset, _operators, _types, _precisions, _encoding, _float_layers, _alignment)
