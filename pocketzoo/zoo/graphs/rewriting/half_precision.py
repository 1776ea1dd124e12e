"""Convert a float32 graph to fp16 or bf16 where that is safe, as strongly typed networks need it.

What stays in float32: nodes whose constants or values half precision cannot hold, quantized layers whose scales would
lose bits, and operators that need the range (``TargetSpec.keeps_fp32``: normalization, softmax, sums) unless what was
seen of their values proves that they do not. Graphs inside nodes are converted with the rest. Inputs and outputs of
the graph keep their types. NVIDIA's AutoCast (Model Optimizer) and onnxconverter-common do the same by
lists of operators; here ONNX's own schemas say which types an operator takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

import ml_dtypes
import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, defs, numpy_helper, version_converter

from pocketzoo.core.errors import ExportError
from pocketzoo.core.renamed import renamed
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.graphs.fresh_names import FreshNames, defined_names, graphs, inner_graphs, nodes, rename
from pocketzoo.zoo.graphs.index import GraphIndex, opset_of
from pocketzoo.zoo.graphs.node import node_name

WORDS = {"fp16": "float16", "bf16": "bfloat16"}  # as a user writes them, and as ONNX does
KINDS = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
DTYPES: dict[str, npt.DTypeLike] = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}
LARGEST = {"fp16": 65504.0, "bf16": 3.3e38}
SMALLEST = {"fp16": 2.0**-14, "bf16": 1.2e-38}  # with all bits of the mantissa
BF16_OPSET, QDQ_OPSET = 22, 19
MARGIN = 2.0  # how many times a calibrated value may be exceeded on other data,
STEEP_MARGIN = 16.0  # and one of what grows faster than what it reads
STEEP = ("Exp", "Pow", "Reciprocal", "ReduceProd", "ReduceSumSquare", "ReduceLogSumExp")
SQUARES = ("LRN", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "LpNormalization", "LpPool",
           "MeanVarianceNormalization", "RMSNormalization", "ReduceL2", "ReduceSumSquare")  # fmt: skip
SUMS = ("CumSum", "ReduceL1", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceSum", *SQUARES)
# dB that the values of a tensor keep when they are rounded: 11 bits of mantissa leave 74, and 8 leave 56, unless many
# are too small.
LEAST_ROUNDING = {"fp16": 50.0, "bf16": 40.0}
QDQ = ("QuantizeLinear", "DequantizeLinear")
# What hands values on as they are, and with them values that half precision can hold.
PASSES = ("Cast", "Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Tile",
          "Transpose", "Unsqueeze", "Where")  # fmt: skip
Array = npt.NDArray[np.generic]


@renamed(kept="in_float32")
@dataclass(frozen=True, slots=True, kw_only=True)
class HalfPlan:
    """Which nodes change, by what they make; and which do not, with the reason."""

    precision: str
    nodes: tuple[str, ...] = ()
    in_float32: Mapping[str, str] = field(default_factory=dict)  # node -> why it stays in float32
    nodes_of_floats: tuple[str, ...] = ()  # of ``nodes`` those that make floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What samples show of a tensor."""

    largest: float  # magnitude
    rounding: float = np.inf  # dB of all its values against what they are rounded to
    size: int = 0  # how many values it has; 0: not known


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
    wide: set[str] = set()  # tensors that hold what 16 bits cannot
    for node in graph.nodes:
        reason = (float32 or {}).get(node_id(node), "") or _reason(node, graph, target, precision, known, wide)
        if reason:
            reasons[node_id(node)] = reason
    _keep_qdq_together(graph, reasons)
    changed = tuple(node_id(n) for n in graph.nodes if node_id(n) not in reasons)
    return HalfPlan(
        precision=precision,
        nodes=changed,
        nodes_of_floats=tuple(node_id(n) for n in graph.nodes if node_id(n) not in reasons and _makes_floats(n, graph)),
        in_float32={
            node_name(n): reasons[node_id(n)]
            for n in graph.nodes
            if node_id(n) in reasons and _makes_floats(n, graph) and not inner_graphs(n)
        },
    )


