"""Names in an ONNX graph, subgraphs included: which are taken, which are read, and new unique ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from onnx import GraphProto, ModelProto, NodeProto

STANDARD = ("", "ai.onnx")  # the domain of the standard's operators


class FreshNames:
    """Gives names that nothing else has: no tensor or node at any depth, and none that it gave before."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken = set(taken)

    @classmethod
    def of(cls, model: ModelProto) -> FreshNames:
        """Alongside all names of a graph."""
        return cls(names(model.graph))

    def __call__(self, base: str) -> str:
        """``base`` where it is free, else with a number after it. The same calls give the same names."""
        name, count = base, 0
        while name in self.taken:
            count += 1
            name = f"{base}_{count}"
        self.taken.add(name)
        return name


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph, and the graphs inside its nodes at any depth."""
    yield graph
    for node in graph.node:
        for inner in inner_graphs(node):
            yield from graphs(inner)


def nodes(*outermost: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Nodes, and those of the graphs inside them at any depth."""
    for node in chain(*outermost):
        yield node
        for inner in inner_graphs(node):
            yield from nodes(inner.node)


def inner_graphs(node: NodeProto) -> list[GraphProto]:
    """The graphs in a node's attributes: branches of If, bodies of Loop and Scan."""
    return [
        inner
        for attribute in node.attribute
        for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)
    ]


def names(graph: GraphProto) -> set[str]:
    """Every name of a tensor or a node, at any depth."""
    taken: set[str] = set()
    for each in graphs(graph):
        taken.update(value.name for value in (*each.input, *each.output, *each.value_info, *each.initializer))
        taken.update(sparse.values.name for sparse in each.sparse_initializer)
        for node in each.node:
            taken.update((node.name, *node.input, *node.output))
    return taken - {""}


def assigns_once(graph: GraphProto, around: frozenset[str] = frozenset()) -> bool:
    """Whether each name is made once, in graphs inside nodes too (single static assignment), as the standard asks."""
    given = [*(value.name for value in graph.input), *(name for node in graph.node for name in node.output if name)]
    own = frozenset(given)
    if len(own) < len(given) or not own.isdisjoint(around):
        return False
    seen = own | around | {tensor.name for tensor in graph.initializer}
    return all(assigns_once(inner, seen) for node in graph.node for inner in inner_graphs(node))


def captured(node: NodeProto) -> set[str]:
    """What the graphs inside a node read from around it."""
    return {name for inner in inner_graphs(node) for name in read_from_around(inner)}


def read_from_around(graph: GraphProto) -> set[str]:
    """What a graph inside a node, and those inside it, read that neither makes."""
    own = {value.name for value in (*graph.input, *graph.initializer)}
    own.update(sparse.values.name for sparse in graph.sparse_initializer)
    own.update(name for node in graph.node for name in node.output)
    read = {name for node in graph.node for name in (*node.input, *captured(node))}
    return (read | {value.name for value in graph.output}) - own - {""}


def read_names(graph: GraphProto) -> set[str]:
    """What somebody reads: nodes, the graphs inside them, and whoever takes the outputs."""
    read = {value.name for value in graph.output}
    for node in graph.node:
        read.update(node.input, captured(node))
    return read


def defined_names(graph: GraphProto) -> list[str]:
    """The names that a graph gives to what it makes or has."""
    stored = [*(t.name for t in graph.initializer), *(s.values.name for s in graph.sparse_initializer)]
    taken = set(stored)  # before IR 4 constants were listed as inputs as well
    given = [value.name for value in graph.input if value.name not in taken]
    return [*(name for node in graph.node for name in node.output if name), *given, *stored]


def rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    """Call tensors and nodes of one graph otherwise, old name -> new; those inside its nodes stay."""
    for node in graph.node:
        node.name = names.get(node.name, node.name)
        for side in (node.input, node.output):
            for i, name in enumerate(side):
                side[i] = names.get(name, name)
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = names.get(sparse.values.name, sparse.values.name)
