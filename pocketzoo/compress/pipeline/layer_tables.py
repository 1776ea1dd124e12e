"""The layers of the graphs that a compression made, with the precision that its compressors say they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pocketzoo.compress.pipeline.job import Job
from pocketzoo.zoo.bundles.step_record import StepRecord
from pocketzoo.zoo.graphs.cost import CODEBOOK
from pocketzoo.zoo.graphs.files.load_graph import read_graph
from pocketzoo.zoo.graphs.layer_cost import FLOATS, LayerCost
from pocketzoo.zoo.graphs.node import layer_name
from pocketzoo.zoo.models.model_costs import graph_costs


def layer_table(
    steps: Sequence[StepRecord], job: Job, files: Sequence[Path], floats: Sequence[Path], target: str = ""
) -> list[LayerCost]:
    """The cost of each layer of one candidate; ``floats`` are the graphs before the step on the graph, or its own.

    What a compressor says of a layer (``describe``) holds. Of one that says nothing, what it changed and still stores
    in floats has the precision that it declares.
    """
    encoded = list(files) != list(floats)
    said = {
        decision.layer: decision.precision
        for step in steps
        if encoded or job.form(step.compressor) == "module"
        for decision in step.decisions
        if decision.precision and target not in decision.floats
    }
    last = job.graph_step[0] if encoded and job.graph_step is not None else None
    if last is not None and last.describe is None:
        said |= dict.fromkeys(_changed(files, floats), last.precision)
    return [_as_said(cost, said) for cost in graph_costs(files, job.processor)]


def _as_said(cost: LayerCost, said: Mapping[str, str]) -> LayerCost:
    """In integers it is what the graph says: a target may take fewer layers than the plan has."""
    precision = said.get(cost.layer) or said.get(cost.layer.partition(":")[2])  # of several graphs: "decoder:layer"
    return replace(cost, precision=precision) if precision and cost.precision in (*FLOATS, CODEBOOK) else cost


def _changed(files: Sequence[Path], floats: Sequence[Path]) -> set[str]:
    """Layers whose constants are others than in the float graph."""
    names = set[str]()
    for path, before in zip(files, floats, strict=False):
        old, new = ({t.name: t for t in read_graph(file).graph.initializer} for file in (before, path))
        names |= {layer_name(name) for name, tensor in new.items() if name in old and tensor != old[name]}
    return names