class FlatGraph:
    """The nodes of a graph and of those inside it in one list, where no two things are called the same."""

    def __init__(self, model: ModelProto) -> None:
        index = GraphIndex(model)
        self.opset = index.opset
        self.nodes = list(nodes(model.graph.node))
        self.types = index.types | {v.name: v.type.tensor_type.elem_type for v in index.values()}
        self.constants = {t.name: t for each in graphs(model.graph) for t in each.initializer}
        self.types |= {name: tensor.data_type for name, tensor in self.constants.items()}
        self.producers = {name: node for node in self.nodes for name in node.output if name}
        self.consumers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)


def distinct(model: ModelProto) -> ModelProto:
    """The graph with names of their own for what graphs inside nodes make; itself where they have them."""
    defined = Counter(name for graph in graphs(model.graph) for name in defined_names(graph))
    if all(count == 1 for count in defined.values()):
        return model
    copied = ModelProto()
    copied.CopyFrom(model)
    fresh, used = FreshNames.of(copied), set(defined_names(copied.graph))
    for graph in list(graphs(copied.graph))[1:]:
        own = {name for name in defined_names(graph) if name}
        names = {name: fresh(name) for name in sorted(own & used)}
        for each in graphs(graph):
            rename(each, names)
        used |= own
    return copied


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
        return version_converter.convert_version(model, needed)
    except Exception:  # the converter's own; it lacks some operators, and those stay in float32
        return model


def _reason(
    node: NodeProto,
    graph: FlatGraph,
    target: TargetSpec,
    precision: str,
    seen: Mapping[str, Seen],
    wide: set[str],
) -> str:
    """Why a node stays in float32; "" where it need not. Notes what it makes that is too wide."""
    if inner_graphs(node):
        return "it has graphs inside, which are converted on their own"
    if not _makes_floats(node, graph) and node.op_type != "QuantizeLinear":
        return "it outputs no floats"  # and computes in what it reads
    if not _fits(node, graph, precision):
        return f"ONNX has no {node.op_type} in {precision} in opset {graph.opset}"
    if node.op_type in QDQ:
        scale = _float_constant(graph, node.input[1])
        if precision != "fp16" or scale is None or float(np.abs(scale).min(initial=1.0)) < SMALLEST["fp16"]:
            return "its scale would lose bits"
    limit = LARGEST[precision]
    if too_wide := [n for n in node.input if n in wide]:
        if node.op_type in PASSES:
            wide.update(node.output)
        return f"it reads {too_wide[0]}, outside the range of {precision}"
    for name in node.input:
        if (constant := _float_constant(graph, name)) is None:
            continue
        finite = np.abs(constant[np.isfinite(constant)])
        most = float(finite.max(initial=0.0))
        if most > limit:
            wide.update(node.output if node.op_type in PASSES or node.op_type in ("Mul", "Sub") else ())
            return f"its constant {name} has values up to {most:.3g}"
        if constant.size == 1 and 0 < most < SMALLEST[precision]:
            return f"its constant {name} is {most:.3g}"
    margin = STEEP_MARGIN if node.op_type in STEEP else MARGIN
    for name in (*node.input, *node.output):
        if (each := seen.get(name)) is None:
            continue
        if each.largest * (margin if name in node.output else MARGIN) > limit:
            return f"{name} reached {each.largest:.3g}"
        if each.rounding < LEAST_ROUNDING[precision] and node.op_type not in PASSES:
            return f"{name} would keep {each.rounding:.0f} dB, as its values are small"
    if node.op_type in target.keeps_fp32 and not _proven(node, graph, precision, seen):
        return f"{node.op_type} needs the range"
    return ""


