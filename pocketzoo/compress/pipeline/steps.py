"""Run one step of a recipe: plan, apply, measure before and after, and reject it where it does not pay."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from safetensors.numpy import save

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.pipeline.acceptance import (
    FLOOR_SHARE,
    Rejected,
    check_cost,
    check_report,
    same_graph,
    same_module,
)
from pocketzoo.compress.pipeline.checkpoints import DISTILLATION, Checkpoints
from pocketzoo.compress.pipeline.generation_graphs import plan_parts, write_parts, writes_text
from pocketzoo.compress.pipeline.job import Job
from pocketzoo.compress.pipeline.judge import Judge
from pocketzoo.compress.pipeline.step_report import before_and_after, measure_step, with_report
from pocketzoo.compress.quantization.mixed_precision import FloatEffect, search
from pocketzoo.core.errors import DataError
from pocketzoo.core.progress import SILENT
from pocketzoo.core.typed import to_plain
from pocketzoo.zoo.bundles.bundle import (
    Bundle,
    Draft,
    graph_name,
    read_bundle,
    source_file_name,
    tensors_name,
    updating,
    writing,
)
from pocketzoo.zoo.bundles.manifest import Step
from pocketzoo.zoo.catalog.compressor import Compressor, Distillation, GraphCompressor, ModuleCompressor

CLOSE = 1 / 8  # of what a step was asked to remove: how close the search for what a budget allows comes


def take(bundle: Bundle, number: int, job: Job, desk: Checkpoints) -> Bundle:
    """Take step ``number`` (from 0), and those that repair it where it needs that; note them as finished, and give it.

    Under a budget (``max_drop``) less and less of the step is tried, by bisection. A step that is rejected for good
    leaves the model as it was; the manifest says so, and why.
    """
    compressor, asked = job.configs[number]
    end = _end(job, number) if job.settings.max_drop is not None else number + 1
    weaker = compressor.weaker if isinstance(compressor, ModuleCompressor) else None
    tried: list[dict[str, Any]] = []
    best: Path | None = None
    low, high, share = 0.0, 1.0, 1.0
    while True:
        config = asked if share == 1.0 or weaker is None else weaker(asked, share)
        folder = desk.folder / f"trial-{share}"
        try:
            _attempt(bundle, range(number, end), config, job, folder)
            best, low = folder, share
        except Rejected as no:
            if no.cause == "floor" and end < _end(job, number):  # what repairs it may bring it back above
                job.progress.say(f"{compressor.name}: {no.why}; continuing to the distillation step after it")
                end = _end(job, number)
                continue
            job.progress.say(f"{compressor.name}: rejected: {no.why}")
            tried.append({"kind": compressor.name, "config": to_plain(config), **no.record})
            if no.cause == "unchanged" and share < 1.0:
                low = share  # less of it would change nothing either
            else:
                high = share
            if (
                weaker is None
                or job.settings.max_drop is None
                or (share == 1.0 and no.cause not in ("budget", "floor"))
            ):
                break
        if low == 1.0 or high - low <= CLOSE:
            break
        share = (low + high) / 2
        job.progress.say(f"{compressor.name}: trying {share:.0%} of the requested reduction")
    made = desk.folder / "made"
    if best is None:
        whole = {**tried[0], **({"tried": tried} if len(tried) > 1 else {})}
        with writing(made) as draft:
            copy_float(bundle, draft)
            draft.manifest = replace(bundle.manifest, rejected=(*bundle.manifest.rejected, whole))
    elif tried:
        with updating(read_bundle(best), made) as draft:
            draft.manifest = with_report(draft.manifest, {"rejected": tried}, back=end - number)
    else:
        made = best
    return desk.keep(end, made)


def _end(job: Job, number: int) -> int:
    """After the step and those that win back what it loses."""
    end = number + 1
    while end < len(job.configs) and _learns(job.configs[end][0]):
        end += 1
    return end


def _learns(compressor: Compressor) -> bool:
    return isinstance(compressor, ModuleCompressor) and compressor.distill is not None


def _attempt(bundle: Bundle, numbers: range, config: Any, job: Job, folder: Path) -> None:
    """Write the bundle that steps make to ``folder``; ``config`` is the first one's, and the budget is held after all.

    Raises:
        Rejected: it does not pay; nothing is written.
    """
    began_with = bundle.file(graph_name())
    for number in numbers:
        compressor, asked = job.configs[number]
        first, last = number == numbers[0], number == numbers[-1]
        place = folder if last else folder.with_name(f"{folder.name}-{number}")
        allowed = _allowed(job, number) if last else None
        given = config if first else asked
        if isinstance(compressor, ModuleCompressor):
            _module_step(
                bundle, compressor, given, job, place, allowed, first=first, began_with=began_with if last else None
            )
        else:
            _graph_step(bundle, compressor, given, job, place, allowed)
        bundle = read_bundle(place)


def _allowed(job: Job, number: int) -> float | None:
    """What the metric may have lost after a step: each has an equal part of the budget, and what others left of it."""
    return None if job.settings.max_drop is None else job.settings.max_drop * (number + 1) / len(job.configs)


# -- steps on the module


def _module_step(
    bundle: Bundle,
    compressor: ModuleCompressor[Any, Any],
    config: Any,
    job: Job,
    folder: Path,
    allowed: float | None,
    *,
    first: bool,
    began_with: Path | None,
) -> None:
    """``first`` of the steps that are held together; ``began_with``: their first graph, where this is the last."""
    # Here, because a step on the graph needs no torch, which takes longer to import than a small graph to quantize.
    from pocketzoo.zoo.models.build import load_module
    from pocketzoo.zoo.models.save import save_model

    start, manifest = time.perf_counter(), bundle.manifest
    module = load_module(bundle, job.registry)
    job.progress.say(f"{compressor.name}: planning")
    plan = compressor.plan(module, config, job.samples, job.module_target)
    job.progress.say(f"{compressor.name}: applying")
    if compressor.distill is None:
        smaller = compressor.apply(module, plan, job.samples)
    else:
        context = Distillation(load_module(job.source, job.registry), folder.parent / DISTILLATION, job.progress)
        smaller = compressor.distill(module, plan, job.samples, context)
    with writing(folder) as draft:
        job.progress.say("exporting and checking the graph")
        save_model(
            draft,
            smaller,
            manifest.model,
            name=manifest.name,
            labels=manifest.labels,
            returns=manifest.gives,
            license=manifest.license,
            input_spec=manifest.input,
            provenance=manifest.provenance,
            steps=(*manifest.steps, Step(kind=compressor.name, config=to_plain(config), plan=to_plain(plan))),
            opset=max(target.opset for target in job.targets),
            files=bundle.source_files(),
        )
        assert draft.manifest is not None
        seconds = time.perf_counter() - start
        report = {
            "seconds": seconds,
            **before_and_after("parameters", manifest.parameters, draft.manifest.parameters),
            **before_and_after("macs", manifest.macs, draft.manifest.macs),
        }
        made = draft.folder / graph_name()
        report |= measure_step(bundle, made, job, job.target, draft.manifest)
        if first and not job.settings.accept and _unchanged(bundle, draft):
            raise Rejected(f"it changed nothing{_left(plan)}", report, "unchanged")
        if began_with is not None:
            check_report(report, job, began_with, made, allowed=allowed)
        else:
            check_cost(report, job)
        draft.manifest = with_report(replace(draft.manifest, rejected=manifest.rejected), report)


def _unchanged(bundle: Bundle, draft: Draft) -> bool:
    assert draft.manifest is not None
    name = "model.safetensors"
    tensors = (bundle.file(name), draft.folder / name) if name in bundle.manifest.files else None
    return tensors is not None and same_module(bundle.manifest, draft.manifest, tensors)


# -- steps on the graph


def _graph_step(
    bundle: Bundle, compressor: GraphCompressor[Any, Any], config: Any, job: Job, folder: Path, allowed: float | None
) -> None:
    start = time.perf_counter()
    if compressor.several_inputs and writes_text(bundle, job.registry) and not bundle.parts():
        from pocketzoo.zoo.models.generation_graphs import with_parts  # a bundle that has them needs no torch

        # The source is not changed: they go into a copy.
        bundle = with_parts(bundle, job.registry, job.progress, folder.with_name(f"{folder.name}-parts"))
    model = onnx.load(bundle.file(graph_name()))
    samples = replace(job.graph_samples, progress=job.progress, label=f"{compressor.name}: calibrating")
    plan = compressor.plan(model, config, samples)
    kept: list[FloatEffect] = []
    own = _own_judge(bundle, config, job, allowed)
    with writing(folder) as draft:
        copy_float(bundle, draft)
        if own is not None:
            enough = _enough(own, config, job, allowed)
            found = search(model, plan, job.graph_samples, job.target, enough, draft.folder, job.progress)
            if found is None:
                seconds = {"seconds": time.perf_counter() - start}
                raise Rejected("every layer would have to stay in float", seconds, "budget")
            plan, kept = found
        if tensors := getattr(plan, "tensors", None):
            draft.mark(tensors_name(compressor.name), precision=compressor.precision).write_bytes(save(dict(tensors)))
        reports, rejected = _encoded(
            bundle, compressor, model, plan, job, draft, own, allowed, getattr(config, "min_sqnr", None)
        )
        plans: dict[str, Any] = {}
        if compressor.several_inputs and bundle.parts():
            job.progress.say(f"{compressor.name}: generation graphs")
            texts = replace(job.graph_samples, progress=SILENT)
            plans = plan_parts(bundle, compressor, config, texts, {effect.layer for effect in kept})
            floor = None if job.settings.accept else FLOOR_SHARE
            budgets = [b for b in (allowed, getattr(config, "max_drop", None), floor) if b is not None]
            generation_report = write_parts(
                bundle,
                draft,
                compressor,
                plans,
                [target for target in job.targets if target.name in reports],
                (x for x, _ in replace(job.validation, size=1)) if len(job.validation.split) else texts,
                max_drop=min(budgets, default=None),
                keep_slower=job.settings.keep_slower,
                progress=job.progress,
            )
        step = Step(
            kind=compressor.name,
            config=to_plain(config),
            plan=to_plain(plan),
            parts={part: to_plain(of_part) for part, of_part in plans.items()},
        )
        draft.manifest = with_report(
            replace(bundle.manifest, steps=(*bundle.manifest.steps, step)),
            {
                "seconds": time.perf_counter() - start,
                **next(iter(reports.values())),
                **({"generation": generation_report} if plans else {}),
                **({"left_in_float": {effect.layer: str(effect) for effect in kept}} if kept else {}),
                **({"rejected": rejected} if rejected else {}),
            },
        )


def _encoded(
    bundle: Bundle,
    compressor: GraphCompressor[Any, Any],
    model: onnx.ModelProto,
    plan: Any,
    job: Job,
    draft: Draft,
    own: Judge | None,
    allowed: float | None,
    least: float | None,
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Write the graph for each target; the reports by target, and what was rejected for some.

    Raises:
        Rejected: it was for all.
    """
    reports: dict[str, dict[str, Any]] = {}
    rejected: list[dict[str, Any]] = []
    for target in job.targets:
        place = draft.mark(
            graph_name(target.name, compressor.precision), target=target.name, precision=compressor.precision
        )
        encoded = compressor.apply(model, plan, target)
        onnx.save(encoded, place)
        report = measure_step(bundle, place, job, target)
        if own is not None and (sqnr := own.score(place).sqnr) is not None:
            report["sqnr_against_float_db"] = sqnr
        try:
            if not job.settings.accept and same_graph(model, encoded):
                if own is not None:  # it would, were it not for the budget
                    raise Rejected("every layer would have to stay in float", report, "budget")
                raise Rejected(f"it changed nothing{_left(plan)}", report, "unchanged")
            check_report(report, job, bundle.file(graph_name()), place, allowed=allowed, least=least)
            reports[target.name] = report
        except Rejected as no:
            if len(job.targets) == 1:
                raise
            job.progress.say(f"{compressor.name} for {target.name}: rejected: {no.why}")
            rejected.append({"target": target.name, **no.record})
            place.unlink()
            del draft.kinds[place.name]
    if not reports:
        why = "; ".join(f"{no['target']}: {no['why']}" for no in rejected)
        raise Rejected(why, rejected[0]["report"], rejected[0]["cause"])
    return reports, rejected


