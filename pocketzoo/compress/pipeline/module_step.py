"""A step on the module: plan, apply, judge, write; each takes what the one before it gives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketzoo.compress.pipeline.acceptance import Rejected, check_cost, check_report, same_module
from pocketzoo.compress.pipeline.attempt import Attempt, carry_tensors
from pocketzoo.compress.pipeline.budgets import beyond_budget, budgets_of, own_judge
from pocketzoo.compress.pipeline.checkpoints import DISTILLATION
from pocketzoo.compress.pipeline.graph_scores import NotFiniteError
from pocketzoo.compress.pipeline.job import Job
from pocketzoo.compress.pipeline.step_report import encoder_of, measure_step
from pocketzoo.zoo.bundles.bundle import Bundle, Draft, graph_name, read_bundle, writing
from pocketzoo.zoo.bundles.manifest import MODEL, Manifest
from pocketzoo.zoo.bundles.step_record import Change, StepReport
from pocketzoo.zoo.catalog.compressor import Distillation, ModuleCompressor
from pocketzoo.zoo.models.model_costs import macs_of

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = "model.safetensors"


@dataclass(frozen=True, slots=True)
class PlannedModule:
    """A module, and what is to be done to it."""

    module: nn.Module
    plan: Any


@dataclass(frozen=True, slots=True)
class AppliedModule:
    """What the plan made: its graph and weights in the draft of a bundle, and the manifest they have so far."""

    plan: Any
    graph: Path
    weights: Path
    manifest: Manifest
    seconds: float


def take_module_step(attempt: Attempt, compressor: ModuleCompressor[Any, Any], job: Job) -> Bundle:
    """Take a step on the module and write the bundle that it makes.

    Raises:
        Rejected: it does not pay; nothing is written.
    """
    planned = plan_module(attempt, compressor, job)
    with writing(attempt.folder) as draft:
        applied = apply_to_module(attempt, compressor, planned, job, draft)
        report = judge_module(attempt, applied, job)
        steps = (*applied.manifest.steps[:-1], replace(applied.manifest.steps[-1], report=report))
        draft.manifest = replace(applied.manifest, steps=steps, rejected=attempt.bundle.manifest.rejected)
    return read_bundle(attempt.folder)


def plan_module(attempt: Attempt, compressor: ModuleCompressor[Any, Any], job: Job) -> PlannedModule:
    """Decide, and change nothing."""
    module = job.load_module(attempt.bundle)
    job.progress.say(f"{compressor.name}: planning")
    return PlannedModule(module, plan_for_shipping(compressor, module, attempt.config, job))


def plan_for_shipping(compressor: ModuleCompressor[Any, Any], module: nn.Module, config: Any, job: Job) -> Any:
    """What a step on the module decides; what it times, it times as the step on the graph after it makes it."""
    known: dict[str, Any] = {"shipped": encoder_of(job)} if compressor.times_shipped else {}
    return compressor.plan(module, config, job.samples, job.module_target, **known)


def apply_to_module(
    attempt: Attempt, compressor: ModuleCompressor[Any, Any], planned: PlannedModule, job: Job, draft: Draft
) -> AppliedModule:
    """Make the new module, and its graph."""
    # Here, because a step on the graph needs no torch, which takes longer to import than a small graph to quantize.
    from pocketzoo.zoo.models.save import save_model

    manifest, plan = attempt.bundle.manifest, planned.plan
    job.progress.say(f"{compressor.name}: applying")
    if compressor.distill is None:
        smaller = compressor.apply(planned.module, plan, job.samples)
    else:
        snapshot = attempt.folder.parent / DISTILLATION
        context = Distillation(job.load_module(job.source), snapshot, job.progress)
        smaller = compressor.distill(planned.module, plan, job.samples, context)
    job.progress.say("exporting and checking the graph")
    save_model(
        draft,
        smaller,
        manifest.model,
        name=manifest.name,
        labels=manifest.labels,
        data_columns=manifest.data_columns,
        answers=job.answers,
        license=manifest.license,
        input_spec=manifest.processor,
        provenance=manifest.provenance,
        steps=(*manifest.steps, attempt.record({MODEL: plan})),
        opset=max(target.opset for target in job.targets),
        files=attempt.bundle.source_files(),
        processor=job.processor,
    )
    carry_tensors(attempt.bundle, draft)
    attempt.save_tensors(plan, draft)
    assert draft.manifest is not None
    folder = draft.folder
    return AppliedModule(plan, folder / graph_name(), folder / WEIGHTS, draft.manifest, attempt.seconds)


def judge_module(attempt: Attempt, applied: AppliedModule, job: Job) -> StepReport:
    """Measure it, before and after.

    Raises:
        Rejected: what was measured speaks against it.
    """
    bundle, before, after = attempt.bundle, attempt.bundle.manifest, applied.manifest
    try:
        measured = measure_step(bundle, applied.graph, job, job.target, after)
    except NotFiniteError as error:
        raise Rejected(error.message, StepReport(seconds=applied.seconds), "floor") from error
    report = replace(
        measured,
        seconds=applied.seconds,
        parameters=Change(before=before.parameters, after=after.parameters),
        macs=Change(before=macs_of(bundle), after=after.macs),
    )
    if attempt.first and not job.settings.accept and _unchanged(bundle, applied):
        raise Rejected(f"it changed nothing{attempt.left_alone(applied.plan)}", report, "unchanged")
    if budgets_of(attempt.compressor, attempt.config):
        own = own_judge(bundle, attempt.compressor, job)
        if why := beyond_budget(own, attempt.compressor, attempt.config, applied.graph):
            raise Rejected(why, report, "budget")
    if attempt.last:
        check_report(report, job, attempt.began_with, applied.graph, allowed=attempt.allowed)
    else:
        check_cost(report, job)
    return report


def _unchanged(bundle: Bundle, applied: AppliedModule) -> bool:
    if WEIGHTS not in bundle.manifest.files:
        return False
    return same_module(bundle.manifest, applied.manifest, (bundle.file(WEIGHTS), applied.weights))
