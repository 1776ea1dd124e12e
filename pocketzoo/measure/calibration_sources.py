"""What is said of the sources that a compression was calibrated on, and of how those did that were left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import log10, sqrt
from typing import Any

from pocketzoo.zoo.bundles.manifest import Manifest
from pocketzoo.zoo.bundles.step_record import CalibrationScores, StepReport
from pocketzoo.zoo.data.grouping.sentences import FEWEST

DECIBELS, POINTS = 1.0, 0.02  # by which left-out sources do worse where more sources would help


def source_sentences(manifest: Manifest) -> Iterator[str]:
    """How many sources calibrated, how the left-out ones did beside them, and whether more would help.

    Nothing of bundles of before, which say nothing of sources.
    """
    facts: dict[str, Any] = manifest.provenance.get("calibration", {})
    report = manifest.steps[-1].report if manifest.steps else StepReport()
    scores, sources = report.calibration, facts.get("sources")
    if made_of := facts.get("synthetic"):
        yield (
            f"calibrated on {_counted(facts.get('samples', 0), 'synthetic sample')} (from {made_of}): no accuracy was "
            "measured, and all figures are of such samples; with data of your own the result is better, and is known"
        )
        return
    if not isinstance(sources, int) or not sources:
        return
    by = facts.get("grouped_by")
    given = f"calibrated on {_counted(facts.get('samples', 0), 'sample')} of {_counted(sources, 'source')}"
    given += "" if by in (None, "sample") else f", told apart by {by}"
    yield from _further(manifest)
    if not report.sources or scores is None:
        few, none = ", too few to leave any out", ", and none was left out to judge by"
        why = few if sources < FEWEST else none if scores is None else ", some of which are among those that judge"
        yield (
            f"{given}{why}: the figures are those of the calibration data, and what was never seen may do far worse; "
            f"give {FEWEST} sources or more (a photo, a document or a recording is one)"
        )
        return
    yield f"{given}; judged on {_counted(report.samples, 'sample')} of {_counted(report.sources, 'source')} left out"
    if compared := list(_compared(report, scores)):
        helps = "more sources would help" if _worse(report, scores) else "more sources would change little"
        if sources + report.sources < FEWEST and not _worse(report, scores):
            helps = "so few say little of others"
        yield f"on those left out, and on those of calibration: {', '.join(compared)}; {helps}"


def _further(manifest: Manifest) -> Iterator[str]:
    """What samples that were made beside those of few sources did."""
    plan = manifest.steps[-1].plan if manifest.steps else {}
    tried = plan.get("further") if isinstance(plan, Mapping) else None
    if not isinstance(tried, Mapping):
        return
    before, after = (_decibels(-10 * log10(max(float(tried[each]), 1e-30))) for each in ("real", "joined"))
    done = "added" if tried["used"] else "tried, and not added"
    yield (
        f"{_counted(int(tried['made']), 'image')} of shapes and noise were {done}: "
        f"on a source left out, SQNR {before} without them, {after} with them"
    )


def _compared(report: StepReport, scores: CalibrationScores) -> Iterator[str]:
    """Each figure of the left-out sources, beside that of calibration."""
    if report.sqnr is not None or scores.sqnr is not None:
        yield f"SQNR {_decibels(report.sqnr)} and {_decibels(scores.sqnr)}"
    if report.metric is not None and scores.metric is not None:
        yield f"{report.metric.name} {report.metric.after:.3f} and {scores.metric:.3f}"
    if report.agreement is not None and scores.agreement is not None:
        yield f"agreement {report.agreement.after:.3f} and {scores.agreement:.3f}"


def _worse(report: StepReport, scores: CalibrationScores) -> bool:
    """Whether left-out sources do worse than those of calibration, beyond what few samples make of chance."""
    if report.sqnr is not None and (scores.sqnr is None or scores.sqnr - report.sqnr >= DECIBELS):
        return True
    if report.agreement is None or scores.agreement is None:
        return False
    part = (report.agreement.after * report.samples + scores.agreement * scores.samples) / max(
        report.samples + scores.samples, 1
    )
    chance = 2 * sqrt(max(part * (1 - part), 0.0) * (1 / max(report.samples, 1) + 1 / max(scores.samples, 1)))
    return scores.agreement - report.agreement.after >= max(POINTS, chance)


def _decibels(sqnr: float | None) -> str:
    return "equal" if sqnr is None else f"{sqnr:.1f} dB"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
