"""One graph of an artifact in a step: its plan, and what that makes of it for a target."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from pocketzoo.core.arrays import Arrays
from pocketzoo.zoo.bundles.bundle import Draft, graph_name
from pocketzoo.zoo.catalog.compressor import GraphCompressor
from pocketzoo.zoo.catalog.specs import TargetSpec


@dataclass(frozen=True, slots=True)
class PlannedGraph:
    """A float graph, and what is to be done to it."""

    model: onnx.ModelProto
    plan: Any


def plan_graph(
    graph: Path, compressor: GraphCompressor[Any, Any], config: Any, samples: Iterable[Arrays], *, one_of: int = 1
) -> PlannedGraph:
    """Decide what is to be done to a graph, of ``one_of`` that the config is for."""
    model = onnx.load(graph)
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
    onnx.save(applied, path)
    return path, applied
