"""The report of a step: what was measured before and after it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from pocketzoo.compress.pipeline.graph_scores import race
from pocketzoo.compress.pipeline.job import Job
from pocketzoo.zoo.bundles.bundle import Bundle, graph_name
from pocketzoo.zoo.bundles.manifest import Manifest
from pocketzoo.zoo.catalog.specs import TargetSpec

FEW = 8  # samples that a graph is quantized on to be timed alone


def measure_step(
    bundle: Bundle, graph: Path, job: Job, target: TargetSpec, manifest: Manifest | None = None
) -> dict[str, Any]:
    """A new graph compared with the float graph it was made from. ``manifest``: of the new one, where it is a module's.

    A module that a step on the graph follows is timed as that step will make it: what is smaller may be slower in int8.
    """
    before = bundle.file(graph_name())
    report = before_and_after("bytes", before.stat().st_size, graph.stat().st_size)
    # Refitted or sparse weights in the same layers take the same time.
    same = manifest is not None and (manifest.macs, manifest.parameters) == (
        bundle.manifest.macs,
        bundle.manifest.parameters,
    )
    if target.timed_here and not same:
        with tempfile.TemporaryDirectory() as folder:
            pair, what = [before, graph], ""
            if manifest is not None and job.graph_step is not None:
                pair = [_as_shipped(path, job, Path(folder) / f"{i}.onnx") for i, path in enumerate(pair)]
                what = f"{job.graph_step[0].name} for {target.name}"
            timed = race(pair[0], pair[1], job.sample)
        report |= before_and_after("latency_ms", timed.before, timed.after)
        report |= {"latency_of": what} if what else {}
    old, new = job.judge.score(before), job.judge.score(graph)
    if old.metric is not None and new.metric is not None:
        report |= before_and_after(new.metric.key, old.metric.value, new.metric.value)
        report |= {"metric": new.metric.key}
    if old.agreement is not None and new.agreement is not None:
        report |= before_and_after("agreement", old.agreement, new.agreement)
    report |= {} if new.sqnr is None else {"sqnr_db": new.sqnr}
    report |= {"outputs_db": dict(new.outputs)} if len(new.outputs) > 1 else {}
    return report | {"validation_samples": new.samples}


def _as_shipped(graph: Path, job: Job, place: Path) -> Path:
    """A float graph as the step on the graph will make it for the first target, its numbers only roughly."""
    assert job.graph_step is not None
    compressor, config = job.graph_step
    model, samples = onnx.load(graph), job.graph_samples
    few = replace(samples, batches=replace(samples.batches, limit=FEW))
    plan = (compressor.sketch or compressor.plan)(model, config, few)
    onnx.save(compressor.apply(model, plan, job.target), place)
    return place


def before_and_after(name: str, before: Any, after: Any) -> dict[str, Any]:
    """Two entries of a report."""
    return {f"{name}_before": before, f"{name}_after": after}


def with_report(manifest: Manifest | None, report: Mapping[str, Any], back: int = 1) -> Manifest:
    """The manifest with more in the report of its last step, or of the one so many steps ``back``."""
    assert manifest is not None
    steps = list(manifest.steps)
    steps[-back] = replace(steps[-back], report={**steps[-back].report, **report})
    return replace(manifest, steps=tuple(steps))
