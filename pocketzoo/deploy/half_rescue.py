"""Which nodes of a graph in half precision make most of its error, and have to be in 32 bits for it to become less."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pocketzoo.core.arrays import Arrays
from pocketzoo.zoo.backends.onnxruntime.session import open_session
from pocketzoo.zoo.graphs.contents import replace_nodes
from pocketzoo.zoo.graphs.foreign.selections import compared_tensors, with_outputs
from pocketzoo.zoo.graphs.fresh_names import FreshNames
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.rewriting.flat_graph import FlatGraph, convertible, distinct, node_id
from pocketzoo.zoo.graphs.rewriting.half_limits import KINDS, MOVES
from pocketzoo.zoo.graphs.rewriting.half_precision import HalfPlan
from pocketzoo.zoo.tasks.agreement import noise_to_signal

TRIALS = 8  # of fewer nodes than were chosen
Plan = TypeVar("Plan")
RUNS = 96  # of the graph, in which parts of it alone are rounded
# What makes no values that it does not read: rounded ones stay as they are.
CHOOSES = ("Abs", "GlobalMaxPool", "Max", "MaxPool", "Min", "Neg", "ReduceMax", "ReduceMin", "Relu", *MOVES)


@dataclass(frozen=True, slots=True)
class Rounding:
    """A place where values are rounded: a tensor, or the constants of a node; and what is to be in 32 bits for it."""

    name: str  # of the tensor, or of what the node makes
    constants: bool
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RoundingGroup:
    """Sources, and the noise that they make by themselves."""

    noise: float
    sources: tuple[Rounding, ...]

    def __lt__(self, other: RoundingGroup) -> bool:
        return self.noise > other.noise  # the loudest one comes first


def noisy_nodes(
    model: ModelProto, plan: HalfPlan, sample: Arrays, wanted: float, room: int, outputs: Collection[str] = ()
) -> dict[str, str]:
    """The nodes to keep in 32 bits, at most ``room``, so that the error becomes ``wanted`` (noise over signal).

    Parts of the graph are rounded by themselves, the loudest again in halves: errors of many places add up by their
    squares. Then what removes most of the noise for each node is taken first. Node (what it makes) -> why.
    """
    switched = _Switched(model, plan)
    if not switched.sources or room < 1:
        return {}
    whole, *groups = _loudest(switched, sample, outputs)
    left = total = sum(each.noise for each in groups)  # of errors that have more in common than chance, not the whole's
    if not total or not whole.noise:
        return {}
    wanted *= total / whole.noise
    single = [each for each in groups if len(each.sources) == 1 and each.noise > 0]
    chosen: dict[str, str] = {}
    while single and left > wanted and len(chosen) < room:
        gain, best = max(
            (
                (each.noise / max(1, len(set(each.sources[0].nodes) - chosen.keys())), i)
                for i, each in enumerate(single)
            ),
        )
        group = single.pop(best)
        source, new = group.sources[0], [n for n in group.sources[0].nodes if n not in chosen]
        if gain * room < total * 1e-3:
            break
        if len(chosen) + len(new) > room:
            continue
        what = f"the constants of {source.name}" if source.constants else source.name
        chosen |= dict.fromkeys(new, f"rounding {what} makes {min(1.0, group.noise / total):.0%} of the error")
        left -= group.noise
    return chosen


def fewest_nodes(
    chosen: Mapping[str, str], enough: Callable[[dict[str, str]], Plan | None], most: int = TRIALS
) -> Plan | None:
    """What ``enough`` makes of as few of the chosen nodes as still are: node -> why, those of one reason together.

    ``enough`` answers None to those that are not. Halves of what is left are tried without, the later ones first, since
    what brings most was chosen first, and where neither can go, halves of those; ``most`` times in all. None where
    nothing can be left out.
    """
    groups = [dict(each) for _, each in groupby(chosen.items(), key=lambda item: item[1])]
    best: Plan | None = None
    size = max(1, len(groups) // 2)
    while most > 0 and groups:
        kept, end = [*groups], len(groups)
        while end > 0 and most > 0:
            begin = max(0, end - size)
            rest = [*kept[:begin], *kept[end:]]
            most -= 1
            trial = enough({name: why for each in rest for name, why in each.items()})
            if trial is not None:
                kept, best = rest, trial
            end = begin
        groups = kept
        if size == 1:
            break
        size //= 2
    return best


def _loudest(switched: _Switched, sample: Arrays, outputs: Collection[str]) -> list[RoundingGroup]:
    """All sources together first; then single ones, and groups of those that were not worth telling apart."""
    ends = [value.name for value in switched.model.graph.output if not outputs or value.name in outputs]
    compared = compared_tensors(GraphIndex(switched.model), ends).values()
    names = [name for tensors in compared for name in tensors]
    session = open_session(with_outputs(switched.model, names), optimization="none", arena=False)
    count = len(switched.sources)

    def run(on: Collection[Rounding]) -> list[Any]:
        flags = np.array([source in on for source in switched.sources])
        feed: dict[str, npt.NDArray[Any]] = {**sample, switched.flags: flags}
        return list(session.run(names, feed))

    exact = run(())

    def group(sources: tuple[Rounding, ...]) -> RoundingGroup:
        noise = [noise_to_signal([a], [b]) for a, b in zip(run(frozenset(sources)), exact, strict=True)]
        return RoundingGroup(sum(each if np.isfinite(each) else 1e6 for each in noise), sources)

    whole = group(tuple(switched.sources))
    waiting, done, runs = [whole], [whole], 1
    while waiting and runs + 2 <= min(RUNS, 4 * count):
        loudest = heapq.heappop(waiting)
        half = len(loudest.sources) // 2
        parts = (loudest.sources[:half], loudest.sources[half:]) if half else ()
        for part in parts:
            runs += 1
            one = group(part)
            if len(part) > 1:
                heapq.heappush(waiting, one)
            else:
                done.append(one)
    return [*done, *waiting]


class _Switched:
    """The graph of a plan in float32, with a switch for each place where half precision rounds.

    What is in graphs inside nodes is not rounded.
    """

    def __init__(self, model: ModelProto, plan: HalfPlan) -> None:
        model = distinct(model)
        self.index, self.changed, self.precision = FlatGraph(model), set(plan.nodes), plan.precision
        self.model = ModelProto()
        self.model.CopyFrom(model)
        self.fresh = FreshNames.of(self.model)
        self.flags = self.fresh("pocketzoo_flags")
        self.sources: list[Rounding] = []
        self._write()

    def _write(self) -> None:
        graph, outputs = self.model.graph, {value.name for value in self.model.graph.output}
        written: list[NodeProto] = []
        rounded: dict[str, str] = {}  # tensor -> what it is called after its switch
        for value in graph.input:
            if value.name not in self.index.constants and self._counts(value.name, None):
                rounded[value.name] = self._switch(value.name, value.name, False, None, written)
        for node in graph.node:
            low = node_id(node) in self.changed
            reads = convertible(node, self.index, self.precision) if low else set()
            for i, name in enumerate(node.input):
                if i in reads and name in self.index.constants:
                    node.input[i] = self._switch(name, node_id(node), True, node, written)
                elif name in rounded:
                    node.input[i] = rounded[name]
            written.append(node)
            for name in node.output:
                if name and name not in outputs and self._counts(name, node):
                    rounded[name] = self._switch(name, name, False, node, written)
        pre: list[NodeProto] = []
        for i in range(len(self.sources)):
            place = self.fresh(f"pocketzoo_place_{i}")
            graph.initializer.append(numpy_helper.from_array(np.array(i), place))
            pre.append(helper.make_node("Gather", [self.flags, place], [self._flag(i)]))
        graph.input.append(helper.make_tensor_value_info(self.flags, TensorProto.BOOL, [len(self.sources)]))
        replace_nodes(graph, [*pre, *written])
        graph.ClearField("value_info")

    def _counts(self, name: str, node: NodeProto | None) -> bool:
        """Whether a tensor is rounded where it is made, or read."""
        if self.index.types.get(name) != TensorProto.FLOAT:
            return False
        low = node is not None and node_id(node) in self.changed
        if low and node is not None and node.op_type in CHOOSES:
            return False
        return low or any(node_id(reader) in self.changed for reader in self.index.consumers.get(name, ()))

    def _flag(self, i: int) -> str:
        return f"{self.flags}_{i}"

    def _switch(self, name: str, said: str, constants: bool, node: NodeProto | None, nodes: list[NodeProto]) -> str:
        half, back, out = (self.fresh(f"{name}_{word}") for word in ("half", "back", "switched"))
        flag = self._flag(len(self.sources))
        nodes.append(helper.make_node("Cast", [name], [half], to=KINDS[self.precision]))
        nodes.append(helper.make_node("Cast", [half], [back], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Where", [flag, back, name], [out]))
        own = [node] if node is not None else []
        needed = own if constants else [*own, *self._readers(name)]
        self.sources.append(Rounding(said, constants, tuple(dict.fromkeys(node_id(n) for n in needed if self._low(n)))))
        return out

    def _low(self, node: NodeProto) -> bool:
        return node_id(node) in self.changed

    def _readers(self, name: str) -> list[NodeProto]:
        """Who reads a tensor, and what moves make of it."""
        found: list[NodeProto] = []
        waiting, known = [name], {name}
        while waiting:
            for reader in self.index.consumers.get(waiting.pop(), ()):
                found.append(reader)
                if reader.op_type in CHOOSES:
                    waiting += [out for out in reader.output if out not in known]
                    known.update(reader.output)
        return found
