"""What samples show of every float tensor of a graph: magnitude, size, and what rounding to 16 bits costs.

What branches and loops make, no run gives: nodes that are added to a copy of the graph look at it there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pocketzoo.compress.quantization.calibration import activations_in_parts, one_by_one
from pocketzoo.core.arrays import Arrays
from pocketzoo.core.files import scratch_folder
from pocketzoo.zoo.backends.onnxruntime.session import open_session
from pocketzoo.zoo.graphs.contents import replace_nodes
from pocketzoo.zoo.graphs.files.graph_files import save_graph
from pocketzoo.zoo.graphs.fresh_names import FreshNames, graphs
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.node import attribute
from pocketzoo.zoo.graphs.rewriting.flat_graph import FlatGraph, distinct
from pocketzoo.zoo.graphs.rewriting.half_limits import DTYPES, KINDS, Seen
from pocketzoo.zoo.tasks.agreement import decibels

SOME = 1 << 15  # values of a tensor that are rounded to see what it costs
FACTS = 4  # numbers of a tensor: largest magnitude, energy, energy of the error, size
Facts = dict[str, npt.NDArray[np.float64]]  # of each tensor
SHAPED = ("If", "Loop", "Scan")  # whose graphs inside can give one output more
AXES_ARE_READ = 18  # the opset from which ReduceMax reads its axes


def seen_values(model: ModelProto, samples: Iterable[Arrays], precision: str) -> dict[str, Seen]:
    """What samples show of each float tensor, by its name in ``distinct``.

    Raises:
        DataError: the samples do not fit the graph.
    """
    samples = list(samples)
    model = distinct(model)
    totals = _facts_outside(model, samples, precision)
    if any(node.op_type in SHAPED for node in model.graph.node):
        inside = _facts_inside(model, samples, precision)
        infinite = {name for name, facts in inside.items() if not np.isfinite(facts[0])}
        if infinite:  # such as masks: what is finite of them counts
            again = _facts_inside(model, samples, precision, infinite)
            inside |= {name: again[name] for name in infinite}
        totals |= inside
    return {
        name: Seen(largest=float(largest), rounding=_rounding(signal, noise), size=int(size))
        for name, (largest, signal, noise, size) in totals.items()
        if size  # of the branch that no sample took nothing is known
    }


def _facts_outside(model: ModelProto, samples: Iterable[Arrays], precision: str) -> Facts:
    """Of what the nodes of the graph itself make."""
    index, totals = GraphIndex(model), Facts()
    floats = [name for name in index.producers if index.types.get(name) == TensorProto.FLOAT]
    # Not rewritten: onnxruntime's rewriting knows no Q/DQ nodes in float8.
    for values in activations_in_parts(model, [*index.inputs, *floats], samples, as_written=True):
        for name, value in values.items():
            if value.dtype != np.float32:
                continue
            largest = float(max(value.max(initial=0.0), -value.min(initial=0.0)))
            if not np.isfinite(largest):
                largest = float(np.abs(value).max(initial=0.0, where=np.isfinite(value)))
            some = value.reshape(-1)[:: max(1, value.size // SOME)].astype(np.float64)
            some = some[np.isfinite(some)]
            with np.errstate(over="ignore"):
                error = some - some.astype(np.float32).astype(DTYPES[precision]).astype(np.float64)
            _add(totals, name, [largest, np.square(some).sum(), np.square(error).sum(), value.size])
    return totals


def _add(totals: Facts, name: str, facts: Sequence[float] | npt.NDArray[np.float32]) -> None:
    known = totals.setdefault(name, np.zeros(FACTS))
    largest, size = np.maximum(known[0], facts[0]), max(known[3], facts[3])
    totals[name] = np.array([largest, known[1] + facts[1], known[2] + facts[2], size])


def _facts_inside(
    model: ModelProto, samples: Iterable[Arrays], precision: str, infinite: Collection[str] = ()
) -> Facts:
    """Of what the graphs inside nodes make."""
    watched, names = _Watcher(model, precision, infinite).watched()
    totals = Facts()
    if not names:
        return totals
    with scratch_folder() as folder:
        path = folder / "watched.onnx"
        save_graph(watched, path)
        session = open_session(path, optimization="none", arena=False)
        for feed in one_by_one(model, samples):
            for name, facts in zip(names, session.run(list(names.values()), dict(feed)), strict=True):
                _add(totals, name, facts)
    return totals


def _rounding(signal: float, noise: float) -> float:
    if noise == 0 or not np.isfinite(signal):  # of values whose squares are beyond 32 bits, the largest one says enough
        return float("inf")
    return decibels(signal, noise)


class _Watcher:
    """Adds the nodes that look at tensors."""

    def __init__(self, model: ModelProto, precision: str, infinite: Collection[str] = ()) -> None:
        self.model = ModelProto()
        self.model.CopyFrom(model)
        self.index = FlatGraph(self.model)
        self.kind = KINDS[precision]
        self.count = 0
        self.infinite = infinite  # tensors of which only what is finite counts
        self.fresh = FreshNames.of(self.model)
        self.zero, self.nothing = self.fresh("pocketzoo_zero"), self.fresh("pocketzoo_nothing")
        self.flat, self.some = self.fresh("pocketzoo_flat"), self.fresh("pocketzoo_some")
        self.start, self.one, self.end = (self.fresh(f"pocketzoo_{word}") for word in ("start", "one", "end"))

    def watched(self) -> tuple[ModelProto, dict[str, str]]:
        """The graph, and tensor -> the output that has its facts."""
        graph = self.model.graph
        found = self._watch(graph, looks=False)
        graph.initializer.extend([
            numpy_helper.from_array(np.zeros(1, np.float32), self.zero),
            numpy_helper.from_array(np.zeros(FACTS, np.float32), self.nothing),
            numpy_helper.from_array(np.array([-1]), self.flat),
            numpy_helper.from_array(np.array([SOME]), self.some),
            numpy_helper.from_array(np.array([0]), self.start),
            numpy_helper.from_array(np.array([1]), self.one),
            numpy_helper.from_array(np.array([2**62]), self.end),
        ])  # fmt: skip
        del graph.output[:]
        graph.output.extend(helper.make_tensor_value_info(out, TensorProto.FLOAT, [FACTS]) for out in found.values())
        for each in graphs(graph):
            each.ClearField("value_info")
        return self.model, found

    def _watch(self, graph: GraphProto, *, looks: bool = True) -> dict[str, str]:
        """Add nodes to a graph and to those inside it; tensor -> what has its facts."""
        found: dict[str, str] = {}
        written: list[NodeProto] = []
        floats = [v.name for v in graph.input if self.index.types.get(v.name) == TensorProto.FLOAT]
        for name in floats if looks else ():
            if name not in self.index.constants:
                written += self._look(name, found)
        for node in graph.node:
            if node.op_type in SHAPED and node.domain in ("", "ai.onnx"):
                looking, inside = self._watch_inside(node)
            else:
                looking, inside = [], {}
            written += [node, *looking]
            found |= inside
            for name in node.output:
                if looks and name and self.index.types.get(name) == TensorProto.FLOAT:
                    written += self._look(name, found)
        replace_nodes(graph, written)
        return found

    def _look(self, name: str, found: dict[str, str]) -> list[NodeProto]:
        """The nodes that make the facts of a tensor."""
        made: list[NodeProto] = []

        def node(op: str, *inputs: str, **attributes: Any) -> str:
            self.count += 1  # the same base again and again would be tried from 0 on each time
            out = self.fresh(f"pocketzoo_{op}_{self.count}")
            made.append(helper.make_node(op, inputs, [out], **attributes))
            return out

        # At least one value, as nothing has a largest one.
        row = node("Concat", node("Reshape", name, self.flat), self.zero, axis=0)
        if name in self.infinite:
            row = node("Where", node("Or", node("IsInf", row), node("IsNaN", row)), self.zero, row)
        size = node("Size", name)
        # What rounding costs every so many values show.
        step = node("Max", node("Div", size, self.some), self.one)
        part = node("Slice", row, self.start, self.end, self.start, step)
        rounded = node("Cast", node("Cast", part, to=self.kind), to=TensorProto.FLOAT)
        high, low = node("ReduceMax", row, keepdims=0), node("ReduceMin", row, keepdims=0)
        facts = [
            node("Max", node("Abs", high), node("Abs", low)),
            node("ReduceSumSquare", part, keepdims=0),
            node("ReduceSumSquare", node("Sub", part, rounded), keepdims=0),
            node("Cast", size, to=TensorProto.FLOAT),
        ]
        lines = [node("Reshape", fact, self.flat) for fact in facts]
        found[name] = node("Concat", *lines, axis=0)
        return made

    def _watch_inside(self, node: NodeProto) -> tuple[list[NodeProto], dict[str, str]]:
        """Let a node hand out the facts of what graphs inside it make; and the nodes that put them together."""
        after: list[NodeProto] = []
        found: dict[str, str] = {}
        branches = [a for a in node.attribute if a.type == AttributeProto.GRAPH]
        own = [self._watch(branch.g) for branch in branches]
        for i, inside in enumerate(own):
            for name, facts in inside.items():
                for j, other in enumerate(branches):
                    out = facts
                    if j != i:
                        out = self.fresh(f"{facts}_not")
                        other.g.node.append(helper.make_node("Identity", [self.nothing], [out]))
                    other.g.output.append(helper.make_tensor_value_info(out, TensorProto.FLOAT, [FACTS]))
                outer = self.fresh(f"{facts}_outside")
                node.output.append(outer)
                found[name] = outer
        if node.op_type == "If":
            return [], found
        if node.op_type == "Scan" and attribute(node, "scan_output_axes", None) is not None:
            for each in node.attribute:
                if each.name in ("scan_output_axes", "scan_output_directions"):
                    each.ints.extend([0] * len(found))
        for name, rows in found.items():  # one of each turn
            line, every, most = (self.fresh(f"{rows}_{word}") for word in ("line", "every", "most"))
            axes = self.fresh(f"{rows}_axes")
            after.append(helper.make_node("Unsqueeze", [self.nothing, self._first(axes, after)], [line]))
            after.append(helper.make_node("Concat", [line, rows], [every], axis=0))
            if self.index.opset >= AXES_ARE_READ:
                after.append(helper.make_node("ReduceMax", [every, axes], [most], keepdims=0))
            else:
                after.append(helper.make_node("ReduceMax", [every], [most], axes=[0], keepdims=0))
            found[name] = most
        return after, found

    def _first(self, name: str, nodes: list[NodeProto]) -> str:
        nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array([0]), name)))
        return name
