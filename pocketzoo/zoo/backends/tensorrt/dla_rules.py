"""Which nodes fall back from NVIDIA's deep learning accelerator (DLA) to the GPU. Sources: ``plugins/targets.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from onnx import NodeProto, TensorProto

from pocketzoo.zoo.backends.tensorrt.facts import NvidiaFacts
from pocketzoo.zoo.catalog.backend import TargetFinding
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.node import attribute, node_name
from pocketzoo.zoo.graphs.operators import operator_of

Rule = Callable[[GraphIndex, TargetSpec], Iterator[TargetFinding]]
LACKS = "DLA has no "


def _dla_shapes(graph: GraphIndex, target: TargetSpec) -> Iterator[TargetFinding]:
    axes = sorted({str(d) for name in graph.inputs for d in graph.shapes.get(name, []) if isinstance(d, str)})
    if axes:
        yield TargetFinding(
            level="slow",
            what=f"dynamic axes ({', '.join(axes)}): DLA needs static shapes, so this graph does not run on it",
            todo=" ".join(f"--shape {axis}={8 if axis == 'batch' else 128}" for axis in axes),
        )


def _dla_types(graph: GraphIndex, target: TargetSpec) -> Iterator[TargetFinding]:
    if TensorProto.FLOAT16 not in graph.types.values():
        yield TargetFinding(
            level="slow",
            what="the graph is float32 and DLA runs fp16: all of it would fall back to the GPU",
            todo="export it with --precision fp16",
        )


def _dla_layers(graph: GraphIndex, target: TargetSpec) -> Iterator[TargetFinding]:
    """What falls back to the GPU, by reason."""
    reasons: dict[str, list[str]] = {}
    for node in graph.nodes:
        if reason := off_dla(node, graph, target):
            lacks = reason.startswith(LACKS)
            reasons.setdefault(LACKS if lacks else reason, []).append(f"{node_name(node)} ({node.op_type})")
    for reason, nodes in reasons.items():
        yield TargetFinding(
            level="slow",
            what=f"runs on the GPU, not on DLA: {reason.strip()}{' such operators' * (reason == LACKS)}",
            todo="each switch between DLA and GPU copies data; keep DLA's nodes together, or build without --dla",
            nodes=tuple(nodes),
        )


def off_dla(node: NodeProto, graph: GraphIndex, target: TargetSpec) -> str:
    """Why a node cannot run on the target's DLA; "" where it can."""
    limits = target.facts.dla if isinstance(target.facts, NvidiaFacts) else None
    if limits is None:
        return "there is none"
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return "Q/DQ nodes (DLA of TensorRT 10 takes int8 scales only from outside the graph)"
    if node.op_type not in limits.operators:
        return f"{LACKS}{node.op_type}"
    shape = graph.shapes.get(node.output[0], [])
    if any(isinstance(d, int) and d > limits.size for d in shape[1:]):
        return f"an axis is longer than {limits.size}"
    operator = operator_of(node)
    if operator is not None and operator.kind == "product" and graph.weight(node.input[1]) is None:
        return "a product of two activations"
    if node.op_type in ("Conv", "ConvTranspose", "AveragePool", "MaxPool"):
        kernel = list(attribute(node, "kernel_shape", []))
        weight = graph.weight(node.input[1]) if operator is not None else None
        kernel = kernel or (list(weight.dims[2:]) if weight is not None else [])
        if len(kernel) != 2:
            return "it is not 2-D"
        pools = operator is None
        longest, widest = (limits.window, limits.window_stride) if pools else (limits.kernel, limits.stride)
        if max(kernel) > longest:
            return f"its window is larger than {longest}"
        if max(attribute(node, "strides", [1])) > widest:
            return f"its stride is larger than {widest}"
        if weight is not None and max(weight.dims[:2]) > limits.channels:
            return f"more than {limits.channels} channels"
        if node.op_type == "ConvTranspose" and attribute(node, "group", 1) > 1:
            return "a grouped deconvolution"
    return ""


DLA_RULES: tuple[Rule, ...] = (_dla_shapes, _dla_types, _dla_layers)
