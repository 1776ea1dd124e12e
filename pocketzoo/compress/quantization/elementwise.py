"""Operators without weights between int8 layers: which a runtime has 8-bit kernels for, and hard gates as one operator.

A gate that saturates, HardSigmoid(x) = clip(a x + b, 0, 1) and HardSwish(x) = x HardSigmoid(x) (Howard et al. 2019,
arXiv:1905.02244, section 5.2), is written by exporters in up to four operators, and no runtime has an 8-bit kernel for
the first. In whole numbers it is an addition: x + b / a saturates at 0 and at 1 / a by itself where these are the ends
of its range, and the same levels read with a times their step are the gate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, helper, numpy_helper

from pocketzoo.compress.plans import Range
from pocketzoo.compress.statistics.histogram import Histogram
from pocketzoo.zoo.graphs.contents import replace_nodes
from pocketzoo.zoo.graphs.fresh_names import STANDARD, FreshNames
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.node import attribute
from pocketzoo.zoo.graphs.operators import operator_of

Floats = npt.NDArray[np.float64]

STEPS = 255  # of a range
LIKE = 2.0  # a part with less than half of the range of all loses a bit or more
KEPT = np.linspace(1.0, 0.05, 39)  # of what lies below zero, that is tried
GATE = "HardSigmoid"
NO_GATES = 22  # opset that onnxruntime 1.31 has no kernel of HardSigmoid from on
BOUNDED = {GATE, "Sigmoid", "Softmax"}  # between 0 and 1, whatever they read
UNARY = {*BOUNDED, "LeakyRelu"}


@dataclass(frozen=True, slots=True)
class Gate:
    """clip(slope x + offset, 0, 1)."""

    slope: float
    offset: float

    @classmethod
    def of(cls, node: NodeProto) -> Gate:
        return cls(float(attribute(node, "alpha", 0.2)), float(attribute(node, "beta", 0.5)))


def unit_range() -> Range:
    """Of an operator that is ``BOUNDED``."""
    return Range(low=0.0, high=1.0, magnitude=1.0)


def gated(index: GraphIndex) -> dict[str, Callable[[Floats], Floats]]:
    """The tensors that only x f(x) is made of, by a gate f, and that function."""
    found: dict[str, Callable[[Floats], Floats]] = {}
    for node in index.nodes:
        if node.op_type in (GATE, "Sigmoid") and node.domain in STANDARD and index.has_one_consumer(node.output[0]):
            read, product = node.input[0], index.consumers[node.output[0]][0]
            readers = [reader.output[0] for reader in index.consumers[read]]
            if (
                product.op_type == "Mul"
                and sorted(readers) == sorted((node.output[0], product.output[0]))
                and read not in index.outputs
            ):
                found[read] = partial(_times_hard, gate=Gate.of(node)) if node.op_type == GATE else _times_sigmoid
    return found


def _times_hard(x: Floats, gate: Gate) -> Floats:
    return x * np.clip(gate.slope * x + gate.offset, 0.0, 1.0)


def _times_sigmoid(x: Floats) -> Floats:
    return x / (1.0 + np.exp(-np.maximum(x, -60.0)))


def cut_below(histogram: Histogram, range_: Range, function: Callable[[Floats], Floats]) -> Range:
    """The range whose lower end leaves the least squared error after ``function``, of those up to zero.

    What x f(x) makes of values far below zero is next to nothing, and steps spent there are lost on the others.
    """
    used = histogram.counts > 0
    centers, counts = histogram.centers[used], histogram.counts[used]
    if range_.low >= 0.0 or range_.high <= 0.0 or not len(counts):
        return range_
    exact = function(centers)

    def error(low: float) -> float:
        step = (range_.high - low) / STEPS
        zero = np.round(-low / step)
        levels = np.clip(np.round(centers / step) + zero, 0, STEPS)
        return float(counts @ np.square(function((levels - zero) * step) - exact))

    return replace(range_, low=min((range_.low * part for part in KEPT), key=error))


def with_equal_ends(index: GraphIndex, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """``ranges`` where what only a concatenation reads has the range of all of it.

    There it would be rounded to those steps anyway, after its own, and with equal steps values are merely copied.
    """
    equal = dict(ranges)
    for node in reversed(index.nodes):  # a concatenation may be read by another
        if node.op_type == "Concat" and node.output[0] in equal:
            alone = [name for name in node.input if name in equal and index.has_one_consumer(name)]
            equal |= {name: equal[node.output[0]] for name in alone if not _follows(index, name)}
    return equal


def without_unlike_joins(
    index: GraphIndex, ranges: Mapping[str, Range], passes: Callable[[NodeProto], bool]
) -> dict[str, Range]:
    """``ranges`` without those of concatenations that would cost one of their parts ``LIKE`` times its own steps.

    Boxes in pixels beside scores between 0 and 1, at the end of a detector, would leave four levels of the scores.
    Where a layer with weights reads the whole it has one step anyway. ``passes``: values go through a node unchanged.
    """
    # The tensors that layers with weights read, as they are, activated, or through what only passes them on.
    wanted = index.read_through(
        lambda node: node.input if operator_of(node) is not None else (),
        lambda node: passes(node) or node.op_type in ("Concat", "Relu", "Clip"),
    )
    unlike = set[str]()
    for node in index.nodes:
        joins = node.op_type == "Concat" and node.domain in STANDARD
        if not unlike.isdisjoint(node.input) and (joins or passes(node)):
            unlike |= {*node.output} - wanted
        elif joins and node.output[0] in ranges and node.output[0] not in wanted:
            parts = [ranges[name] for name in node.input if name in ranges]
            widths = [part.high - part.low for part in parts if part.high > part.low]
            if widths and max(widths) > LIKE * min(widths):
                unlike.add(node.output[0])
    return {name: range_ for name, range_ in ranges.items() if name not in unlike}


def _follows(index: GraphIndex, name: str) -> bool:
    """Whether a tensor's range is not its own: it is an input, or what makes it decides."""
    producer = index.producers.get(name)
    own = producer is not None and (producer.op_type in ("Add", "Mul", "Concat") or operator_of(producer) is not None)
    return not own


