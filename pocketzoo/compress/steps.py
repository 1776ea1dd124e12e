"""Take one step of a recipe: bundle in, bundle out, measured before and after, turned down where it does not pay."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from safetensors.numpy import save

from pocketzoo.compress.base import Compressor, GraphCompressor, Lesson, ModuleCompressor
from pocketzoo.compress.checkpoints import LESSON, Checkpoints
from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.float_layers import Effect, search
from pocketzoo.compress.job import Job
from pocketzoo.compress.judge import SLACK, Judge, race
from pocketzoo.compress.writing import plan_parts, write_parts, writes_text
from pocketzoo.errors import DataError
from pocketzoo.progress import SILENT
from pocketzoo.zoo.bundle import (
    Bundle,
    Draft,
    Manifest,
    Step,
    graph_name,
    read_bundle,
    tensors_name,
    travelling,
    updating,
    writing,
)
from pocketzoo.zoo.specs import TargetSpec
from pocketzoo.zoo.typed import to_plain

LARGER = 1.001  # a file is larger only if it is so many times as large: names of nodes change
CLOSE = 1 / 8  # of what a step was asked to remove: how close the search for what a budget allows comes


class TurnedDown(Exception):  # noqa: N818 - no error: the run goes on without the step
    """What a step made is not as good, as small or as fast as what it was to replace."""

    def __init__(self, why: str, report: Mapping[str, Any], *, by_metric: bool = False) -> None:
        super().__init__(why)
        self.why, self.report, self.by_metric = why, report, by_metric  # by_metric: less of it may pass


def take(bundle: Bundle, number: int, job: Job, desk: Checkpoints) -> Bundle:
    """Take step ``number`` (from 0) and under a budget those that repair it, note them as finished; what they made.

    Under ``job.max_drop`` less and less of the step is tried, by bisection. A step that is turned down for good leaves
    the model as it was; the manifest says so, and why.
    """
    compressor, asked = job.configs[number]
    end = _end(job, number)
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
        except TurnedDown as no:
            job.progress.say(f"{compressor.name}: turned down: {no.why}")
            tried.append({"kind": compressor.name, "config": to_plain(config), "why": no.why, "report": no.report})
            high = share
            if weaker is None or not no.by_metric:
                break
        if low == 1.0 or high - low <= CLOSE:
            break
        share = (low + high) / 2
        job.progress.say(f"{compressor.name}: trying {share:.0%} of what was asked")
    made = desk.folder / "made"
    if best is None:
        last = {**tried[-1], "config": to_plain(asked), **({"tried": tried} if len(tried) > 1 else {})}
        with writing(made) as draft:
            copy_float(bundle, draft)
            draft.manifest = replace(bundle.manifest, turned_down=(*bundle.manifest.turned_down, last))
    elif tried:
        with updating(read_bundle(best), made) as draft:
            draft.manifest = _with_report(draft.manifest, {"turned_down": tried}, back=end - number)
    else:
        made = best
    return desk.keep(end, made)


def _end(job: Job, number: int) -> int:
    """Behind the step and, under a budget, those that win back what it loses."""
    end = number + 1
    while job.max_drop is not None and end < len(job.configs) and _learns(job.configs[end][0]):
        end += 1
    return end


def _learns(compressor: Compressor) -> bool:
    return isinstance(compressor, ModuleCompressor) and compressor.teach is not None


def _attempt(bundle: Bundle, numbers: range, config: Any, job: Job, folder: Path) -> None:
    """Write the bundle that steps make to ``folder``; ``config`` is the first one's, and the budget is held after all.

    Raises:
        TurnedDown: it does not pay; nothing is written.
    """
    for number in numbers:
        compressor, asked = job.configs[number]
        last = number == numbers[-1]
        place = folder if last else folder.with_name(f"{folder.name}-{number}")
        allowed = _allowed(job, number) if last else None
        given = config if number == numbers[0] else asked
        if isinstance(compressor, ModuleCompressor):
            _module_step(bundle, compressor, given, job, place, allowed)
        else:
            _graph_step(bundle, compressor, given, job, place, allowed)
        bundle = read_bundle(place)


def _allowed(job: Job, number: int) -> float | None:
    """What the metric may have lost after a step: each has an equal part of the budget, and what others left of it."""
    return None if job.max_drop is None else job.max_drop * (number + 1) / len(job.configs)


# -- steps on the module


def _module_step(
    bundle: Bundle, compressor: ModuleCompressor[Any, Any], config: Any, job: Job, folder: Path, allowed: float | None
) -> None:
    # Here, because a step on the graph needs no torch, which takes longer to import than a small graph to quantise.
    from pocketzoo.zoo.model import load_module
    from pocketzoo.zoo.save import save_model

    start, manifest = time.perf_counter(), bundle.manifest
    module = load_module(bundle, job.registry)
    job.progress.say(f"{compressor.name}: planning")
    plan = compressor.plan(module, config, job.samples, job.target)
    job.progress.say(f"{compressor.name}: applying")
    if compressor.teach is None:
        smaller = compressor.apply(module, plan, job.samples)
    else:
        lesson = Lesson(load_module(job.source, job.registry), folder.parent / LESSON, job.progress)
        smaller = compressor.teach(module, plan, job.samples, lesson)
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
            files=bundle.travelled(),
        )
        assert draft.manifest is not None
        seconds = time.perf_counter() - start
        report = {
            "seconds": seconds,
            **_pair("parameters", manifest.parameters, draft.manifest.parameters),
            **_pair("macs", manifest.macs, draft.manifest.macs),
            **_measured(bundle, draft.folder / graph_name(), job, _runs_here(job.target), draft.manifest),
        }
        _object(report, job, allowed)
        draft.manifest = _with_report(replace(draft.manifest, turned_down=manifest.turned_down), report)


# -- steps on the graph


def _graph_step(
    bundle: Bundle, compressor: GraphCompressor[Any, Any], config: Any, job: Job, folder: Path, allowed: float | None
) -> None:
    start = time.perf_counter()
    if compressor.several_inputs and writes_text(bundle, job.registry) and not bundle.parts():
        from pocketzoo.zoo.parts import with_parts  # a bundle that has them needs no torch

        # The source is not changed: they go into a copy.
        bundle = with_parts(bundle, job.registry, job.progress, folder.with_name(f"{folder.name}-parts"))
    model = onnx.load(bundle.file(graph_name()))
    samples = replace(job.graph_samples, progress=job.progress, label=f"{compressor.name}: calibrating")
    plan = compressor.plan(model, config, samples)
    kept: list[Effect] = []
    own = _own_judge(bundle, config, job, allowed)
    with writing(folder) as draft:
        copy_float(bundle, draft)
        if own is not None:
            enough = _enough(own, config, job, allowed)
            found = search(model, plan, job.graph_samples, job.target, enough, draft.folder, job.progress)
            if found is None:
                raise TurnedDown("every layer would have to stay in float", {"seconds": time.perf_counter() - start})
            plan, kept = found
        if tensors := getattr(plan, "tensors", None):
            draft.mark(tensors_name(compressor.name), precision=compressor.precision).write_bytes(save(dict(tensors)))
        reports: dict[str, dict[str, Any]] = {}
        turned_down: list[dict[str, Any]] = []
        for target in job.targets:
            place = draft.mark(
                graph_name(target.name, compressor.precision), target=target.name, precision=compressor.precision
            )
            onnx.save(compressor.apply(model, plan, target), place)
            report = _measured(bundle, place, job, _runs_here(target))
            if own is not None and (sqnr := own.score(place).sqnr) is not None:
                report["sqnr_against_float_db"] = sqnr
            try:
                _object(report, job, allowed)
                reports[target.name] = report
            except TurnedDown as no:
                if len(job.targets) == 1:
                    raise
                job.progress.say(f"{compressor.name} for {target.name}: turned down: {no.why}")
                turned_down.append({"target": target.name, "why": no.why, "report": report})
                place.unlink()
                del draft.kinds[place.name]
        if not reports:
            raise TurnedDown("; ".join(f"{no['target']}: {no['why']}" for no in turned_down), turned_down[0]["report"])
        plans: dict[str, Any] = {}
        if compressor.several_inputs and bundle.parts():
            job.progress.say(f"{compressor.name}: the graphs that write")
            texts = replace(job.graph_samples, progress=SILENT)
            plans = plan_parts(bundle, compressor, config, texts, {effect.layer for effect in kept})
            budgets = [b for b in (allowed, getattr(config, "max_drop", None)) if b is not None]
            writing_report = write_parts(
                bundle,
                draft,
                compressor,
                plans,
                [target for target in job.targets if target.name in reports],
                (x for x, _ in replace(job.validation, size=1)) if len(job.validation.split) else texts,
                max_drop=min(budgets, default=None),
                keep_slower=job.keep_slower,
                progress=job.progress,
            )
        step = Step(
            kind=compressor.name,
            config=to_plain(config),
            plan=to_plain(plan),
            parts={part: to_plain(of_part) for part, of_part in plans.items()},
        )
        draft.manifest = _with_report(
            replace(bundle.manifest, steps=(*bundle.manifest.steps, step)),
            {
                "seconds": time.perf_counter() - start,
                **next(iter(reports.values())),
                **({"writing": writing_report} if plans else {}),
                **({"left_in_float": {effect.layer: str(effect) for effect in kept}} if kept else {}),
                **({"turned_down": turned_down} if turned_down else {}),
            },
        )


def _own_judge(bundle: Bundle, config: Any, job: Job, allowed: float | None) -> Judge | None:
    """Of int8 graphs against the float graph they are made from; None where nothing holds them to a budget."""
    if not isinstance(config, Int8Config) or (config.min_sqnr, config.max_drop, allowed) == (None, None, None):
        return None
    if job.judge is None:
        raise DataError(f"{job.dataset.name} has no validation samples to hold int8 to a budget on", "give more data")
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
            and (allowed is None or job.judge is None or job.judge.drop(graph) <= allowed)
        )

    return enough


# -- what both share


def copy_float(bundle: Bundle, draft: Draft) -> None:
    """Everything of a bundle but what was made of it for one target."""
    for path, file in bundle.travelled().items():
        shutil.copyfile(file, draft.folder / travelling(path))
    if "model.safetensors" in bundle.manifest.files:  # a graph from elsewhere has no module
        shutil.copyfile(bundle.file("model.safetensors"), draft.folder / "model.safetensors")
    shutil.copyfile(bundle.file(graph_name()), draft.mark(graph_name(), precision="float32"))
    for part, graph in bundle.parts().items():
        shutil.copyfile(graph, draft.mark(graph.name, precision="float32", part=part))


def _runs_here(target: TargetSpec) -> bool:
    return target.timed_here


def _measured(
    bundle: Bundle, graph: Path, job: Job, runs_here: bool, manifest: Manifest | None = None
) -> dict[str, Any]:
    """A new graph beside the float graph it was made from. ``manifest``: of the new one, where it is a module's."""
    before = bundle.file(graph_name())
    report = _pair("bytes", before.stat().st_size, graph.stat().st_size)
    # Refitted or sparse weights in the same layers take the same time.
    same = manifest is not None and (manifest.macs, manifest.parameters) == (
        bundle.manifest.macs,
        bundle.manifest.parameters,
    )
    if runs_here and not same:
        timed = race(before, graph, job.sample)
        report |= _pair("latency_ms", timed.before, timed.after)
    if job.judge is not None:
        old, new = job.judge.score(before), job.judge.score(graph)
        if old.accuracy is not None and new.accuracy is not None:
            report |= _pair("accuracy", old.accuracy, new.accuracy)
        report |= _pair("agreement", old.agreement, new.agreement)
        report |= {} if new.sqnr is None else {"sqnr_db": new.sqnr}
        report |= {"validation_samples": new.samples}
    return report


