"""A step on graphs: plan, apply for each target, judge, write; each takes what the one before it gives.

All graphs of an artifact are compressed. Those on the way to its first end are judged there, as one; what is measured
at its other ends is in ``further_ends.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from onnx import ModelProto

from pocketzoo.compress.pipeline.acceptance import Rejected, check_report, same_graph
from pocketzoo.compress.pipeline.attempt import Attempt, copy_float
from pocketzoo.compress.pipeline.blame import above_floor, blamed, too_dear
from pocketzoo.compress.pipeline.budgets import beyond_budget, least_sqnr
from pocketzoo.compress.pipeline.further_ends import take_further_ends
from pocketzoo.compress.pipeline.graph_scores import NotFiniteError
from pocketzoo.compress.pipeline.job import Job
from pocketzoo.compress.pipeline.layers_in_float import calls_of, own_judge_of, within_budget
from pocketzoo.compress.pipeline.planned_graph import (
    PlannedGraph,
    PlannedGraphs,
    apply_to_graph,
    check_names,
    plan_graph,
)
from pocketzoo.compress.pipeline.step_report import measure_step
from pocketzoo.compress.quantization.calibration import one_by_one
from pocketzoo.core.typed import to_plain
from pocketzoo.zoo.artifacts.driver import Artifact
from pocketzoo.zoo.artifacts.drivers import artifact_of, ends
from pocketzoo.zoo.bundles.bundle import Bundle, Draft, read_bundle, writing
from pocketzoo.zoo.bundles.manifest import SINGLE
from pocketzoo.zoo.bundles.step_record import Rejection, StepReport
from pocketzoo.zoo.catalog.compressor import GraphCompressor
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.graphs.files.weight_files import remove_graph


@dataclass(frozen=True, slots=True)
class AppliedGraphs:
    """The graphs that the plans make for a target, in the draft of a bundle."""

    target: TargetSpec
    artifact: Artifact
    unchanged: bool  # they compute what the float graphs do, in the same nodes
    in_float: Mapping[str, str] = field(default_factory=dict)  # every layer that is, and why

    def discard(self, draft: Draft) -> None:
        """Take them out of the draft."""
        for path in self.artifact.graphs.values():
            if path.parent == draft.folder and draft.kinds[path.name].target == self.target.name:
                remove_graph(path)
                del draft.kinds[path.name]


@dataclass(frozen=True, slots=True)
class JudgedGraphs:
    """What was measured of the graphs of each target that is to have some."""

    reports: Mapping[str, StepReport]  # by target
    refused: Mapping[str, Rejected] = field(default_factory=dict)  # by target, those that may not be shipped
    rejected: Sequence[Rejection] = ()  # the same as the manifest has them

    @property
    def below_floor(self) -> list[str]:
        """The targets whose graphs lose too much of an output."""
        return [name for name, no in self.refused.items() if no.cause == "floor"]


@dataclass(frozen=True, slots=True)
class TakenGraphs:
    """The graphs that a step ships."""

    planned: PlannedGraphs
    applied: Sequence[AppliedGraphs]
    judged: JudgedGraphs


def take_graph_step(attempt: Attempt, compressor: GraphCompressor[Any, Any], job: Job) -> Bundle:
    """Take a step on the graphs and write the bundle that it makes.

    Raises:
        Rejected: it does not pay; nothing is written.
    """
    attempt = replace(attempt, bundle=_with_all_graphs(attempt, job))
    bundle = attempt.bundle
    planned = plan_graphs(attempt, compressor, job)
    with writing(attempt.folder) as draft:
        copy_float(bundle, draft)
        planned = within_budget(attempt, compressor, planned, job, draft.folder)
        taken = _above_floor(attempt, compressor, planned, job, draft)
        planned, applied, judged = taken.planned, taken.applied, taken.judged
        for name, graph in planned.graphs.items():
            attempt.save_tensors(graph.plan, draft, name)
        accepted = [target for target in job.targets if target.name in judged.reports]
        further = take_further_ends(attempt, compressor, set(planned.float_layers), accepted, job, draft)
        report = replace(
            next(iter(judged.reports.values())),
            seconds=attempt.seconds,
            generation=further.reports,
            float_layers=dict(planned.float_layers),
            float_why=planned.float_why,
            in_float={each.target.name: each.in_float for each in applied if each.target.name in judged.reports},
            rejected=tuple(judged.rejected),
        )
        step = attempt.record({**{name: graph.plan for name, graph in planned.graphs.items()}, **further.plans}, report)
        draft.manifest = replace(bundle.manifest, steps=(*bundle.manifest.steps, step))
    return read_bundle(attempt.folder)


def _with_all_graphs(attempt: Attempt, job: Job) -> Bundle:
    """The bundle with all graphs that its model can have, such as those that text is generated by: in a copy of it."""
    if not job.lacks_graphs:
        return attempt.bundle
    # A bundle that has them needs no torch.
    from pocketzoo.zoo.models.generation_graphs import add_generation_graphs

    if attempt.bundle.manifest.driver != SINGLE:
        return attempt.bundle
    assert job.structure is not None  # by prepare
    copy = attempt.folder.with_name(f"{attempt.folder.name}-parts")
    return add_generation_graphs(attempt.bundle, job.structure, job.progress, copy)


def plan_graphs(attempt: Attempt, compressor: GraphCompressor[Any, Any], job: Job) -> PlannedGraphs:
    """Decide, and change nothing.

    Raises:
        UnknownNameError: the config names a layer that no graph has.
    """
    artifact = artifact_of(attempt.bundle)
    end = ends(artifact)[0]
    if len(artifact.graphs) > 1:
        check_names(compressor, attempt.config, artifact.graphs.values())
    samples = replace(job.graph_samples, progress=job.progress, label=f"{compressor.name}: calibrating")
    graphs = {
        name: plan_graph(
            end.artifact.graphs[name],
            compressor,
            attempt.config,
            calls_of(attempt, name, samples),
            one_of=len(end.graphs),
        )
        for name in end.graphs
    }
    tuned = {name: _tuned(attempt, compressor, name, graph, job) for name, graph in graphs.items()}
    return PlannedGraphs(tuned, judge=own_judge_of(attempt, compressor, job))


def _tuned(
    attempt: Attempt, compressor: GraphCompressor[Any, Any], name: str, graph: PlannedGraph, job: Job
) -> PlannedGraph:
    """A graph's plan as it is fastest on each target that can be timed here."""
    if compressor.tune is None or not job.timers:
        return graph
    plan, x = graph.plan, next(one_by_one(graph.model, calls_of(attempt, name, job.graph_samples)))
    for target in job.targets:
        if timer := job.timers.get(target.name):
            job.progress.say(f"{compressor.name} for {target.name}: timing layers")
            plan = compressor.tune(graph.model, plan, attempt.config, x, target, timer)
    return replace(graph, plan=plan)