def whole_gates(model: ModelProto) -> ModelProto:
    """A graph that gives the same, in which x clip(x + c, 0, m) / m is x HardSigmoid(x); ``model`` where none is.

    What is made anew has the same names each time, and what reads the result reads it by its name.
    """
    index = GraphIndex(model)
    found = _gates(index) if index.opset < NO_GATES else {}
    if not found:
        return model
    fused = ModelProto()
    fused.CopyFrom(model)
    fresh = FreshNames.of(model)
    gone = {name for gate in found.values() for name in gate.inside}
    nodes: list[NodeProto] = []
    for node in fused.graph.node:
        if gate := found.get(node.output[0]):
            made = fresh(f"{node.output[0]}_gate")
            slope = 1.0 / gate.width
            nodes.append(helper.make_node(GATE, [gate.read], [made], alpha=slope, beta=gate.shift * slope))
            nodes.append(helper.make_node("Mul", [gate.read, made], [node.output[0]]))
        elif node.output[0] not in gone:
            nodes.append(node)
    replace_nodes(fused.graph, nodes)
    return fused


@dataclass(frozen=True, slots=True)
class _Written:
    """A gated tensor in four operators: what it reads, its constants, and what its first three operators make."""

    read: str
    shift: float
    width: float
    inside: tuple[str, ...]


def _gates(index: GraphIndex) -> Mapping[str, _Written]:
    """By what the last operator makes."""
    found = {}
    for node in index.nodes:
        if gate := _gate(index, node):
            found[node.output[0]] = gate
    return found


def _gate(index: GraphIndex, last: NodeProto) -> _Written | None:
    """x clip(x + c, 0, m) / m, or times 1 / m, where nobody reads what is inside."""
    if last.domain not in STANDARD or last.op_type not in ("Div", "Mul"):
        return None
    product, width = _with_scalar(index, last)
    if width is None or product is None or product.op_type != "Mul":
        return None
    width = width if last.op_type == "Div" else 1.0 / width if width else 0.0
    for clipped, read in (tuple(product.input), tuple(product.input)[::-1]):
        clip = _only(index, clipped)
        if clip is None or clip.op_type != "Clip" or len(clip.input) != 3:
            continue
        low, high = (_scalar(index, name) for name in clip.input[1:])
        addition = _only(index, clip.input[0])
        if low != 0.0 or high is None or addition is None or addition.op_type != "Add" or not index.shapes.get(read):
            continue  # of what has no axes, one number with an axis makes a vector
        shift = _scalar(index, next((name for name in addition.input if name != read), ""))
        if (
            index.is_float(read)
            and read in addition.input
            and shift is not None
            and width > 0
            and abs(high - width) <= 1e-6 * width
        ):
            return _Written(read, shift, width, (addition.output[0], clip.output[0], product.output[0]))
    return None


def _with_scalar(index: GraphIndex, node: NodeProto) -> tuple[NodeProto | None, float | None]:
    """What makes the other operand of a node with one number for operand, and the number."""
    for other, number in (tuple(node.input), tuple(node.input)[::-1])[: 1 if node.op_type == "Div" else 2]:
        if (value := _scalar(index, number)) is not None:
            return _only(index, other), value
    return None, None


def _only(index: GraphIndex, name: str) -> NodeProto | None:
    """What makes a tensor that one node reads."""
    return index.producers.get(name) if index.has_one_consumer(name) else None


def _scalar(index: GraphIndex, name: str) -> float | None:
    """The one number of a constant."""
    tensor = index.constants.get(name)
    if tensor is None or np.prod(tensor.dims) != 1 or len(tensor.dims) > 1:
        return None
    return float(numpy_helper.to_array(tensor).reshape(()))
