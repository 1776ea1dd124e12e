"""The ends of an artifact beyond its first, such as the text that it generates, in a step on graphs.

The graphs on the way there are planned, applied and judged by themselves: for a target where they do not pay they are
left in float, and the others are shipped without them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

from pocketzoo.compress.pipeline.acceptance import FLOOR_SHARE
from pocketzoo.compress.pipeline.attempt import Attempt
from pocketzoo.compress.pipeline.budgets import budgets_of
from pocketzoo.compress.pipeline.graph_scores import SLACK
from pocketzoo.compress.pipeline.job import Job
from pocketzoo.compress.pipeline.planned_graph import PlannedGraph, apply_to_graph, plan_graph
from pocketzoo.core.arrays import Arrays
from pocketzoo.core.progress import SILENT
from pocketzoo.zoo.artifacts.driver import End
from pocketzoo.zoo.artifacts.drivers import artifact_of, ends
from pocketzoo.zoo.artifacts.end_score import likeness, milliseconds_a_step
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.bundles.bundle import Draft, graph_name
from pocketzoo.zoo.bundles.step_record import Cause, Change, GenerationReport
from pocketzoo.zoo.catalog.compressor import GraphCompressor
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.graphs.files.weight_files import graph_bytes, remove_graph

SECONDS = 0.2  # that graphs are timed for


@dataclass(frozen=True, slots=True)
class FurtherEnds:
    """What was decided and measured there."""

    plans: Mapping[str, Any] = field(default_factory=dict)  # by graph
    reports: Mapping[str, GenerationReport] = field(default_factory=dict)  # by target


def take_further_ends(
    attempt: Attempt,
    compressor: GraphCompressor[Any, Any],
    float_layers: set[str],
    targets: Sequence[TargetSpec],
    job: Job,
    draft: Draft,
) -> FurtherEnds:
    """Plan, apply and judge the step on the graphs that only lead to further ends.

    ``float_layers`` are left in float there too. ``targets`` are those whose other graphs were accepted.
    """
    first, *others = ends(artifact_of(attempt.bundle))
    plans: dict[str, Any] = {}
    reports: dict[str, GenerationReport] = {}
    for end in others:
        names = [name for name in end.graphs if name not in first.graphs]
        job.progress.say(f"{compressor.name}: {end.name} graphs")
        samples = replace(job.graph_samples, progress=SILENT)
        graphs = {name: _planned(attempt, compressor, end, name, samples, float_layers) for name in names}
        for name, graph in graphs.items():
            attempt.save_tensors(graph.plan, draft, name)
            plans[name] = graph.plan
        own = budgets_of(compressor, attempt.config)
        floor = None if job.settings.accept else FLOOR_SHARE
        budgets = [b for b in (attempt.allowed, own.get("max_drop"), floor) if b is not None]
        batches = replace(job.validation, size=1 if end.alone else job.validation.size)
        tried = (x for x, _ in batches) if len(job.validation.split) else iter(samples)
        few = list(islice(tried, end.most))
        for target in targets:
            report = _report(compressor, end, graphs, target, few, draft)
            why, cause = against(end, report, min(budgets, default=None), keep_slower=job.settings.keep_slower)
            if why:
                report = replace(report, why=why, cause=cause)
                for name in names:
                    path = draft.folder / graph_name(target.name, compressor.precision, name)
                    remove_graph(path)
                    del draft.kinds[path.name]
            words = ", ".join(end.artifact.graphs[name].name for name in names)
            equal = f"{report.agreement:.1%} of {report.tokens} {end.unit}s agree"
            job.progress.say(
                f"{compressor.name} for {target.name}, {end.name} graphs ({words}): "
                f"{f'left in float: {why}' if why else equal}"
            )
            reports[target.name] = report
    return FurtherEnds(plans, reports)


def _planned(
    attempt: Attempt,
    compressor: GraphCompressor[Any, Any],
    end: End,
    name: str,
    samples: Iterable[Arrays],
    float_layers: set[str],
) -> PlannedGraph:
    calls = end.calls(name, samples, partial(OnnxRunner, threads=1))
    graph = plan_graph(end.artifact.graphs[name], compressor, attempt.config, calls, one_of=2)
    return graph if compressor.exclude is None else replace(graph, plan=compressor.exclude(graph.plan, float_layers))


def _report(
    compressor: GraphCompressor[Any, Any],
    end: End,
    graphs: Mapping[str, PlannedGraph],
    target: TargetSpec,
    samples: Sequence[Arrays],
    draft: Draft,
) -> GenerationReport:
    """Write the graphs for a target, and compare what they give with what the float ones do."""
    before = end.artifact
    after = {name: apply_to_graph(compressor, name, graph, target, draft)[0] for name, graph in graphs.items()}
    new = replace(end, artifact=replace(before, graphs={**before.graphs, **after}))
    start = partial(OnnxRunner, threads=1)
    sizes = [sum(graph_bytes(each.artifact.graphs[name]) for name in end.graphs) for each in (end, new)]
    with ExitStack() as stack:
        runners = [stack.enter_context(each.open(start)) for each in (end, new)]
        score = likeness(end, runners[0], runners[1], samples)
        latency = None
        if target.timed_here and samples:
            times = milliseconds_a_step(end, runners, samples[0], SECONDS)
            latency = Change(before=times[0], after=times[1])
    return GenerationReport(
        bytes=Change(before=sizes[0], after=sizes[1]),
        texts=score.samples,
        tokens=score.steps,
        agreement=score.agreement,
        same_texts=score.same,
        latency=latency,
    )


def against(end: End, report: GenerationReport, max_drop: float | None, *, keep_slower: bool) -> tuple[str, Cause]:
    """What speaks against shipping the graphs of a further end; nothing where nothing does."""
    if max_drop is not None and report.agreement is not None and report.agreement < 1.0 - max_drop:
        return f"{1.0 - report.agreement:.1%} of the {end.unit}s change, at most {max_drop:.1%} are allowed", "budget"
    size, latency = report.bytes, report.latency
    if not keep_slower and size.after > size.before:
        return f"larger: {size.before:,} -> {size.after:,} bytes", "larger"
    if not keep_slower and latency is not None and latency.after > latency.before * SLACK:
        return f"slower: {latency.before:.2f} -> {latency.after:.2f} ms a {end.unit}", "slower"
    return "", ""