def apply_to_graphs(
    attempt: Attempt, compressor: GraphCompressor[Any, Any], planned: PlannedGraphs, job: Job, draft: Draft
) -> tuple[AppliedGraphs, ...]:
    """Make the graphs for each target."""
    artifact, applied = artifact_of(attempt.bundle), []
    for target in job.targets:
        paths, unchanged, models = dict(artifact.graphs), not job.settings.accept, dict[str, ModelProto]()
        for name, graph in planned.graphs.items():
            paths[name], models[name] = apply_to_graph(compressor, name, graph, target, draft)
            unchanged = unchanged and same_graph(graph.model, models[name])
        in_float = planned.in_float(compressor, models, target)
        applied.append(AppliedGraphs(target, replace(artifact, graphs=paths), unchanged, in_float))
    return tuple(applied)


def _above_floor(
    attempt: Attempt, compressor: GraphCompressor[Any, Any], planned: PlannedGraphs, job: Job, draft: Draft
) -> TakenGraphs:
    """The graphs as planned; where one falls below the floor, with so many layers left in float that none does.

    Raises:
        Rejected: all are, with those layers too.
    """
    applied = apply_to_graphs(attempt, compressor, planned, job, draft)
    judged = judge_graphs(attempt, compressor, planned, applied, job)
    below = [target for target in job.targets if target.name in judged.below_floor]
    if below:
        why = judged.refused[below[0].name].why
        job.progress.say(f"{compressor.name} for {below[0].name}: {why}; looking for layers to leave in float")
        targets = (below[0], *(target for target in job.targets if target is not below[0]))
        found = above_floor(attempt, compressor, planned, targets, job, draft.folder)
        for graphs in applied if found is not None else ():
            graphs.discard(draft)
        if found is not None:
            mixed = replace(found[0], float_why=why)
            applied = apply_to_graphs(attempt, compressor, mixed, job, draft)
            judged = judge_graphs(attempt, compressor, mixed, applied, job)
            refused = {name: too_dear(no, why, mixed) for name, no in judged.refused.items()}
            planned, judged = mixed, replace(judged, refused=refused)
        elif len(applied) == 1 and compressor.exclude is not None:
            no = judged.refused[below[0].name]
            vain = f"{no.why}, whichever layers are left in float"
            judged = replace(judged, refused={below[0].name: Rejected(vain, no.report, no.cause)})
        elif len(applied) > 1:  # each by itself may
            named = {}
            for target in below:
                no = judged.refused[target.name]
                named[target.name] = blamed(no, attempt, compressor, planned, target, job, draft.folder)
            judged = replace(judged, refused={**judged.refused, **named})
    return TakenGraphs(planned, applied, accepted(attempt, compressor, applied, judged, job, draft))


