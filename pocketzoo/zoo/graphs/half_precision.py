"""Convert a float32 graph to fp16 or bf16 where that is safe, as strongly typed networks need it.

What stays in float32: operators that need the range (``TargetSpec.keeps_fp32``: normalization, softmax, sums), nodes
whose constants or calibrated values half precision can hold, and quantized layers whose scales would lose bits. Inputs
and outputs of the graph keep their types. NVIDIA's AutoCast (Model Optimizer) and onnxconverter-common do the same by
lists of operators; here ONNX's own schemas say which types an operator takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

import ml_dtypes
import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, defs, helper, numpy_helper, version_converter

from pocketzoo.core.errors import ExportError
from pocketzoo.core.renamed import renamed
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.graphs.fresh_names import FreshNames, captured, inner_graphs, read_names
from pocketzoo.zoo.graphs.index import GraphIndex, opset_of
from pocketzoo.zoo.graphs.node import node_name

WORDS = {"fp16": "float16", "bf16": "bfloat16"}  # as a user writes them, and as ONNX does
KINDS = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
DTYPES: dict[str, npt.DTypeLike] = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}
LARGEST = {"fp16": 65504.0, "bf16": 3.3e38}
SMALLEST = {"fp16": 2.0**-14, "bf16": 1.2e-38}  # with all bits of the mantissa
BF16_OPSET = 22
MARGIN = 2.0  # how many times a calibrated value may be exceeded on other data
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
    model: ModelProto, target: TargetSpec, precision: str, *, largest: Mapping[str, float] | None = None
) -> HalfPlan:
    """Decide which nodes compute in half precision.

    ``largest``: tensor -> the largest magnitude seen on samples, for what is known.

    Raises:
        ExportError: the target does not compute in ``precision``.
    """
    check_precision(precision, target)
    model = modern(model, precision, target)
    graph = GraphIndex(model)
    reasons: dict[str, str] = {}
    wide: set[str] = set()  # tensors that hold what 16 bits cannot
    for node in graph.nodes:
        reason = _reason(node, graph, target, precision, largest or {}, wide)
        if reason:
            reasons[_id(node)] = reason
    _keep_qdq_together(graph, reasons)
    changed = tuple(_id(n) for n in graph.nodes if _id(n) not in reasons)
    return HalfPlan(
        precision=precision,
        nodes=changed,
        in_float32={
            node_name(n): reasons[_id(n)] for n in graph.nodes if _id(n) in reasons and _makes_floats(n, graph)
        },
    )


def modern(model: ModelProto, precision: str, target: TargetSpec) -> ModelProto:
    """For bf16 the graph in the opset that brought it to convolutions, where the target reads that."""
    opset = opset_of(model)
    newest = target.newest_opset or BF16_OPSET
    if precision != "bf16" or opset >= BF16_OPSET or newest < BF16_OPSET:
        return model
    try:
        return version_converter.convert_version(model, BF16_OPSET)
    except Exception:  # the converter's own; it lacks some operators, and those stay in float32
        return model


def to_half(model: ModelProto, plan: HalfPlan) -> ModelProto:
    """The graph of a plan, which was made of the same graph, ``modern`` for its precision.

    A tensor that is made in half precision is called as before with the precision after it; where somebody reads it in
    32 bits, or outside, a Cast makes the one with the old name.
    """
    converted = _HalfWriter(model, plan).write()
    converted.graph.ClearField("value_info")
    return converted


def _reason(
    node: NodeProto,
    graph: GraphIndex,
    target: TargetSpec,
    precision: str,
    largest: Mapping[str, float],
    wide: set[str],
) -> str:
    """Why a node stays in float32; "" where it need not. Notes what it makes that is too wide."""
    if inner_graphs(node):
        return "it has subgraphs"
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
    for name in (*node.input, *node.output):
        if largest.get(name, 0.0) * MARGIN > limit:
            return f"{name} reached {largest[name]:.3g}"
    if node.op_type in target.keeps_fp32:
        return f"{node.op_type} needs the range"
    return ""


def _keep_qdq_together(graph: GraphIndex, reasons: dict[str, str]) -> None:
    """A layer and the DequantizeLinear before it become one kernel, and a Cast between them would prevent that."""
    open_ = list(graph.nodes)
    while open_:
        node = open_.pop()
        producers = [graph.producers[n] for n in node.input if n in graph.producers]
        if node.op_type == "QuantizeLinear":
            group = [node] if producers and _id(producers[0]) in reasons else []
        else:
            group = [m for m in producers if m.op_type == "DequantizeLinear"]
            group = [node, *group] if group and any(_id(n) in reasons for n in (node, *group)) else []
        for each in group:
            if _id(each) not in reasons:
                reasons[_id(each)] = "it is fused with nodes that stay in fp32"
                # Whoever reads what it makes may follow, and what it reads.
                open_ += [each, *(reader for name in each.output for reader in graph.consumers.get(name, ()))]


class _HalfWriter:
    """Writes the nodes anew, in order, with casts where two precisions meet."""

    def __init__(self, model: ModelProto, plan: HalfPlan) -> None:
        self.index = GraphIndex(model)
        self.model = ModelProto()
        self.model.CopyFrom(model)
        self.plan, self.changed = plan, set(plan.nodes)
        self.kind, self.suffix = KINDS[plan.precision], f"_{plan.precision}"
        self.fresh = FreshNames.of(model)
        self.nodes: list[NodeProto] = []
        self.low: dict[str, str] = {}  # tensors that are made in half precision: old name -> new name
        self.there: dict[str, str] = {}  # those that a Cast or a constant makes in half precision: old name -> new name
        self.back: set[str] = set()  # those that a Cast makes in float32 again

    def write(self) -> ModelProto:
        graph = self.model.graph
        outside = {o.name for o in graph.output}.union(*map(captured, graph.node))
        for original in graph.node:
            node = NodeProto()
            node.CopyFrom(original)
            low = _id(original) in self.changed
            takes = _convertible(original, self.index, self.plan.precision) if low else set()
            for i, name in enumerate(node.input):
                if i in takes:
                    node.input[i] = self._low(name)
                elif name in self.low:
                    node.input[i] = self._high(name)
            if low:
                self._change(node)
            self.nodes.append(node)
            for name in original.output:
                if name in self.low and name in outside:
                    self._high(name)
        del graph.node[:]
        graph.node.extend(self.nodes)
        read = read_names(graph)
        initializers = [t for t in graph.initializer if t.name in read]
        del graph.initializer[:]
        graph.initializer.extend(initializers)
        return self.model

    def _change(self, node: NodeProto) -> None:
        """Let a node compute in half precision: the names of what it makes, and types in its attributes."""
        for i, name in enumerate(node.output):
            if name and self.index.types.get(name) == TensorProto.FLOAT:
                node.output[i] = self.low[name] = self.fresh(name + self.suffix)
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype", "output_dtype") and attribute.i == TensorProto.FLOAT:
                attribute.i = self.kind
            elif attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
                attribute.t.CopyFrom(self._array(numpy_helper.to_array(attribute.t), attribute.t.name))

    def _low(self, name: str) -> str:
        """A tensor in half precision."""
        if low := self.low.get(name) or self.there.get(name):
            return low
        low = self.there[name] = self.fresh(name + self.suffix)
        if name in self.index.constants:
            array = numpy_helper.to_array(self.index.constants[name])
            self.model.graph.initializer.append(self._array(array, low))
        else:
            cast = self.fresh(f"{low}_cast")
            self.nodes.append(helper.make_node("Cast", [name], [low], name=cast, to=self.kind))
        return low

    def _high(self, name: str) -> str:
        """A tensor that is made in half precision, in 32."""
        if name not in self.back:
            self.back.add(name)
            low = self.low[name]
            cast = self.fresh(f"{low}_back")
            self.nodes.append(helper.make_node("Cast", [low], [name], name=cast, to=TensorProto.FLOAT))
        return name

    def _array(self, array: Array, name: str) -> TensorProto:
        limit = LARGEST[self.plan.precision]
        inside = np.where(np.isfinite(array), np.clip(array, -limit, limit), array)
        return numpy_helper.from_array(inside.astype(DTYPES[self.plan.precision]), name)


def _id(node: NodeProto) -> str:
    """What a node makes: names of nodes may be empty, or the same twice."""
    return next((str(name) for name in node.output if name), "")


def _makes_floats(node: NodeProto, graph: GraphIndex) -> bool:
    return any(graph.types.get(name) == TensorProto.FLOAT for name in node.output)


def _float_constant(graph: GraphIndex, name: str) -> npt.NDArray[np.float32] | None:
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


def _fits(node: NodeProto, graph: GraphIndex, precision: str) -> bool:
    """Whether ONNX defines the operator with all its float outputs in half precision."""
    schema = _schema(node.op_type, graph.opset, node.domain)
    if schema is None:
        return False
    takes = _takes(schema, precision)
    outputs = [p for i, p in _parameters(node.output, list(schema.outputs))
               if graph.types.get(node.output[i]) == TensorProto.FLOAT]  # fmt: skip
    return all(map(takes, outputs)) and (bool(outputs) or bool(_convertible(node, graph, precision)))


def _convertible(node: NodeProto, graph: GraphIndex, precision: str) -> set[int]:
    """The inputs that are floats and may be of 16 bits."""
    schema = _schema(node.op_type, graph.opset, node.domain)
    if schema is None or (node.op_type == "Cast"):
        return set()  # a Cast reads anything
    takes = _takes(schema, precision)
    floats = {i for i, name in enumerate(node.input) if graph.types.get(name) == TensorProto.FLOAT}
    return {i for i, p in _parameters(node.input, list(schema.inputs)) if i in floats and takes(p)}
