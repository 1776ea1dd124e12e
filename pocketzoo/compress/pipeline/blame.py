"""Which layers are to blame for a graph step below the floor: those that in float bring it back, and at what cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pocketzoo.compress.pipeline.acceptance import FLOOR_DB, Rejected, below_floor
from pocketzoo.compress.pipeline.attempt import Attempt
from pocketzoo.compress.pipeline.graph_scores import Judge, NotFiniteError, Score
from pocketzoo.compress.pipeline.job import Job
from pocketzoo.compress.pipeline.layers_in_float import with_float_layers
from pocketzoo.compress.pipeline.planned_graph import PlannedGraphs
from pocketzoo.compress.quantization.mixed_precision import write
from pocketzoo.zoo.artifacts.driver import Artifact
from pocketzoo.zoo.artifacts.drivers import artifact_of
from pocketzoo.zoo.catalog.compressor import GraphCompressor
from pocketzoo.zoo.catalog.specs import TargetSpec

FEW = 32  # samples that a choice of layers is tried on
NAMED = 3  # layers that a message names


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

    Graphs are tried in ``folder``.
    """
    if no.cause != "floor" or compressor.exclude is None:
        return no
    job.progress.say(f"{compressor.name} for {target.name}: {no.why}; looking for the layers to blame")
    judge, before = job.judge, artifact_of(attempt.bundle)
    samples = replace(judge.samples, limit=min(FEW, judge.samples.limit or FEW))
    few = Judge(judge.reference, samples, task=judge.task, held=judge.held)

    def below(by: Judge, artifact: Artifact) -> bool:
        try:
            return bool(below_floor(*map(by.score, (by.reference, before, artifact))))
        except NotFiniteError:
            return True

    for by in (few, judge):  # a choice that few samples speak for is held to the floor on all of them
        within = with_float_layers(attempt, compressor, planned, partial(_kept, below, by), job, target, folder)
        if within is None or not within.float_layers:
            return no
        score = _whole(within, compressor, before, target, folder, judge, partial(below, judge))
        if score is not None:
            break
    else:
        return no
    layers, sqnr = within.float_layers, score.sqnr
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
            path.unlink(missing_ok=True)


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