def judge_graphs(
    attempt: Attempt,
    compressor: GraphCompressor[Any, Any],
    planned: PlannedGraphs,
    applied: Sequence[AppliedGraphs],
    job: Job,
) -> JudgedGraphs:
    """Measure the graphs of each target at their end."""
    reports: dict[str, StepReport] = {}
    refused: dict[str, Rejected] = {}
    for graphs in applied:
        try:
            reports[graphs.target.name] = _judge(attempt, compressor, planned, graphs, job)
        except Rejected as reason:
            refused[graphs.target.name] = reason
    return JudgedGraphs(reports, refused)


def accepted(
    attempt: Attempt,
    compressor: GraphCompressor[Any, Any],
    applied: Sequence[AppliedGraphs],
    judged: JudgedGraphs,
    job: Job,
    draft: Draft,
) -> JudgedGraphs:
    """What was judged; the graphs that are rejected are taken out of the draft, and noted.

    Raises:
        Rejected: all are.
    """
    if len(applied) == 1 and judged.refused:
        raise next(iter(judged.refused.values()))
    rejected: list[Rejection] = []
    for graphs in applied:
        if no := judged.refused.get(graphs.target.name):
            job.progress.say(f"{compressor.name} for {graphs.target.name}: rejected: {no.why}")
            config = to_plain(attempt.config)
            rejected.append(no.record(compressor.name, attempt.provider, config, graphs.target.name))
            graphs.discard(draft)
    if not judged.reports:
        why = "; ".join(f"{no.target}: {no.why}" for no in rejected)
        first = next((no for no in rejected if no.float_layers), rejected[0])
        raise Rejected(why, first.report, first.cause, float_layers=first.float_layers, way_out=first.way_out)
    return replace(judged, rejected=rejected)


def _judge(
    attempt: Attempt, compressor: GraphCompressor[Any, Any], planned: PlannedGraphs, applied: AppliedGraphs, job: Job
) -> StepReport:
    own, artifact = planned.judge, applied.artifact
    try:
        report = measure_step(attempt.bundle, artifact, job, applied.target)
    except NotFiniteError as error:
        raise Rejected(error.message, StepReport(seconds=attempt.seconds), "floor") from error
    if own is not None:
        report = replace(report, sqnr_against_float=own.score(artifact).sqnr)
    if applied.unchanged:
        if own is not None and compressor.exclude is not None:  # it would change something, were it not for the budget
            raise Rejected("every layer would have to stay in float", report, "budget")
        left = next(filter(None, (attempt.left_alone(graph.plan) for graph in planned.graphs.values())), "")
        raise Rejected(f"it changed nothing{left}", report, "unchanged")
    if own is not None and (why := beyond_budget(own, compressor, attempt.config, artifact)):
        raise Rejected(why, report, "budget")
    least = least_sqnr(compressor, attempt.config)
    check_report(report, job, artifact_of(attempt.bundle), artifact, allowed=attempt.allowed, least=least)
    return report
