"""The report of a step: what was measured before and after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pocketzoo.compress.pipeline.graph_scores import race
from pocketzoo.compress.pipeline.job import SCORED, Job
from pocketzoo.core.files import scratch_folder
from pocketzoo.zoo.artifacts.driver import Graphs
from pocketzoo.zoo.artifacts.drivers import artifact_of, main_files, size_of
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.bundles.manifest import Manifest
from pocketzoo.zoo.bundles.metric_value import MetricValue
from pocketzoo.zoo.bundles.step_record import CalibrationScores, Change, MetricChange, StepReport
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.graphs.files.graph_files import save_graph
from pocketzoo.zoo.graphs.files.load_graph import read_graph
from pocketzoo.zoo.models.model_costs import macs_of

if TYPE_CHECKING:
    from onnx import ModelProto

FEW = 8  # samples that a graph is quantized on to be timed alone


def measure_step(
    bundle: Bundle, graph: Graphs, job: Job, target: TargetSpec, manifest: Manifest | None = None
) -> StepReport:
    """A new graph compared with the float graph it was made from. ``manifest``: of the new one, where it is a module's.

    A module that a step on the graph follows is timed as that step will make it: what is smaller may be slower in int8.
    """
    before = artifact_of(bundle)
    latency, latency_of = None, ""
    # Refitted or sparse weights in the same layers take the same time.
    same = manifest is not None and (manifest.macs, manifest.parameters) == (
        macs_of(bundle),
        bundle.manifest.parameters,
    )
    if target.timed_here and not same:
        with scratch_folder() as folder:
            pair: list[Graphs] = [before, graph]
            if manifest is not None and job.graph_step is not None and (encode := encoder_of(job)) is not None:
                places = [folder / f"{i}.onnx" for i in range(len(pair))]
                for each, place in zip(pair, places, strict=True):  # a module has one graph
                    save_graph(encode(read_graph(main_files(each)[0])), place)
                pair = [*places]
                latency_of = f"{job.graph_step[0].name} for {target.name}"
            timed = race(pair[0], pair[1], job.sample)
        latency = Change(before=timed.before, after=timed.after)
    old, new = job.judge.score(before), job.judge.score(graph)
    return StepReport(
        bytes=Change(before=size_of(before), after=size_of(graph)),
        latency=latency,
        latency_of=latency_of,
        metric=None if old.metric is None or new.metric is None else _metric(old.metric, new.metric),
        agreement=None
        if old.agreement is None or new.agreement is None
        else Change(before=old.agreement, after=new.agreement),
        sqnr=new.sqnr,
        outputs=dict(new.outputs) if len(new.outputs) > 1 else {},
        differing=dict(new.differing),
        selected_by=dict(new.selected_by),
        same_selection=dict(new.same_selection),
        held=new.held,
        samples=new.samples,
        sources=job.counts.left_out if job.counts.fair else 0,
        calibration=_calibration_scores(graph, job),
    )


def _calibration_scores(graph: Graphs, job: Job) -> CalibrationScores | None:
    """What a graph is worth on samples that it was calibrated on; None where it is judged on no others."""
    if not len(job.validation.split):
        return None
    sources = replace(job.samples, limit=SCORED).groups
    score = job.calibration_judge.score(graph)
    return CalibrationScores(
        samples=score.samples,
        sources=0 if sources is None else len(set(sources.tolist())),
        metric=None if score.metric is None else score.metric.value,
        agreement=score.agreement,
        sqnr=score.sqnr,
    )


def _metric(old: MetricValue, new: MetricValue) -> MetricChange:
    return MetricChange(
        name=new.name,
        before=old.value,
        after=new.value,
        low=new.low,
        high=new.high,
        higher_is_better=new.higher_is_better,
        unit=new.unit,
    )


def encoder_of(job: Job) -> Callable[[ModelProto], ModelProto] | None:
    """What makes of a float graph that which is shipped for the first target, its numbers only roughly.

    None where no step on the graph follows.
    """
    if job.graph_step is None:
        return None
    compressor, config = job.graph_step

    def encode(model: ModelProto) -> ModelProto:
        plan = (compressor.sketch or compressor.plan)(model, config, replace(job.graph_samples, limit=FEW))
        return compressor.apply(model, plan, job.target)

    return encode


def with_report(manifest: Manifest | None, back: int = 1, **changes: Any) -> Manifest:
    """The manifest with changes to the report of its last step, or of the one so many steps ``back``."""
    assert manifest is not None
    steps = list(manifest.steps)
    steps[-back] = replace(steps[-back], report=replace(steps[-back].report, **changes))
    return replace(manifest, steps=tuple(steps))
