"""Branches of If and bodies of Loop and Scan, each as a graph by itself: what it holds, and what it is called with.

So a step on graphs works on them as on any other: the samples of a body are the values that it reads each time it runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper

from pocketzoo.compress.quantization.calibration import one_by_one, values_of
from pocketzoo.core.arrays import Arrays
from pocketzoo.zoo.graphs.contents import replace_nodes, store_constants
from pocketzoo.zoo.graphs.fresh_names import STANDARD, FreshNames, graphs, names, read_from_around, rename
from pocketzoo.zoo.graphs.index import GraphIndex

BRANCHES = {"then_branch": True, "else_branch": False}
LEAST_SCAN = 9  # the opset since which Scan has no batch of its own
MOST = 2048  # calls of a body that a pass looks at


class UnseenError(Exception):
    """What a body reads cannot be seen; the message says why."""


@dataclass(frozen=True, slots=True)
class Body:
    """A graph inside a node of another. Constants around it are its own, and tensors around it its inputs."""

    node: NodeProto  # of the graph around it
    attribute: str  # that holds it
    model: ModelProto
    around: tuple[str, ...]  # tensors that it reads from there

    @property
    def place(self) -> str:
        """What no other body of the graph around it is called."""
        return f"{self.node.output[0]}.{self.attribute}"


def bodies_of(model: ModelProto) -> list[Body]:
    """The branches and bodies in the nodes of a graph; not those inside them."""
    index: GraphIndex | None = None
    found = []
    for node in model.graph.node:
        if node.op_type not in ("If", "Loop", "Scan") or node.domain not in STANDARD:
            continue
        index = index or GraphIndex(model)
        found += [_body(index, node, each.name, each.g) for each in node.attribute if each.HasField("g")]
    return found


def _body(index: GraphIndex, node: NodeProto, attribute: str, graph: GraphProto) -> Body:
    model = ModelProto(ir_version=index.model.ir_version, opset_import=index.model.opset_import)
    model.graph.CopyFrom(graph)
    free = sorted(read_from_around(graph))
    model.graph.initializer.extend(index.constants[name] for name in free if name in index.constants)
    around = tuple(name for name in free if name not in index.constants)
    operands = {}
    if node.op_type != "If":
        formal = [value.name for value in graph.input][2 if node.op_type == "Loop" else 0 :]
        operands = dict(zip(formal, node.input[2:] if node.op_type == "Loop" else node.input, strict=False))
    types = [
        value.type.tensor_type.elem_type or index.types.get(operands.get(value.name, ""), 0) for value in graph.input
    ]
    named = [value.name for value in graph.input]
    del model.graph.input[:]
    # Without shapes: no axis of what a body reads counts samples.
    model.graph.input.extend(map(_plain, [*named, *around], [*types, *(index.types.get(name, 0) for name in around)]))
    store_constants(model.graph)
    return Body(node, attribute, model, around)


def _plain(name: str, kind: int) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, None)


@dataclass(frozen=True, slots=True)
class Calls:
    """What a body is called with, for the samples of the graph around it; each pass runs that graph again."""

    body: Body
    outer: ModelProto
    samples: Iterable[Arrays]

    def __iter__(self) -> Iterator[Arrays]:
        calls = self._of_branch() if self.body.node.op_type == "If" else self._of_loop()
        return islice(calls, MOST)

    def check(self) -> None:
        """Raises:
        UnseenError: no sample reaches it, or what it reads cannot be seen.
        """
        kinds = [value.type.tensor_type.elem_type for value in self.body.model.graph.input]
        if not all(kinds):
            raise UnseenError("what it reads is of unknown type")
        opset = GraphIndex(self.outer).opset
        if self.body.node.op_type == "Scan" and opset < LEAST_SCAN:
            raise UnseenError(f"the Scan of opset {opset} has a batch of its own")
        try:
            first = next(iter(self), None)
        except Exception as error:  # onnxruntime's own, which share no base
            raise UnseenError("what it reads each time cannot be seen") from error
        if first is None:
            raise UnseenError("no calibration sample reaches it")

    def _of_branch(self) -> Iterator[Arrays]:
        condition, around = self.body.node.input[0], self.body.around
        index = GraphIndex(self.outer)
        if condition in index.constants:
            runs = bool(numpy_helper.to_array(index.constants[condition]).all())
            watched = list(around) or [next(iter(index.inputs))]
        else:
            runs, watched = True, list(dict.fromkeys([condition, *around]))
        for values in values_of(self.outer, watched, one_by_one(self.outer, self.samples)):
            chosen = bool(np.asarray(values[condition]).all()) if condition in values else runs
            if chosen == BRANCHES[self.body.attribute]:
                yield {name: values[name] for name in around}

    def _of_loop(self) -> Iterator[Arrays]:
        outer, seen = _shown(self.outer, self.body)
        around = [name for name in self.body.around if name not in seen]
        for values in values_of(outer, [*seen.values(), *around], one_by_one(self.outer, self.samples)):
            fixed = {name: values[name] for name in around}
            for number in range(min((len(values[out]) for out in seen.values()), default=0)):
                yield {**{name: np.asarray(values[out][number]) for name, out in seen.items()}, **fixed}


def _shown(outer: ModelProto, body: Body) -> tuple[ModelProto, dict[str, str]]:
    """The graph whose loop also gives what its body reads at each pass: formal input -> the tensor that has it."""
    shown = ModelProto()
    shown.CopyFrom(outer)
    fresh = FreshNames.of(outer)
    node = next(each for each in shown.graph.node if each.output[0] == body.node.output[0])
    graph = next(each.g for each in node.attribute if each.name == body.attribute)
    kinds = {value.name: value.type.tensor_type.elem_type for value in body.model.graph.input}
    seen = {}
    for formal in [value.name for value in graph.input]:
        inner, seen[formal] = fresh(f"{formal}_each"), fresh(f"{formal}_seen")
        graph.node.append(helper.make_node("Identity", [formal], [inner]))
        graph.output.append(_plain(inner, kinds[formal]))
        node.output.append(seen[formal])
    for each in node.attribute:
        if each.name in ("scan_output_axes", "scan_output_directions"):
            each.ints.extend([0] * len(seen))
    return shown, seen


def put(model: ModelProto, body: Body, made: ModelProto, fresh: FreshNames) -> None:
    """Put ``made`` in the place of a body of ``model``; what is new in it gets names that nothing else has."""
    node = next(each for each in model.graph.node if each.output[0] == body.node.output[0])
    graph = next(each.g for each in node.attribute if each.name == body.attribute)
    around = {tensor.name: tensor for tensor in model.graph.initializer}
    own = {tensor.name for tensor in graph.initializer}
    changed = {  # constants around it that a rewrite has changed for it alone
        t.name for t in made.graph.initializer
        if t.name in around and t.name not in own and t.SerializeToString() != around[t.name].SerializeToString()
    }  # fmt: skip
    new = sorted((names(made.graph) - names(body.model.graph)) | changed)
    renamed = {name: fresh(name) for name in new}
    for each in graphs(made.graph):
        rename(each, renamed)
    replace_nodes(graph, made.graph.node)
    del graph.initializer[:]
    graph.initializer.extend(t for t in made.graph.initializer if t.name in own or t.name not in around)
    del graph.value_info[:]  # they may say less
