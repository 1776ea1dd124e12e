"""A step on the graph: plan, apply for each target, judge, write; each takes what the one before it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx

from pocketzoo.compress.pipeline.acceptance import FLOOR_SHARE, Rejected, check_report, same_graph
from pocketzoo.compress.pipeline.attempt import Attempt, copy_float
from pocketzoo.compress.pipeline.budgets import beyond_budget, budgets_of, own_judge
from pocketzoo.compress.pipeline.generation_graphs import plan_parts, write_parts
from pocketzoo.compress.pipeline.graph_scores import Judge
from pocketzoo.compress.pipeline.job import Job
from pocketzoo.compress.pipeline.step_report import measure_step
from pocketzoo.compress.quantization.mixed_precision import FloatEffect, search
from pocketzoo.core.progress import SILENT
from pocketzoo.core.typed import to_plain
from pocketzoo.zoo.bundles.bundle import Bundle, Draft, graph_name, read_bundle, writing
from pocketzoo.zoo.bundles.step_record import GenerationReport, Rejection, StepReport
from pocketzoo.zoo.catalog.compressor import GraphCompressor
from pocketzoo.zoo.catalog.specs import TargetSpec


@dataclass(frozen=True, slots=True)
class PlannedGraph:
    """A float graph, and what is to be done to it."""

    model: onnx.ModelProto
    plan: Any
    float_layers: tuple[FloatEffect, ...] = ()  # that a budget leaves in float, with what each costs
    judge: Judge | None = None  # of graphs against the float one; None where nothing holds them to a budget


@dataclass(frozen=True, slots=True)
class AppliedGraph:
    """The graph that the plan makes for a target, in the draft of a bundle."""

    target: TargetSpec
    path: Path
    unchanged: bool  # it computes what the float graph does, in the same nodes


@dataclass(frozen=True, slots=True)
class JudgedGraphs:
    """What was measured of the graphs of each target that is to have one."""

    reports: Mapping[str, StepReport]  # by target
    rejected: Sequence[Rejection] = ()  # those left out for a target


@dataclass(frozen=True, slots=True)
class GenerationGraphs:
    """Likewise of the generation graphs, where the model has some."""

    plans: Mapping[str, Any] = field(default_factory=dict)  # by part
    report: Mapping[str, GenerationReport] = field(default_factory=dict)  # by target


def take_graph_step(attempt: Attempt, compressor: GraphCompressor[Any, Any], job: Job) -> Bundle:
    """Take a step on the graph and write the bundle that it makes.

    Raises:
        Rejected: it does not pay; nothing is written.
    """
    attempt = replace(attempt, bundle=_with_generation_graphs(attempt, compressor, job))
    bundle = attempt.bundle
    planned = plan_graph(attempt, compressor, job)
    with writing(attempt.folder) as draft:
        copy_float(bundle, draft)
        planned = within_budget(attempt, compressor, planned, job, draft.folder)
        attempt.save_tensors(planned.plan, draft)
        applied = apply_to_graph(compressor, planned, job, draft)
        judged = judge_graphs(attempt, compressor, planned, applied, job, draft)
        generation = _take_generation_graphs(attempt, compressor, planned, judged, job, draft)
        report = replace(
            next(iter(judged.reports.values())),
            seconds=attempt.seconds,
            generation=generation.report,
            float_layers={effect.layer: str(effect) for effect in planned.float_layers},
            rejected=tuple(judged.rejected),
        )
        step = attempt.record(planned.plan, generation.plans, report)
        draft.manifest = replace(bundle.manifest, steps=(*bundle.manifest.steps, step))
    return read_bundle(attempt.folder)


def _with_generation_graphs(attempt: Attempt, compressor: GraphCompressor[Any, Any], job: Job) -> Bundle:
    """The bundle with the graphs it generates text by, where it can and the step works on them: in a copy of it."""
    if not (compressor.several_inputs and job.generates_text) or attempt.bundle.parts():
        return attempt.bundle
    from pocketzoo.zoo.models.generation_graphs import add_generation_graphs  # a bundle that has them needs no torch

    assert job.structure is not None  # by prepare
    copy = attempt.folder.with_name(f"{attempt.folder.name}-parts")
    return add_generation_graphs(attempt.bundle, job.structure, job.progress, copy)


def plan_graph(attempt: Attempt, compressor: GraphCompressor[Any, Any], job: Job) -> PlannedGraph:
    """Decide, and change nothing."""
    model = onnx.load(attempt.bundle.file(graph_name()))
    samples = replace(job.graph_samples, progress=job.progress, label=f"{compressor.name}: calibrating")
    plan = compressor.plan(model, attempt.config, samples)
    return PlannedGraph(model, plan, judge=_own_judge(attempt, compressor, job))


def within_budget(
    attempt: Attempt, compressor: GraphCompressor[Any, Any], planned: PlannedGraph, job: Job, folder: Path
) -> PlannedGraph:
    """The plan with so many layers left in float that it meets its budget. Graphs are tried in ``folder``.

    What cannot exclude layers stays as it is, and is judged whole.

    Raises:
        Rejected: every layer would have to be.
    """
    if planned.judge is None or compressor.exclude is None:
        return planned
    enough = _enough(planned.judge, compressor, attempt.config, job, attempt.allowed)
    within = search(
        compressor, planned.model, planned.plan, job.graph_samples, job.target, enough, folder, job.progress
    )
    if within is None:
        raise Rejected("every layer would have to stay in float", StepReport(seconds=attempt.seconds), "budget")
    plan, float_layers = within
    return replace(planned, plan=plan, float_layers=tuple(float_layers))


def apply_to_graph(
    compressor: GraphCompressor[Any, Any], planned: PlannedGraph, job: Job, draft: Draft
) -> tuple[AppliedGraph, ...]:
    """Make the graph for each target."""
    applied = []
    for target in job.targets:
        name = graph_name(target.name, compressor.precision)
        path = draft.mark(name, target=target.name, precision=compressor.precision)
        encoded = compressor.apply(planned.model, planned.plan, target)
        onnx.save(encoded, path)
        unchanged = not job.settings.accept and same_graph(planned.model, encoded)
        applied.append(AppliedGraph(target, path, unchanged))
    return tuple(applied)


def judge_graphs(
    attempt: Attempt,
    compressor: GraphCompressor[Any, Any],
    planned: PlannedGraph,
    applied: Sequence[AppliedGraph],
    job: Job,
    draft: Draft,
) -> JudgedGraphs:
    """Measure the graph of each target; one that is rejected is taken out of the draft.

    Raises:
        Rejected: all are.
    """
    reports: dict[str, StepReport] = {}
    rejected: list[Rejection] = []
    for graph in applied:
        try:
            reports[graph.target.name] = _judge_graph(attempt, compressor, planned, graph, job)
        except Rejected as no:
            if len(applied) == 1:
                raise
            job.progress.say(f"{compressor.name} for {graph.target.name}: rejected: {no.why}")
            record = no.record(compressor.name, attempt.provider, to_plain(attempt.config), graph.target.name)
            rejected.append(record)
            graph.path.unlink()
            del draft.kinds[graph.path.name]
    if not reports:
        raise Rejected("; ".join(f"{no.target}: {no.why}" for no in rejected), rejected[0].report, rejected[0].cause)
    return JudgedGraphs(reports, rejected)


def _judge_graph(
    attempt: Attempt, compressor: GraphCompressor[Any, Any], planned: PlannedGraph, graph: AppliedGraph, job: Job
) -> StepReport:
    own, bundle = planned.judge, attempt.bundle
    report = measure_step(bundle, graph.path, job, graph.target)
    if own is not None:
        report = replace(report, sqnr_against_float=own.score(graph.path).sqnr)
    if graph.unchanged:
        if own is not None and compressor.exclude is not None:  # it would change something, were it not for the budget
            raise Rejected("every layer would have to stay in float", report, "budget")
        raise Rejected(f"it changed nothing{attempt.left_alone(planned.plan)}", report, "unchanged")
    if (
        own is not None
        and compressor.exclude is None
        and (why := beyond_budget(own, compressor, attempt.config, graph.path))
    ):
        raise Rejected(why, report, "budget")
    least = getattr(attempt.config, "min_sqnr", None) if "min_sqnr" in compressor.budgets else None
    check_report(report, job, bundle.file(graph_name()), graph.path, allowed=attempt.allowed, least=least)
    return report


def _take_generation_graphs(
    attempt: Attempt,
    compressor: GraphCompressor[Any, Any],
    planned: PlannedGraph,
    judged: JudgedGraphs,
    job: Job,
    draft: Draft,
) -> GenerationGraphs:
    """Plan, apply and judge the step on the generation graphs, for the targets that have the whole graph."""
    if not (compressor.several_inputs and attempt.bundle.parts()):
        return GenerationGraphs()
    job.progress.say(f"{compressor.name}: generation graphs")
    texts = replace(job.graph_samples, progress=SILENT)
    float_layers = {effect.layer for effect in planned.float_layers}
    plans = plan_parts(attempt.bundle, compressor, attempt.config, texts, float_layers)
    floor = None if job.settings.accept else FLOOR_SHARE
    own = budgets_of(compressor, attempt.config)
    budgets = [b for b in (attempt.allowed, own.get("max_drop"), floor) if b is not None]
    report = write_parts(
        attempt,
        draft,
        compressor,
        plans,
        [target for target in job.targets if target.name in judged.reports],
        (x for x, _ in replace(job.validation, size=1)) if len(job.validation.split) else texts,
        max_drop=min(budgets, default=None),
        keep_slower=job.settings.keep_slower,
        progress=job.progress,
    )
    return GenerationGraphs(plans, report)


def _own_judge(attempt: Attempt, compressor: GraphCompressor[Any, Any], job: Job) -> Judge | None:
    """Of graphs against the float graph they are made from; None where nothing holds them to a budget."""
    if not budgets_of(compressor, attempt.config) and (attempt.allowed is None or compressor.exclude is None):
        return None
    return own_judge(attempt.bundle, compressor, job)


def _enough(
    own: Judge, compressor: GraphCompressor[Any, Any], config: Any, job: Job, allowed: float | None
) -> Callable[[Path], bool]:
    """What decides whether a graph is good enough."""

    def enough(graph: Path) -> bool:
        within = not beyond_budget(own, compressor, config, graph)
        return within and (allowed is None or job.judge.drop(graph) <= allowed)

    return enough
