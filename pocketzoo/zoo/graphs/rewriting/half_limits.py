"""Why a node has to stay in float32: what 16 bits cannot hold of its constants, or of the values that samples show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, defs

from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.graphs.fresh_names import inner_graphs
from pocketzoo.zoo.graphs.node import attribute
from pocketzoo.zoo.graphs.rewriting.flat_graph import FlatGraph, fits, float_constant, makes_floats

KINDS = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
DTYPES: dict[str, npt.DTypeLike] = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}
LARGEST = {"fp16": 65504.0, "bf16": 3.3e38}
SMALLEST = {"fp16": 2.0**-14, "bf16": 1.2e-38}  # with all bits of the mantissa
MARGIN = 2.0  # how many times a calibrated value may be exceeded on other data,
STEEP_MARGIN = 16.0  # and one of what grows faster than what it reads
STEEP = ("Exp", "Pow", "Reciprocal", "ReduceProd", "ReduceSumSquare", "ReduceLogSumExp")
SQUARES = ("LRN", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "LpNormalization", "LpPool",
           "MeanVarianceNormalization", "RMSNormalization", "ReduceL2", "ReduceSumSquare")  # fmt: skip
SUMS = ("CumSum", "ReduceL1", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceSum", *SQUARES)
STASHES = "stash_type"  # the attribute by which ONNX says in what a norm sums, whatever it reads
# dB that the values of a tensor keep when they are rounded: 11 bits of mantissa leave 74, and 8 leave 56, unless many
# are too small.
LEAST_ROUNDING = {"fp16": 50.0, "bf16": 40.0}
QDQ = ("QuantizeLinear", "DequantizeLinear")
# What hands values on as they are, and with them values that half precision can hold.
PASSES = ("Cast", "Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Tile",
          "Transpose", "Unsqueeze", "Where")  # fmt: skip
# What computes nothing of the values that it makes: they were there before, or are constants.
MOVES = ("Compress", "DepthToSpace", "GatherElements", "GatherND", "Pad", "ReverseSequence", "SpaceToDepth", "Split",
         "Trilu", *PASSES)  # fmt: skip
CONSTANTS = ("Constant", "ConstantOfShape", "EyeLike")
# What answers the same to all large values, and what takes infinity for one on the way there.
SATURATES = ("Erf", "HardSigmoid", "Sigmoid", "Tanh")
MONOTONE = ("Add", "Div", "Flatten", "Identity", "Mul", "Reshape", "Slice", "Split", "Squeeze", "Sub", "Transpose",
            "Unsqueeze")  # fmt: skip
# What asks how near to zero a value is, by the number of the operand; and what leaves small values small before it.
NEAR_ZERO = {"Div": 1, "Log": 0, "Pow": 0, "Reciprocal": 0, "Sqrt": 0}
LEAVES_SMALL = ("Abs", "Clip", "Max", "Mul", "Relu", *PASSES)
NARROW = 2.0**-6  # relative error of a least value, above which it is not that value any more
HIDDEN = 1e-4  # an error of a constant, by the largest value beside it, that nobody sees


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What samples show of a tensor."""

    largest: float  # magnitude
    rounding: float = np.inf  # dB of all its values against what they are rounded to
    size: int = 0  # how many values it has; 0: not known


