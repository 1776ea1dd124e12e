"""Take one step of a recipe: try it, with less of it under a budget, and reject it where it does not pay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pocketzoo.compress.pipeline.acceptance import Rejected
from pocketzoo.compress.pipeline.attempt import Attempt, copy_float
from pocketzoo.compress.pipeline.budgets import budgets_of
from pocketzoo.compress.pipeline.checkpoints import Checkpoints
from pocketzoo.compress.pipeline.graph_step import take_graph_step
from pocketzoo.compress.pipeline.job import Job
from pocketzoo.compress.pipeline.module_step import take_module_step
from pocketzoo.compress.pipeline.step_report import with_report
from pocketzoo.core.typed import to_plain
from pocketzoo.zoo.artifacts.drivers import artifact_of
from pocketzoo.zoo.bundles.bundle import Bundle, read_bundle, updating, writing
from pocketzoo.zoo.bundles.step_record import Rejection
from pocketzoo.zoo.catalog.compressor import Compressor, GraphCompressor, ModuleCompressor

CLOSE = 1 / 8  # of what a step was asked to remove: how close the search for what a budget allows comes


def take(bundle: Bundle, number: int, job: Job, desk: Checkpoints) -> Bundle:
    """Take step ``number`` (from 0), and those that repair it where it needs that; note them as finished, and give it.

    Under a budget (``max_drop``, or one of its own config) less and less of the step is tried, by bisection. A step
    that is rejected for good leaves the model as it was; the manifest says so, and why.
    """
    compressor, asked = job.configs[number]
    end = _end(job, number) if job.settings.max_drop is not None else number + 1
    weaker, provider = compressor.weaker, job.providers.get(compressor.name, "")
    budgeted = bool(budgets_of(compressor, asked))
    tried: list[Rejection] = []
    best: Path | None = None
    low, high, share = 0.0, 1.0, 1.0
    while True:
        config = asked if share == 1.0 or weaker is None else weaker(asked, share)
        folder = desk.folder / f"trial-{share}"
        try:
            _attempt(bundle, range(number, end), config, job, folder)
            best, low = folder, share
        except Rejected as reason:
            no = _told_whole(reason, compressor)
            if no.cause == "floor" and end < _end(job, number):  # what repairs it may bring it back above
                job.progress.say(f"{compressor.name}: {no.why}; continuing to the distillation step after it")
                end = _end(job, number)
                continue
            job.progress.say(f"{compressor.name}: rejected: {no.why}")
            tried.append(no.record(compressor.name, provider, to_plain(config)))
            if no.cause == "unchanged" and share < 1.0:
                low = share  # less of it would change nothing either
            else:
                high = share
            if (
                weaker is None
                or not (budgeted or job.settings.max_drop is not None)
                or (share == 1.0 and no.cause not in ("budget", "floor"))
            ):
                break
        if low == 1.0 or high - low <= CLOSE:
            break
        share = (low + high) / 2
        job.progress.say(f"{compressor.name}: trying {share:.0%} of the requested reduction")
    result = desk.folder / "made"
    if best is None:
        whole = replace(tried[0], tried=tuple(tried) if len(tried) > 1 else ())
        with writing(result) as draft:
            copy_float(bundle, draft)
            draft.manifest = replace(bundle.manifest, rejected=(*bundle.manifest.rejected, whole))
    elif tried:
        with updating(read_bundle(best), result) as draft:
            earlier = read_bundle(best).manifest.steps[number - end].report.rejected  # for single targets
            draft.manifest = with_report(draft.manifest, back=end - number, rejected=(*earlier, *tried))
    else:
        result = best
    return desk.keep(end, result)


def _told_whole(no: Rejected, compressor: Compressor) -> Rejected:
    """Of what misses a budget and cannot be searched for a part that does not, say so."""
    exclude = compressor.exclude if isinstance(compressor, GraphCompressor) else None
    if no.cause != "budget" or compressor.weaker is not None or exclude is not None:
        return no
    whole = f"{compressor.name} cannot be searched (it declares neither weaker nor exclude) and is taken whole or not"
    return Rejected(f"{no.why}; {whole}", no.report, no.cause, float_layers=no.float_layers, way_out=no.way_out)


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
    began_with = artifact_of(bundle)
    for number in numbers:
        compressor, asked = job.configs[number]
        first, last = number == numbers[0], number == numbers[-1]
        attempt = Attempt(
            bundle=bundle,
            compressor=compressor,
            config=config if first else asked,
            provider=job.providers.get(compressor.name, ""),
            folder=folder if last else folder.with_name(f"{folder.name}-{number}"),
            first=first,
            last=last,
            began_with=began_with,
            allowed=_allowed(job, number) if last else None,
        )
        if isinstance(compressor, ModuleCompressor):
            bundle = take_module_step(attempt, compressor, job)
        else:
            bundle = take_graph_step(attempt, compressor, job)


def _allowed(job: Job, number: int) -> float | None:
    """What the metric may have lost after a step: each has an equal part of the budget, and what others left of it."""
    return None if job.settings.max_drop is None else job.settings.max_drop * (number + 1) / len(job.configs)