def _object(report: Mapping[str, Any], job: Job, allowed: float | None) -> None:
    """Raises:
    TurnedDown: what was measured speaks against shipping it.
    """
    if allowed is not None and job.judge is not None:
        metric = job.judge.metric
        first = job.judge.score(job.judge.reference)
        start = first.agreement if first.accuracy is None else first.accuracy
        drop = start - report[f"{metric}_after"]
        if drop > allowed:
            raise TurnedDown(
                f"{metric} falls by {100 * drop:.2f} points, {100 * allowed:.2f} are allowed so far",
                report,
                by_metric=True,
            )
    if job.keep_slower:
        return
    if report["bytes_after"] > report["bytes_before"] * LARGER:
        raise TurnedDown(f"larger: {report['bytes_before']:,} -> {report['bytes_after']:,} bytes", report)
    if report.get("latency_ms_after", 0.0) > report.get("latency_ms_before", 0.0) * SLACK:
        raise TurnedDown(
            f"slower: {report['latency_ms_before']:.3f} -> {report['latency_ms_after']:.3f} ms a sample", report
        )


def _pair(name: str, before: Any, after: Any) -> dict[str, Any]:
    return {f"{name}_before": before, f"{name}_after": after}


def _with_report(manifest: Manifest | None, report: Mapping[str, Any], back: int = 1) -> Manifest:
    """The manifest with more in the report of its last step, or of the one so many steps ``back``."""
    assert manifest is not None
    steps = list(manifest.steps)
    steps[-back] = replace(steps[-back], report={**steps[-back].report, **report})
    return replace(manifest, steps=tuple(steps))
