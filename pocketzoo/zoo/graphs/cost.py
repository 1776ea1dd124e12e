"""What each layer of an ONNX graph costs: parameters, bytes and multiply-accumulates per sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from pocketzoo.core.arrays import Array, Arrays
from pocketzoo.zoo.graphs.float_precision import OTHER_FLOATS
from pocketzoo.zoo.graphs.fresh_names import STANDARD, graphs, inner_graphs, nodes
from pocketzoo.zoo.graphs.layer_cost import FLOAT, LayerCost
from pocketzoo.zoo.graphs.node import layer_name, node_name
from pocketzoo.zoo.graphs.operator_macs import Dims, UnknownSizesError, computes, macs, weights
from pocketzoo.zoo.graphs.scopes import Observe, Scope, outermost

CODEBOOK = "codebook"  # the precision of weights that are looked up
NUMBERS = (
    TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.INT8,
    TensorProto.UINT8, TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2,
)  # fmt: skip
EIGHT_BITS = (TensorProto.INT8, TensorProto.UINT8)


def costs_of(paths: Sequence[Path], example: Arrays | None = None, observe: Observe | None = None) -> list[LayerCost]:
    """Costs of the layers of all graphs of a model; of several, the layer's name begins with that of its graph."""
    if len(paths) == 1:
        return layer_costs(paths[0], example, observe)
    return [
        replace(cost, layer=f"{path.name.partition('.')[0]}:{cost.layer}")
        for path in paths
        for cost in layer_costs(path, example, observe)
    ]


def layer_costs(
    graph: Path | ModelProto, example: Arrays | None = None, observe: Observe | None = None
) -> list[LayerCost]:
    """Costs of every node that multiplies and sums, at any depth, in graph order, for one run of one sample.

    ``example`` is one sample, input -> array with its batch axis, whose sizes fill the free axes; without one only the
    batch is known, and counts as 1. ``observe`` runs the graph where inference does not tell the sizes inside. What
    stays unknown counts as 0, and the row's ``note`` says so. Of If the branch counts that computes more; a Loop counts
    as often as it runs, once where that is not known.

    Biases count as parameters. A weight that several nodes read counts at the first of them.
    """
    model = onnx.load(graph) if isinstance(graph, Path) else graph
    if not any(computes(node) for node in nodes(model.graph.node)) and not model.functions:
        return []
    if model.functions:
        from onnx import inliner

        model = inliner.inline_local_functions(model)
    return _CostTable().rows(outermost(model, example, observe))


def parameters_of(model: ModelProto) -> int:
    """The numbers that a graph stores at any depth: floats and 8-bit weights, without scales and zero points."""
    steps = {
        name
        for node in nodes(model.graph.node)
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
        for name in node.input[1:]
    }
    return sum(
        int(np.prod(tensor.dims))
        for graph in graphs(model.graph)
        for tensor in graph.initializer
        if tensor.data_type in NUMBERS and tensor.name not in steps
    )


class _CostTable:
    """Counts the nodes of a graph and of the graphs inside them."""

    def __init__(self) -> None:
        self.counted: set[tuple[int, str]] = set()  # constants that a node before reads

    def rows(self, scope: Scope) -> list[LayerCost]:
        rows: list[LayerCost] = []
        for node in scope.index.nodes:
            if computes(node):
                rows.append(self._row(node, scope))
            elif node.op_type == "If" and node.domain in STANDARD:
                rows += self._branches(node, scope)
            elif any(computes(inner) for graph in inner_graphs(node) for inner in nodes(graph.node)):
                rows += self._passes(node, scope)
        return rows

    def _branches(self, node: NodeProto, scope: Scope) -> list[LayerCost]:
        branches = [self.rows(scope.inside(node, graph)) for graph in inner_graphs(node)]
        most = max(branches, key=lambda rows: sum(row.macs for row in rows), default=[])
        note = f"another branch of {node_name(node)} computes more, and is counted"
        return [
            row if rows is most else replace(row, macs=0, note=note if row.macs else row.note)
            for rows in branches
            for row in rows
        ]

    def _passes(self, node: NodeProto, scope: Scope) -> list[LayerCost]:
        times = scope.passes(node)
        note = "" if times is not None else f"counted for one pass of {node_name(node)}: how many it makes is not known"
        return [
            replace(row, macs=row.macs * (1 if times is None else times), note=row.note or note)
            for graph in inner_graphs(node)
            for row in self.rows(scope.inside(node, graph))
        ]

    def _row(self, node: NodeProto, scope: Scope) -> LayerCost:
        # One that a node reads twice, as both matrices of a GRU, is one.
        stored = list({weight.key: weight for name in weights(node) for weight in _weights(scope, name)}.values())
        new = [weight for weight in stored if weight.key not in self.counted]
        self.counted.update(weight.key for weight in stored)
        number, note = 0, ""
        try:
            number = macs(node, Dims(*scope.dims(node)))
        except UnknownSizesError:
            note = "not counted: its sizes are not known"
        except KeyError:
            note = f"not counted: what a {node.op_type} of {node.domain} computes is not known"
        except (ValueError, IndexError):
            note = "not counted: its operands do not fit together"
        matrices = [weight for weight in stored if weight.values.ndim > 1] or stored
        return LayerCost(
            layer=layer_name(matrices[0].name) if matrices else node_name(node),
            op=node.op_type,
            precision=matrices[0].precision if matrices else FLOAT,
            parameters=sum(weight.values.size for weight in new),
            nonzero=sum(int(np.count_nonzero(weight.values)) for weight in new),
            bytes=sum(weight.bytes for weight in new),
            macs=number,
            note=note,
        )


@dataclass(frozen=True, slots=True)
class _Weight:
    """A constant that an operand is, or is computed from; and what the graph stores for it."""

    key: tuple[int, str]
    name: str
    values: Array
    bytes: int
    precision: str


def _weights(scope: Scope, name: str) -> list[_Weight]:
    """What an operand of a node is computed from; none where that is the inputs."""
    if (found := _lookup(scope, name)) is not None:
        return [found]
    stored = []
    for key, tensor in (scope.stored(name) or {}).items():
        values = numpy_helper.to_array(tensor)
        precision = "int8" if tensor.data_type in EIGHT_BITS else OTHER_FLOATS.get(tensor.data_type, FLOAT)
        stored.append(_Weight(key, tensor.name, values, values.nbytes, precision))
    return stored


def _lookup(scope: Scope, name: str) -> _Weight | None:
    """The weight that ``Gather`` makes of a codebook and constant indices; None for one that is computed otherwise."""
    index = scope.index
    producer = index.producers.get(name)
    if producer is None or producer.op_type != "Gather" or producer.domain not in STANDARD:
        return None
    codebook, indices = index.constants.get(producer.input[0]), index.weight(producer.input[1])
    if codebook is None or indices is None or len(codebook.dims) != 1:
        return None
    values, places = numpy_helper.to_array(codebook), numpy_helper.to_array(indices)
    return _Weight(scope.key(name), name, values[places.astype(np.int64)], values.nbytes + places.nbytes, CODEBOOK)
