"""Write a graph in half precision by its plan: nodes anew, in order, with casts where two precisions meet."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pocketzoo.zoo.graphs.contents import drop_unread, replace_nodes
from pocketzoo.zoo.graphs.fresh_names import FreshNames, defined_names, graphs, inner_graphs
from pocketzoo.zoo.graphs.rewriting.flat_graph import FlatGraph, convertible, distinct, node_id
from pocketzoo.zoo.graphs.rewriting.half_limits import DTYPES, KINDS, LARGEST
from pocketzoo.zoo.graphs.rewriting.half_precision import HalfPlan

Array = npt.NDArray[np.generic]


def to_half(model: ModelProto, plan: HalfPlan) -> ModelProto:
    """The graph of a plan, which was made of the same graph, ``modern`` for its precision.

    A tensor that is made in half precision is called as before with the precision after it; where somebody reads it in
    32 bits, or outside, a Cast makes the one with the old name.
    """
    return HalfWriter(model, plan).write()


def simulated(model: ModelProto, plan: HalfPlan) -> ModelProto:
    """The graph of a plan as 32 bits compute it: what a node of half precision reads and makes is rounded to that.

    Sums inside of nodes are in 32 bits, as a GPU has them. onnxruntime on a CPU is no judge of the graph itself: it
    leaves out what it casts between two nodes, and has few kernels of bf16.
    """
    model = distinct(model)
    index, changed = FlatGraph(model), set(plan.nodes)
    made = ModelProto()
    made.CopyFrom(model)
    fresh = FreshNames.of(model)
    floats = {name for name, kind in index.types.items() if kind == TensorProto.FLOAT}
    rounds = {name for node in index.nodes if node_id(node) in changed for name in node.output if name in floats}
    stored = {
        node.input[i]
        for node in index.nodes
        if node_id(node) in changed
        for i in convertible(node, index, plan.precision)
        if node.input[i] in index.constants
    }
    low = {name: fresh(f"{name}_rounded") for name in sorted(stored)}
    for graph in graphs(made.graph):
        nodes: list[NodeProto] = []
        casts: dict[str, str] = {}

        def cast(name: str, out: str, nodes: list[NodeProto] = nodes) -> None:
            half = fresh(f"{name}_half")
            nodes.append(helper.make_node("Cast", [name], [half], to=KINDS[plan.precision]))
            nodes.append(helper.make_node("Cast", [half], [out], to=TensorProto.FLOAT))

        for node in graph.node:
            if node_id(node) not in changed:
                nodes.append(node)
                continue
            for i in convertible(node, index, plan.precision):
                name = node.input[i]
                if name not in low and name not in rounds and name not in casts:
                    casts[name] = fresh(f"{name}_read")
                    cast(name, casts[name])
                node.input[i] = low.get(name) or casts.get(name) or name
            nodes.append(node)
            for i, name in enumerate(node.output):
                if name in rounds:
                    node.output[i] = fresh(f"{name}_exact")
                    cast(node.output[i], name)
        replace_nodes(graph, nodes)
        graph.ClearField("value_info")
    for name, other in low.items():
        array = in_half(numpy_helper.to_array(index.constants[name]), plan.precision).astype(np.float32)
        made.graph.initializer.append(numpy_helper.from_array(array, other))
    return made


def in_half(array: Array, precision: str) -> Array:
    """Numbers in half precision; what is beyond its range becomes its end."""
    limit = LARGEST[precision]
    return np.where(np.isfinite(array), np.clip(array, -limit, limit), array).astype(DTYPES[precision])


class HalfWriter:
    """Writes the nodes of a graph and of those inside it; a cast stands where the tensor that it reads is made."""

    def __init__(self, model: ModelProto, plan: HalfPlan) -> None:
        model = distinct(model)
        self.index = FlatGraph(model)
        self.model = ModelProto()
        self.model.CopyFrom(model)
        self.plan, self.changed = plan, set(plan.nodes)
        self.kind, self.suffix = KINDS[plan.precision], f"_{plan.precision}"
        self.fresh = FreshNames.of(model)
        self.owners = {name: i for i, graph in enumerate(graphs(model.graph)) for name in defined_names(graph)}
        self.graphs: list[GraphProto] = []  # in the order of ``graphs``, as far as they are begun
        self.nodes: list[list[NodeProto]] = []  # what is written of each
        self.low: dict[str, str] = {}  # tensors that are made in half precision: old name -> new name
        self.there: dict[str, str] = {}  # those that a Cast or a constant makes in half precision: old name -> new name
        self.back: set[str] = set()  # those that a Cast makes in float32 again

    def write(self) -> ModelProto:
        self._write(self.model.graph)
        return self.model

    def _write(self, graph: GraphProto) -> None:
        self.graphs.append(graph)
        written: list[NodeProto] = []
        self.nodes.append(written)
        outside = {o.name for o in graph.output}
        for node in graph.node:  # in place: the graphs inside are those of this very node
            low = node_id(node) in self.changed
            takes = convertible(node, self.index, self.plan.precision) if low else set()
            for i, name in enumerate(node.input):
                if i in takes:
                    node.input[i] = self._low(name)
                elif name in self.low:
                    node.input[i] = self._high(name)
            outputs = list(node.output)
            for inner in inner_graphs(node):
                self._write(inner)
            if low:
                self._change(node)
            written.append(node)
            for name in outputs:
                if name in self.low and name in outside:
                    self._high(name)
        for name in outside & self.low.keys():  # of a graph around
            self._high(name)
        replace_nodes(graph, written)
        graph.ClearField("value_info")
        drop_unread(graph)

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
            self.graphs[self.owners[name]].initializer.append(self._array(array, low))
        else:
            cast = self.fresh(f"{low}_cast")
            self.nodes[self.owners[name]].append(helper.make_node("Cast", [name], [low], name=cast, to=self.kind))
        return low

    def _high(self, name: str) -> str:
        """A tensor that is made in half precision, in 32."""
        if name not in self.back:
            self.back.add(name)
            low = self.low[name]
            cast = self.fresh(f"{low}_back")
            self.nodes[self.owners[name]].append(
                helper.make_node("Cast", [low], [name], name=cast, to=TensorProto.FLOAT)
            )
        return name

    def _array(self, array: Array, name: str) -> TensorProto:
        return numpy_helper.from_array(in_half(array, self.plan.precision), name)
