"""Layers that a graph step below the floor leaves in float: those that bring it back, and at what cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pocketzoo.compress.pipeline.acceptance import FLOOR_DB, Rejected, below_floor
from pocketzoo.compress.pipeline.attempt import Attempt
from pocketzoo.compress.pipeline.budgets import least_sqnr
from pocketzoo.compress.pipeline.graph_scores import Judge, NotFiniteError, Score
from pocketzoo.compress.pipeline.job import Job
from pocketzoo.compress.pipeline.layers_in_float import with_float_layers
from pocketzoo.compress.pipeline.planned_graph import PlannedGraphs
from pocketzoo.compress.quantization.mixed_precision import excludable, write
from pocketzoo.zoo.artifacts.driver import Artifact
from pocketzoo.zoo.artifacts.drivers import artifact_of
from pocketzoo.zoo.catalog.compressor import GraphCompressor
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.graphs.files.weight_files import remove_graph

FEW = 32  # samples that a choice of layers is tried on
NAMED = 3  # layers that a message names


def above_floor(
    attempt: Attempt,
    compressor: GraphCompressor[Any, Any],
    planned: PlannedGraphs,
    targets: Sequence[TargetSpec],
    job: Job,
    folder: Path,
) -> tuple[PlannedGraphs, Score] | None:
    """The plans with so many layers in float that the graphs for all ``targets`` keep the floor; None if none do.

    Besides the score for the first. However dear these layers are: what they cost is judged with all else. Graphs are
    tried in ``folder``.
    """
    if compressor.exclude is None:
        return None
    judge, before = job.judge, artifact_of(attempt.bundle)
    samples = replace(judge.samples, limit=min(FEW, judge.samples.limit or FEW))
    few = Judge(judge.reference, samples, task=judge.task, held=judge.held)
    least = least_sqnr(compressor, attempt.config)

    def below(by: Judge, artifact: Artifact) -> bool:
        try:
            scores = map(by.score, (by.reference, before, artifact))
            return bool(below_floor(*scores, budget=job.settings.max_drop is not None, least=least))
        except NotFiniteError:
            return True

    for by in (few, judge):  # a choice that few samples speak for is held to the floor on all of them
        enough = partial(_kept, below, by)
        within = with_float_layers(attempt, compressor, planned, enough, job, targets[0], folder, targets[1:])
        if within is None or not within.float_layers or not _compresses(compressor, within):
            return None
        scores = [
            _whole(within, compressor, before, target, folder, judge, partial(below, judge)) for target in targets
        ]
        if all(scores):
            return within, next(score for score in scores if score is not None)
    return None


def _compresses(compressor: GraphCompressor[Any, Any], planned: PlannedGraphs) -> bool:
    """Whether some layer is not left in float."""
    return any(excludable(compressor, graph.plan) for graph in planned.graphs.values())


def too_dear(no: Rejected, below: str, planned: PlannedGraphs) -> Rejected:
    """Why graphs with layers in float are rejected, where without those they were ``below`` the floor."""
    layers = planned.float_layers
    few = len(layers) <= NAMED
    which = _listed([f"{name} ({effect})" for name, effect in layers.items()]) if few else f"{len(layers)} layers"
    return Rejected(
        f"{below}; with {which} left in float {no.why}", no.report, no.cause, float_layers=layers, way_out=no.way_out
    )


def blamed(
    no: Rejected,
    attempt: Attempt,
    compressor: GraphCompressor[Any, Any],
    planned: PlannedGraphs,
    target: TargetSpec,
    job: Job,
    folder: Path,
) -> Rejected:
    """The same with the layers to blame, where it is the floor that is not kept and leaving layers in float mends it.

    Of one target of several, which no choice of layers brings back together. Graphs are tried in ``folder``.
    """
    if no.cause != "floor" or compressor.exclude is None:
        return no
    job.progress.say(f"{compressor.name} for {target.name}: {no.why}; looking for the layers to blame")
    if (found := above_floor(attempt, compressor, planned, (target,), job, folder)) is None:
        return no
    layers, score = found[0].float_layers, found[1]
    sqnr, judge = score.sqnr, job.judge
    by_sqnr = not judge.score(judge.reference).metric and sqnr is not None and sqnr >= FLOOR_DB
    return Rejected(
        f"{no.why}; to blame: {_listed([f'{name} (in float {effect})' for name, effect in layers.items()])}",
        no.report,
        no.cause,
        float_layers=layers,
        way_out=_way_out(layers, None if sqnr is None or not by_sqnr else sqnr),
    )


def _whole(
    within: PlannedGraphs,
    compressor: GraphCompressor[Any, Any],
    before: Artifact,
    target: TargetSpec,
    folder: Path,
    judge: Judge,
    below: Callable[[Artifact], bool],
) -> Score | None:
    """The score of the graphs that a choice of layers makes, on all samples; None where they are below the floor."""
    paths = {name: folder / f"{name}.candidate.onnx" for name in within.graphs}
    try:
        for name, graph in within.graphs.items():
            write(compressor, graph.model, graph.plan, target, paths[name])
        artifact = replace(before, graphs={**before.graphs, **paths})
        return None if below(artifact) else judge.score(artifact)
    finally:
        for path in paths.values():
            remove_graph(path, missing_ok=True)


def _kept(below: Callable[[Judge, Artifact], bool], by: Judge, artifact: Artifact) -> bool:
    return not below(by, artifact)


def _way_out(layers: Mapping[str, str], sqnr: float | None) -> str:
    """How to leave the layers in float; ``sqnr`` is what that gives, in dB, where a least SQNR finds them too."""
    these = "it" if len(layers) == 1 else "them" if len(layers) <= NAMED else f"these {len(layers)}"
    if sqnr is not None:
        return f"keep {these} in float with --min-sqnr {FLOOR_DB:g}, which gives {sqnr:.1f} dB"
    return f"keep {these} in float with skip = [{', '.join(map(repr, layers))}] in a recipe"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