@dataclass(slots=True)
class HalfLimits:
    """Says of the nodes of a graph, asked in their order, why they stay in float32."""

    graph: FlatGraph
    target: TargetSpec
    precision: str
    seen: Mapping[str, Seen]
    wide: set[str] = field(default_factory=set)  # tensors that hold what 16 bits cannot,
    infinite: set[str] = field(default_factory=set)  # that may be infinite in 16 bits, as only saturation comes of it,
    least: dict[str, float] = field(default_factory=dict)  # and the least value of those kept above zero by a constant

    def reason(self, node: NodeProto) -> str:
        """Why a node stays in float32; "" where it need not."""
        graph, precision = self.graph, self.precision
        if inner_graphs(node):
            return "it has graphs inside, which are converted on their own"
        if not makes_floats(node, graph) and node.op_type != "QuantizeLinear":
            return "it outputs no floats"  # and computes in what it reads
        if not fits(node, graph, precision):
            return f"ONNX has no {node.op_type} in {precision} in opset {graph.opset}"
        if node.op_type in self.target.lacks_kernels.get(precision, ()):
            return f"{self.target.name} has no kernels of {node.op_type} in {precision}"
        if node.op_type in QDQ:
            scale = float_constant(graph, node.input[1])
            if precision != "fp16" or scale is None or float(np.abs(scale).min(initial=1.0)) < SMALLEST["fp16"]:
                return "its scale would lose bits"
        if too_wide := [n for n in node.input if n in self.wide]:
            if node.op_type in PASSES:
                self.wide.update(node.output)
            return f"it reads {too_wide[0]}, outside the range of {precision}"
        reason = self._by_constants(node) or self._by_least(node) or self._by_values(node)
        if not reason and node.op_type in self.target.keeps_fp32 and not self._proven(node):
            return f"{node.op_type} needs the range"
        return reason

    def _by_constants(self, node: NodeProto) -> str:
        for name in node.input:
            if (constant := float_constant(self.graph, name)) is None:
                continue
            finite = np.abs(constant[np.isfinite(constant)])
            most = float(finite.max(initial=0.0))
            if most > LARGEST[self.precision]:
                passes = node.op_type in PASSES or node.op_type in ("Mul", "Sub")
                self.wide.update(node.output if passes else ())
                return f"its constant {name} has values up to {most:.3g}"
            if constant.size == 1 and 0 < most < SMALLEST[self.precision] and not self._hidden(node, float(most)):
                if node.op_type in ("Add", "Max", "Clip"):
                    self.least[node.output[0]] = most
                return f"its constant {name} is {most:.3g}"
        return ""

    def _hidden(self, node: NodeProto, constant: float) -> bool:
        """Whether nobody sees that a small constant is rounded: what it is added to is large, and not asked for 0."""
        out = self.seen.get(node.output[0])
        if node.op_type not in ("Add", "Sub") or out is None:
            return False
        return self._error(constant) <= HIDDEN * out.largest and not self._asked_for_zero(node)

    def _error(self, constant: float) -> float:
        return abs(constant - float(np.asarray(constant, np.float32).astype(DTYPES[self.precision])))

    def _asked_for_zero(self, node: NodeProto) -> bool:
        """Whether what reads a node, or hands it on, computes other things of a value the nearer to zero it is."""
        waiting, known = [node], set[str]()
        while waiting:
            for name in waiting.pop().output:
                for reader in self.graph.consumers.get(name, ()):
                    place = NEAR_ZERO.get(reader.op_type)
                    if place is not None and reader.input[place] == name:
                        return True
                    if reader.op_type in LEAVES_SMALL and reader.output[0] not in known:
                        known.add(reader.output[0])
                        waiting.append(reader)
        return False

    def _by_least(self, node: NodeProto) -> str:
        """Of a value that a small constant keeps above zero, and that would be zero or another in 16 bits."""
        for i, name in enumerate(node.input):
            if (least := self.least.get(name)) is None:
                continue
            lost = self._error(least) > NARROW * least
            if node.op_type in LEAVES_SMALL:
                self.least[node.output[0]] = least
                if lost and self._asked_for_zero(node):
                    return f"it hands on {name}, which may be {least:.3g}"
            elif NEAR_ZERO.get(node.op_type) == i and lost:
                if node.op_type == "Sqrt":
                    self.least[node.output[0]] = float(np.sqrt(least))
                return f"it reads {name}, which may be {least:.3g}"
            elif node.op_type == "Sqrt":
                self.least[node.output[0]] = float(np.sqrt(least))
        return ""

    def _by_values(self, node: NodeProto) -> str:
        limit = LARGEST[self.precision]
        margin = STEEP_MARGIN if node.op_type in STEEP else MARGIN
        for name in (*node.input, *node.output):
            if (each := self.seen.get(name)) is None or name in self.infinite:
                continue
            if each.largest * (margin if name in node.output else MARGIN) > limit:
                if name in node.output and self.precision == "fp16" and self._saturates(name):
                    self.infinite.add(name)
                    continue
                return f"{name} reached {each.largest:.3g}"
            if each.rounding < LEAST_ROUNDING[self.precision] and node.op_type not in PASSES:
                return f"{name} would keep {each.rounding:.0f} dB, as its values are small"
        return ""

    def _saturates(self, name: str) -> bool:
        """Whether all that comes of a tensor is what an operator answers to large values: infinity is one.

        On the way to it finite values are added, and constants multiply, so that infinity never meets its negative or
        zero, which would make no number of it.
        """
        readers = self.graph.consumers.get(name, ())
        if not readers or name in self.graph.outputs:
            return False
        for reader in readers:
            if reader.op_type in SATURATES:
                continue
            if reader.op_type not in MONOTONE or not fits(reader, self.graph, self.precision):
                return False
            if not all(other == name or self._finite(reader, other) for other in reader.input[1:]):
                return False
            if reader.op_type in ("Add", "Mul") and reader.input[0] != name:
                if not self._finite(reader, reader.input[0]):
                    return False
            elif reader.input[0] != name:  # it divides or is taken away
                return False
            if list(reader.input).count(name) > 1 or not all(self._saturates(out) for out in reader.output if out):
                return False
        return True

    def _finite(self, reader: NodeProto, name: str) -> bool:
        """Whether an operand beside one that may be infinite is in range, and no factor of zero."""
        limit = LARGEST[self.precision]
        constant = float_constant(self.graph, name)
        if reader.op_type in ("Mul", "Div"):
            return constant is not None and bool((np.abs(constant.astype(DTYPES[self.precision])) > 0).all())
        if constant is not None:
            return bool((np.abs(constant) < limit).all())
        if reader.op_type not in ("Add", "Sub"):  # a shape
            return self.graph.types.get(name) != TensorProto.FLOAT
        return (each := self.seen.get(name)) is not None and each.largest * MARGIN <= limit

    def _proven(self, node: NodeProto) -> bool:
        """Whether what was seen shows that no value inside an operator that needs the range leaves that of 16 bits.

        What it reads and makes is in range already. A sum is at most as large as its terms together; a norm that ONNX
        has sum in float32, whatever it reads, has none of 16 bits.
        """
        graph, seen, precision = self.graph, self.seen, self.precision
        sums = node.op_type in SUMS and not _stashed(node, graph)
        if precision == "bf16":  # whose range is float32's; a sum of many has too few bits
            return not sums and all(name in seen for name in self._floats(node))
        names = [name for name in self._floats(node) if name not in graph.constants]
        if not names or any(name not in seen for name in names):
            return False
        if not sums:
            return True
        read, out = seen[names[0]], seen.get(node.output[0])
        if names[0] != node.input[0] or out is None or not read.size or not out.size:
            return False
        normal = node.op_type not in ("ReduceL1", "ReduceLogSum", "ReduceMean", "ReduceSum", "ReduceL2",
                                      "ReduceSumSquare", "ReduceLogSumExp")  # fmt: skip
        terms = read.size if normal else max(1, read.size // out.size)
        if node.op_type == "ReduceLogSumExp":
            return False
        term = read.largest**2 if node.op_type in SQUARES else read.largest
        return term * MARGIN * terms <= LARGEST[precision]

    def _floats(self, node: NodeProto) -> list[str]:
        """The float tensors that a node reads and makes."""
        return [n for n in (*node.input, *node.output) if n and self.graph.types.get(n) == TensorProto.FLOAT]


def _stashed(node: NodeProto, graph: FlatGraph) -> bool:
    """Whether ONNX has a norm sum in float32, whatever it reads."""
    try:
        schema = defs.get_schema(node.op_type, graph.opset, node.domain)
    except defs.SchemaError:
        return False
    return STASHES in schema.attributes and attribute(node, STASHES, TensorProto.FLOAT) == TensorProto.FLOAT