def _own_judge(bundle: Bundle, config: Any, job: Job, allowed: float | None) -> Judge | None:
    """Of int8 graphs against the float graph they are made from; None where nothing holds them to a budget."""
    if not isinstance(config, Int8Config) or (config.min_sqnr, config.max_drop, allowed) == (None, None, None):
        return None
    if not len(job.validation.split):
        raise DataError(
            f"{job.dataset.name} has no validation samples, which a budget for int8 needs", "give more data"
        )
    if bundle.path == job.source.path:
        return job.judge
    return Judge(bundle.file(graph_name()), job.validation, returns=bundle.manifest.gives)


def _enough(own: Judge, config: Int8Config, job: Job, allowed: float | None) -> Callable[[Path], bool]:
    """What decides whether an int8 graph is good enough."""

    def enough(graph: Path) -> bool:
        sqnr = own.score(graph).sqnr
        return (
            (config.min_sqnr is None or sqnr is None or sqnr >= config.min_sqnr)
            and (config.max_drop is None or own.drop(graph) <= config.max_drop)
            and (allowed is None or job.judge.drop(graph) <= allowed)
        )

    return enough


# -- what both share


def _left(plan: Any) -> str:
    """The first of the layers that a plan leaves alone, and why."""
    left: Mapping[str, str] = getattr(plan, "left", {}) or getattr(plan, "dense", {})
    more = f", and {len(left) - 1} more" if len(left) > 1 else ""
    return next((f": {name} is left unchanged, as {why}{more}" for name, why in left.items()), "")


def copy_float(bundle: Bundle, draft: Draft) -> None:
    """Everything of a bundle but what was made of it for one target."""
    for path, file in bundle.source_files().items():
        shutil.copyfile(file, draft.folder / source_file_name(path))
    if "model.safetensors" in bundle.manifest.files:  # a graph from elsewhere has no module
        shutil.copyfile(bundle.file("model.safetensors"), draft.folder / "model.safetensors")
    shutil.copyfile(bundle.file(graph_name()), draft.mark(graph_name(), precision="float32"))
    for part, graph in bundle.parts().items():
        shutil.copyfile(graph, draft.mark(graph.name, precision="float32", part=part))
