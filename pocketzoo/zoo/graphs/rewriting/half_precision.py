"""Convert a float32 graph to fp16 or bf16 where that is safe, as strongly typed networks need it.

What stays in float32: nodes whose constants or values half precision cannot hold, quantized layers whose scales would
lose bits, and operators that need the range (``TargetSpec.keeps_fp32``: normalization, softmax, sums) unless what was
seen of their values proves that they do not. Graphs inside nodes are converted with the rest. Inputs and outputs of
the graph keep their types. NVIDIA's AutoCast (Model Optimizer) and onnxconverter-common do the same by
lists of operators; here ONNX's own schemas say which types an operator takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from onnx import ModelProto, NodeProto, version_converter

from pocketzoo.core.errors import ExportError
from pocketzoo.core.renamed import renamed
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.graphs.files.graph_files import changed
from pocketzoo.zoo.graphs.fresh_names import inner_graphs
from pocketzoo.zoo.graphs.index import opset_of
from pocketzoo.zoo.graphs.node import node_name
from pocketzoo.zoo.graphs.rewriting.flat_graph import FlatGraph, distinct, makes_floats, node_id
from pocketzoo.zoo.graphs.rewriting.half_limits import CONSTANTS, MOVES, QDQ, HalfLimits, Seen

BF16_OPSET, QDQ_OPSET = 22, 19


@renamed(kept="in_float32")
@dataclass(frozen=True, slots=True, kw_only=True)
class HalfPlan:
    """Which nodes change, by what they make; and which do not, with the reason."""

    precision: str
    nodes: tuple[str, ...] = ()
    in_float32: Mapping[str, str] = field(default_factory=dict)  # node -> why it stays in float32
    nodes_of_floats: tuple[str, ...] = ()  # of ``nodes`` those that make floats,
    computing: tuple[str, ...] = ()  # of those all that do not only move values,
    computing_in_float32: tuple[str, ...] = ()  # and of ``in_float32``


def check_precision(precision: str, target: TargetSpec) -> None:
    """Raises:
    ExportError: the target does not compute in it, or no graph can be written in it.
    """
    if precision not in target.precisions or (precision == "fp8" and target.fp8 is None):
        raise ExportError(
            f"{target.name} does not compute in {precision}", f"it does in: {', '.join(target.precisions)}"
        )
    if precision == "int8":
        raise ExportError("a graph cannot be converted to int8", "compress with --int8")


def plan_half(
    model: ModelProto,
    target: TargetSpec,
    precision: str,
    *,
    largest: Mapping[str, float] | None = None,
    seen: Mapping[str, Seen] | None = None,
    float32: Mapping[str, str] | None = None,
) -> HalfPlan:
    """Decide which nodes compute in half precision, in the graphs inside nodes too.

    ``seen``: tensor -> what samples show of it, for what is known; ``largest`` says the magnitude alone. Of graphs
    inside nodes the names are those of ``distinct``. ``float32``: what a node makes -> why it is to stay.

    Raises:
        ExportError: the target does not compute in ``precision``.
    """
    check_precision(precision, target)
    graph = FlatGraph(distinct(modern(model, precision, target)))
    known = {name: Seen(largest=most) for name, most in (largest or {}).items()} | dict(seen or {})
    reasons: dict[str, str] = {}
    limits = HalfLimits(graph, target, precision, known)
    for node in graph.nodes:
        reason = (float32 or {}).get(node_id(node), "") or limits.reason(node)
        if reason:
            reasons[node_id(node)] = reason
    _keep_qdq_together(graph, reasons)
    changed = tuple(node_id(n) for n in graph.nodes if node_id(n) not in reasons)
    floats = [n for n in graph.nodes if makes_floats(n, graph)]
    low = [n for n in floats if node_id(n) not in reasons]
    high = [n for n in floats if node_id(n) in reasons and not inner_graphs(n)]
    return HalfPlan(
        precision=precision,
        nodes=changed,
        nodes_of_floats=tuple(node_id(n) for n in low),
        computing=tuple(node_id(n) for n in low if _computes(n)),
        in_float32={node_name(n): reasons[node_id(n)] for n in high},
        computing_in_float32=tuple(node_name(n) for n in high if _computes(n)),
    )


def _computes(node: NodeProto) -> bool:
    return node.op_type not in (*MOVES, *CONSTANTS, *QDQ)


def modern(model: ModelProto, precision: str, target: TargetSpec) -> ModelProto:
    """The graph in the opset that brought the precision to its operators, where the target reads that.

    To convolutions bf16 came with 22; to Q/DQ nodes fp16 came with 19.
    """
    needed = BF16_OPSET if precision == "bf16" else QDQ_OPSET
    if precision != "bf16" and not any(node.op_type in QDQ for node in model.graph.node):
        return model
    if opset_of(model) >= needed or (target.newest_opset or needed) < needed:
        return model
    try:
        return changed(model, partial(version_converter.convert_version, target_version=needed))
    except Exception:  # the converter's own; it lacks some operators, and those stay in float32
        return model


def _keep_qdq_together(graph: FlatGraph, reasons: dict[str, str]) -> None:
    """A layer and the DequantizeLinear before it become one kernel, and a Cast between them would prevent that."""
    open_ = list(graph.nodes)
    while open_:
        node = open_.pop()
        producers = [graph.producers[n] for n in node.input if n in graph.producers]
        if node.op_type == "QuantizeLinear":
            group = [node] if producers and node_id(producers[0]) in reasons else []
        else:
            group = [m for m in producers if m.op_type == "DequantizeLinear"]
            group = [node, *group] if group and any(node_id(n) in reasons for n in (node, *group)) else []
        for each in group:
            if node_id(each) not in reasons:
                reasons[node_id(each)] = "it is fused with nodes that stay in fp32"
                # Whoever reads what it makes may follow, and what it reads.
                open_ += [each, *(reader for name in each.output for reader in graph.consumers.get(name, ()))]
