"""One graph of an artifact in a step: its plan, and what that makes of it for a target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

import onnx

from pocketzoo.compress.pipeline.graph_scores import Judge
from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import UnknownNameError, nearest
from pocketzoo.zoo.bundles.bundle import Draft, graph_name
from pocketzoo.zoo.catalog.compressor import GraphCompressor
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.graphs.files.graph_files import save_graph
from pocketzoo.zoo.graphs.files.load_graph import read_graph
from pocketzoo.zoo.graphs.index import GraphIndex, layer_names
from pocketzoo.zoo.graphs.layer_precisions import float_layers
from pocketzoo.zoo.graphs.rewriting.single_precision import in_float32

FOR_BUDGET = "left for accuracy"


@dataclass(frozen=True, slots=True)
class PlannedGraph:
    """A float graph, and what is to be done to it."""

    model: onnx.ModelProto
    plan: Any


@dataclass(frozen=True, slots=True)
class PlannedGraphs:
    """The float graphs on the way to the first end, and what is to be done to each."""

    graphs: Mapping[str, PlannedGraph]
    # That a budget, or the floor, leaves in float -> what each costs,
    float_layers: Mapping[str, str] = field(default_factory=dict)
    float_why: str = ""  # and what they do not meet without
    judge: Judge | None = None  # of graphs against the float ones; None where nothing holds them to a budget

    def in_float(
        self, compressor: GraphCompressor[Any, Any], models: Mapping[str, onnx.ModelProto], target: TargetSpec
    ) -> dict[str, str]:
        """Every layer that the graphs made for a target have in float, at any depth, and why.

        As the budget, or the plan of its graph, says.
        """
        several = len(self.graphs) > 1
        said = {
            f"{name}:{decision.layer}" if several else decision.layer: why
            for name, graph in self.graphs.items()
            for decision in compressor.decisions(graph.plan)
            if (why := decision.why or decision.floats.get(target.name))
        }
        said |= {layer: f"{FOR_BUDGET} ({effect})" for layer, effect in self.float_layers.items()}
        layers = (f"{name}:{n}" if several else n for name, model in models.items() for n in float_layers(model))
        return {layer: said.get(layer) or f"{compressor.name} has no form of it for this target" for layer in layers}


def check_names(compressor: GraphCompressor[Any, Any], config: Any, graphs: Iterable[Path]) -> None:
    """Of a config for several graphs, what it names has to be in one of them at least.

    ``for_graph`` leaves out what a graph lacks; what it leaves out of all is in none, and naming that is an error as it
    is where there is one graph.

    Raises:
        UnknownNameError: a field names no layer of any.
    """
    if compressor.for_graph is None:
        return
    fields = {name: value for name, value in _names(config).items() if value}
    if not fields:  # as mostly: no graph is loaded for it
        return
    layers: list[str] = []
    for path in graphs:
        model = load_floats(path)
        own = _names(compressor.for_graph(config, model))
        fields = {name: [n for n in named if n not in own.get(name, ())] for name, named in fields.items()}
        layers += layer_names(GraphIndex(model))
    for name, missing in fields.items():
        if missing:
            raise UnknownNameError(f"{name} names no layer: {missing[0]!r}", nearest(missing[0], dict.fromkeys(layers)))


def _names(config: Any) -> dict[str, Sequence[str]]:
    """The fields of a config that are lists of words."""
    lists = {f.name: getattr(config, f.name) for f in fields_of(config)}
    return {
        name: value
        for name, value in lists.items()
        if isinstance(value, tuple) and all(isinstance(each, str) for each in value)
    }


def load_floats(graph: Path) -> onnx.ModelProto:
    """A float graph as steps on graphs take it: in float32, whatever floats its file computes in."""
    return in_float32(read_graph(graph))


def plan_graph(
    graph: Path, compressor: GraphCompressor[Any, Any], config: Any, samples: Iterable[Arrays], *, one_of: int = 1
) -> PlannedGraph:
    """Decide what is to be done to a graph, of ``one_of`` that the config is for."""
    model = load_floats(graph)
    if one_of > 1 and compressor.for_graph is not None:
        config = compressor.for_graph(config, model)
    return PlannedGraph(model, compressor.plan(model, config, samples))


def apply_to_graph(
    compressor: GraphCompressor[Any, Any], name: str, graph: PlannedGraph, target: TargetSpec, draft: Draft
) -> tuple[Path, onnx.ModelProto]:
    """Write what a plan makes of a graph for a target into the draft of a bundle: the file, and what is in it."""
    file = graph_name(target.name, compressor.precision, name)
    path = draft.mark(file, target=target.name, precision=compressor.precision, graph=name)
    applied = compressor.apply(graph.model, graph.plan, target)
    save_graph(applied, path)
    return path, applied