def _proven(node: NodeProto, graph: FlatGraph, precision: str, seen: Mapping[str, Seen]) -> bool:
    """Whether what was seen shows that no value inside an operator that needs the range leaves that of 16 bits.

    What it reads and makes is in range already. A sum is at most as large as its terms together.
    """
    if precision == "bf16":  # whose range is float32's; a sum of many has too few bits
        return node.op_type not in SUMS and all(name in seen for name in _floats(node, graph))
    names = [name for name in _floats(node, graph) if name not in graph.constants]
    if not names or any(name not in seen for name in names):
        return False
    if node.op_type not in SUMS:
        return True
    read, out = seen[names[0]], seen.get(node.output[0])
    if names[0] != node.input[0] or out is None or not read.size or not out.size:
        return False
    normal = node.op_type not in ("ReduceL1", "ReduceLogSum", "ReduceMean", "ReduceSum", "ReduceL2", "ReduceSumSquare",
                                  "ReduceLogSumExp")  # fmt: skip
    terms = read.size if normal else max(1, read.size // out.size)
    if node.op_type == "ReduceLogSumExp":
        return False
    term = read.largest**2 if node.op_type in SQUARES else read.largest
    return term * MARGIN * terms <= LARGEST[precision]


def _floats(node: NodeProto, graph: FlatGraph) -> list[str]:
    """The float tensors that a node reads and makes."""
    return [n for n in (*node.input, *node.output) if n and graph.types.get(n) == TensorProto.FLOAT]


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


def node_id(node: NodeProto) -> str:
    """What a node makes: names of nodes may be empty, or the same twice."""
    return next((str(name) for name in node.output if name), "")


def _makes_floats(node: NodeProto, graph: FlatGraph) -> bool:
    return any(graph.types.get(name) == TensorProto.FLOAT for name in node.output)


def _float_constant(graph: FlatGraph, name: str) -> npt.NDArray[np.float32] | None:
    tensor = graph.constants.get(name)
    if tensor is None or tensor.data_type != TensorProto.FLOAT:
        return None
    return numpy_helper.to_array(tensor)


@cache
def _schema(op: str, opset: int, domain: str) -> defs.OpSchema | None:
    try:
        return defs.get_schema(op, opset, domain)
    except defs.SchemaError:
        return None


def _parameters(
    names: Iterable[str], formal: list[defs.OpSchema.FormalParameter]
) -> list[tuple[int, defs.OpSchema.FormalParameter]]:
    """Which parameter of a schema each name is; the last of a schema may stand for many."""
    return [(i, formal[min(i, len(formal) - 1)]) for i, name in enumerate(names) if name and formal]


def _takes(schema: defs.OpSchema, precision: str) -> Callable[[defs.OpSchema.FormalParameter], bool]:
    """Whether a parameter may be of the 16-bit type."""
    tensor_type = f"tensor({WORDS[precision]})"
    allowed = _allowed(schema.name, schema.since_version, schema.domain)
    return lambda parameter: tensor_type in allowed.get(parameter.type_str, {parameter.type_str})


@cache
def _allowed(op: str, opset: int, domain: str) -> dict[str, frozenset[str]]:
    """The types that each type variable of an operator may be: read once, not for each node."""
    schema = defs.get_schema(op, opset, domain)
    return {c.type_param_str: frozenset(c.allowed_type_strs) for c in schema.type_constraints}


def _fits(node: NodeProto, graph: FlatGraph, precision: str) -> bool:
    """Whether ONNX defines the operator with all its float outputs in half precision."""
    schema = _schema(node.op_type, graph.opset, node.domain)
    if schema is None:
        return False
    takes = _takes(schema, precision)
    outputs = [p for i, p in _parameters(node.output, list(schema.outputs))
               if graph.types.get(node.output[i]) == TensorProto.FLOAT]  # fmt: skip
    return all(map(takes, outputs)) and (bool(outputs) or bool(convertible(node, graph, precision)))


def convertible(node: NodeProto, graph: FlatGraph, precision: str) -> set[int]:
    """The inputs that are floats and may be of 16 bits."""
    schema = _schema(node.op_type, graph.opset, node.domain)
    if schema is None or (node.op_type == "Cast"):
        return set()  # a Cast reads anything
    takes = _takes(schema, precision)
    floats = {i for i, name in enumerate(node.input) if graph.types.get(name) == TensorProto.FLOAT}
    return {i for i, p in _parameters(node.input, list(schema.inputs)) if i in floats and takes(p)}
