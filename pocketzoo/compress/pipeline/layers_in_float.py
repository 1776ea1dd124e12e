"""Which layers a graph step leaves in float: so many that a budget, or the floor, is met."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pocketzoo.compress.pipeline.acceptance import Rejected
from pocketzoo.compress.pipeline.attempt import Attempt
from pocketzoo.compress.pipeline.budgets import beyond_budget, budgets_of, own_judge
from pocketzoo.compress.pipeline.graph_scores import Judge, NotFiniteError
from pocketzoo.compress.pipeline.job import Job
from pocketzoo.compress.pipeline.planned_graph import PlannedGraphs
from pocketzoo.compress.quantization.mixed_precision import excludable, search
from pocketzoo.core.arrays import Arrays
from pocketzoo.zoo.artifacts.driver import Artifact
from pocketzoo.zoo.artifacts.drivers import artifact_of, ends
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.bundles.step_record import StepReport
from pocketzoo.zoo.catalog.compressor import GraphCompressor
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.graphs.files.graph_files import save_graph
from pocketzoo.zoo.graphs.files.weight_files import remove_graph


def calls_of(attempt: Attempt, name: str, samples: Iterable[Arrays]) -> Iterable[Arrays]:
    """What a float graph reads on the way to the first end."""
    return ends(artifact_of(attempt.bundle))[0].calls(name, samples, partial(OnnxRunner, threads=1))


def within_budget(
    attempt: Attempt, compressor: GraphCompressor[Any, Any], planned: PlannedGraphs, job: Job, folder: Path
) -> PlannedGraphs:
    """The plans with so many layers left in float that they meet their budget. Graphs are tried in ``folder``.

    What cannot exclude layers stays as it is, and is judged whole.

    Raises:
        Rejected: every layer would have to be.
    """
    if planned.judge is None or compressor.exclude is None:
        return planned
    enough = _enough(planned.judge, compressor, attempt.config, job, attempt.allowed)
    others = [target for target in job.targets if target != job.target]
    within = with_float_layers(attempt, compressor, planned, enough, job, job.target, folder, others)
    if within is None:
        raise Rejected("every layer would have to stay in float", StepReport(seconds=attempt.seconds), "budget")
    return within


def with_float_layers(
    attempt: Attempt,
    compressor: GraphCompressor[Any, Any],
    planned: PlannedGraphs,
    enough: Callable[[Artifact], bool],
    job: Job,
    target: TargetSpec,
    folder: Path,
    others: Sequence[TargetSpec] = (),
) -> PlannedGraphs | None:
    """The plans with so many layers left in float that the graphs for a target are good ``enough``; None if none are.

    One graph is so for ``others`` too; several are not looked at for them.

    Graphs are tried in ``folder``. Of several one after the other is searched, until they are; those before it are
    float then, and are searched again with what was found.
    """
    exclude = compressor.exclude
    assert exclude is not None
    artifact, several = artifact_of(attempt.bundle), len(planned.graphs) > 1
    plans = {name: graph.plan for name, graph in planned.graphs.items()}
    float_layers: dict[str, dict[str, str]] = {name: {} for name in plans}
    encoded: dict[str, Path] = {}

    def encode(name: str) -> None:
        """As it is to be written, for the searches in the other graphs."""
        encoded[name] = folder / f"{name}.candidate.onnx"
        save_graph(compressor.apply(planned.graphs[name].model, plans[name], target), encoded[name])

    def found(name: str) -> bool:
        """Whether it is met by layers of this graph, the others being as they are."""

        def passes(path: Path) -> bool:
            return enough(replace(artifact, graphs={**artifact.graphs, **encoded, name: path}))

        graph, samples = planned.graphs[name], calls_of(attempt, name, job.graph_samples)
        held = job.settings.outputs
        also = () if several else others
        within = search(compressor, graph.model, graph.plan, samples, target, passes, folder, job.progress, held, also)
        if within is not None:
            plans[name], effects = within
            float_layers[name] = {effect.layer: str(effect) for effect in effects}
        return within is not None

    try:
        for name in plans if several else ():
            encode(name)
        searched: list[str] = []
        for name, graph in planned.graphs.items():
            if found(name):
                break
            plans[name] = exclude(graph.plan, layers := excludable(compressor, graph.plan))
            float_layers[name] = dict.fromkeys(layers, "all of this graph")
            searched.append(name)
            if several:
                encode(name)
        else:
            return None
        # What spoiled the end may all be in the last graph: those before it get back what is not needed of them.
        changed = name
        for earlier in searched:
            encode(changed)
            found(earlier)
            changed = earlier
    finally:
        for path in encoded.values():
            remove_graph(path)
    graphs = {name: replace(graph, plan=plans[name]) for name, graph in planned.graphs.items()}
    told = {f"{name}:{layer}" if several else layer: why for name in plans for layer, why in float_layers[name].items()}
    return replace(planned, graphs=graphs, float_layers={**planned.float_layers, **told})


def own_judge_of(attempt: Attempt, compressor: GraphCompressor[Any, Any], job: Job) -> Judge | None:
    """Of graphs against the float graph they are made from; None where nothing holds them to a budget."""
    if not budgets_of(compressor, attempt.config) and (attempt.allowed is None or compressor.exclude is None):
        return None
    return own_judge(attempt.bundle, compressor, job)


def _enough(
    own: Judge, compressor: GraphCompressor[Any, Any], config: Any, job: Job, allowed: float | None
) -> Callable[[Artifact], bool]:
    """What decides whether graphs are good enough."""

    def enough(artifact: Artifact) -> bool:
        try:
            within = not beyond_budget(own, compressor, config, artifact)
            return within and (allowed is None or job.judge.drop(artifact) <= allowed)
        except NotFiniteError:
            return False

    return enough
