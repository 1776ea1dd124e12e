"""What of a graph hangs on constants alone, computed once; every other node stays as it is written.

onnxruntime's own rewrites fold more, but write a graph of float16 for the CPU: with a Cast around each node that has no
kernel of that type there. Another runtime has one.
"""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto, NodeProto, ValueInfoProto, numpy_helper

from pocketzoo.zoo.backends.onnxruntime.batched_graph import load_foreign
from pocketzoo.zoo.backends.onnxruntime.bounded_session import TimeLeft
from pocketzoo.zoo.graphs.contents import drop_unread, replace_nodes, store_constants
from pocketzoo.zoo.graphs.fresh_names import STANDARD, graphs, inner_graphs, read_names
from pocketzoo.zoo.graphs.rewriting.branches import settled

RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
ROUNDS = 8  # of branches that a constant decides, and that have more constants in them


def folded_constants(model: ModelProto, path: Path, time_left: TimeLeft) -> ModelProto:
    """A copy of the graph in which what follows from constants is one, and an If that such a one decides its branch.

    Raises:
        BundleError: onnxruntime does not compute it.
    """
    made = ModelProto()
    made.CopyFrom(model)
    for graph in graphs(made.graph):
        store_constants(graph)
    for _ in range(ROUNDS):
        _fold(made, path, time_left)
        branch = settled(made, {})
        if branch is made or len(list(graphs(branch.graph))) == len(list(graphs(made.graph))):
            break
        made = branch
        for graph in graphs(made.graph):
            store_constants(graph)
    drop_unread(made.graph)
    return made


def _fold(model: ModelProto, path: Path, time_left: TimeLeft) -> None:
    """Compute the nodes of the outermost graph that read constants alone, in place."""
    graph = model.graph
    known = {tensor.name for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    constant: list[NodeProto] = []
    rest: list[NodeProto] = []
    for node in graph.node:
        alone = all(name in known for name in node.input if name) and outputs.isdisjoint(node.output)
        if alone and node.domain in STANDARD and node.op_type not in RANDOM and not inner_graphs(node):
            constant.append(node)
            known.update(name for name in node.output if name)
        else:
            rest.append(node)
    if not constant:
        return
    made = {name for node in constant for name in node.output if name}
    replace_nodes(graph, rest)
    wanted = sorted(read_names(graph) & made)
    part = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    part.graph.name = graph.name
    part.graph.node.extend(constant)
    part.graph.initializer.extend(graph.initializer)
    part.graph.output.extend(ValueInfoProto(name=name) for name in wanted)  # onnxruntime infers their types
    drop_unread(part.graph)
    values = load_foreign(part, path, time_left, optimization="none").run(wanted, {})
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in zip(wanted, values, strict=True))
    drop_unread(graph)
