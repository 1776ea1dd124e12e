"""Table of compression steps: measurements before and after, rejected attempts and the reasons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from markupsafe import Markup

from pocketzoo.core.typed import to_plain
from pocketzoo.measure.calibration_sources import source_sentences
from pocketzoo.reports.html_page import render
from pocketzoo.reports.measured.number_format import (
    NOTHING,
    Number,
    kilobytes,
    milliseconds,
    percent,
    plain,
    points,
    short,
    times,
)
from pocketzoo.zoo.bundles.manifest import Manifest
from pocketzoo.zoo.bundles.step_record import Change, MetricChange, StepReport

# What of a step's report the table shows; everything else is listed below it.
RATIOS: dict[str, tuple[str, Callable[[float], str]]] = {
    "parameters": ("parameters", short),
    "macs": ("MACs", short),
    "bytes": ("file", kilobytes),
    "latency": ("one sample", milliseconds),
}
SHARES = ("metric", "agreement")
REST = (
    "seconds",
    "latency_of",
    "outputs",
    "differing",
    "selected_by",
    "same_selection",
    "held",
    "sqnr_against_float",
    "generation",
)


@dataclass(frozen=True, slots=True)
class _StepRow:
    """One line of the table: a step that was taken, or tried."""

    kind: str
    config: Mapping[str, Any]
    report: StepReport
    key: str  # of the report in the manifest
    why: str | None = None  # it was rejected


@dataclass(frozen=True, slots=True)
class _StepCell:
    """The number after a step, and what it was before."""

    number: Markup
    change: str = ""
    before: Markup = NOTHING
    color: str = ""


@dataclass(frozen=True, slots=True)
class _Line:
    """What the table shows of a row."""

    kind: str
    asked: str
    why: str | None
    cells: list[_StepCell]


def steps_table(manifest: Manifest, index: int) -> Markup:
    """The table; nothing for a bundle whose steps were not measured."""
    rows = _rows(manifest)
    known = [name for name in (*RATIOS, *SHARES) if any(getattr(row.report, name) is not None for row in rows)]
    if not known:
        return Markup()
    samples = next((row.report.samples for row in rows if row.report.samples), None)
    scored = "" if samples is None else f" Scores are of {samples:,} samples of the validation split."
    calibrated = any(row.report.calibration is not None for row in rows)
    if calibrated:
        scored += " Beside the SQNR: that on samples that calibrated, which is learned by heart as far as it is higher."
    scored += "".join(f" {sentence[0].upper()}{sentence[1:]}." for sentence in source_sentences(manifest))
    return render(
        "steps.html",
        name=f"steps-{index}",
        caption=f"Each step against the graph it replaced, both timed in turn{_after(rows)}.{scored}",
        titles=["SQNR", *["on calibration samples"] * calibrated, *(_title(name, rows) for name in known)],
        rows=[_line(row, known, index, calibrated=calibrated) for row in rows],
    )


def _after(rows: Sequence[_StepRow]) -> str:
    """After which step the graphs of others were timed, as ``StepReport.latency_of`` has it."""
    timed = dict.fromkeys((row.kind, row.report.latency_of) for row in rows if row.report.latency_of)
    return "".join(f", those of {kind} after {step}" for kind, step in timed)


def _title(name: str, rows: Sequence[_StepRow]) -> str:
    if name == "metric":
        return next(row.report.metric.name for row in rows if row.report.metric is not None)
    return RATIOS[name][0] if name in RATIOS else name


def rest_of(report: StepReport) -> dict[str, Any]:
    """What of a step's report the table does not show."""
    return {name: to_plain(value) for name in REST if (value := getattr(report, name)) not in (None, "", {})}


def reasons(manifest: Manifest) -> dict[str, str]:
    """Layer -> what a step says of it: why it is as it was, or what became of it where its precision does not tell."""
    told: dict[str, str] = {}
    for step in manifest.steps:
        for decision in step.decisions:
            if decision.why:
                told[decision.layer] = f"{step.compressor}: {decision.what}: {decision.why}"
            elif decision.what != decision.precision:
                told[decision.layer] = f"{step.compressor}: {decision.what}"
        told |= {layer: f"in float: {why}" for layer, why in step.report.float_layers.items()}
        for target, layers in step.report.in_float.items():
            for layer, why in layers.items():
                told.setdefault(layer, f"in float for {target}: {why}")
        known = {decision.layer for decision in step.decisions}
        skipped = step.config.get("skip", ())
        for layer in (row.layer for row in manifest.layers.get("float", ())):
            if layer not in known and any(fnmatchcase(layer, pattern) for pattern in skipped):
                told.setdefault(layer, f"{step.compressor}: skipped by the recipe")
    return told


def _rows(manifest: Manifest) -> list[_StepRow]:
    rows = []
    for i, step in enumerate(manifest.steps):
        key = f"steps.{i}.report"
        for j, no in enumerate(step.report.rejected):
            what = f"{step.compressor} for {no.target}" if no.target else step.compressor
            rows.append(_StepRow(what, no.config, no.report, f"{key}.rejected.{j}.report", no.why))
        rows.append(_StepRow(step.compressor, step.config, step.report, key))
    for i, no in enumerate(manifest.rejected):
        rows.append(_StepRow(no.compressor, no.config, no.report, f"rejected.{i}.report", no.why))
    return rows


def _line(row: _StepRow, known: Sequence[str], index: int, *, calibrated: bool) -> _Line:
    numbers = {name: value for name, value in row.config.items() if type(value) in (int, float)}
    asked = ", ".join(f"{name.replace('_', ' ')} {plain(value)}" for name, value in numbers.items())
    cells = [_StepCell(_decibels(row.report.sqnr, f"{row.key}.sqnr", index))]
    if calibrated:
        cells.append(_calibration_cell(row, index))
    return _Line(row.kind, asked, row.why, [*cells, *(_cell(row, name, index) for name in known)])


def _decibels(sqnr: float | None, key: str, index: int) -> Markup:
    return NOTHING if sqnr is None else Number(sqnr, key, index).shown(f"{sqnr:.1f}\u00a0dB")


def _calibration_cell(row: _StepRow, index: int) -> _StepCell:
    scores = row.report.calibration
    return _StepCell(NOTHING if scores is None else _decibels(scores.sqnr, f"{row.key}.calibration.sqnr", index))


def _cell(row: _StepRow, name: str, index: int) -> _StepCell:
    of: Change | MetricChange | None = getattr(row.report, name)
    if of is None:
        return _StepCell(NOTHING)
    old, new = of.before, of.after
    was, now = Number(old, f"{row.key}.{name}.before", index), Number(new, f"{row.key}.{name}.after", index)
    if isinstance(of, MetricChange) and of.unit:
        worse = (new < old) == of.higher_is_better and new != old
        return _StepCell(now.shown(plain(new)), f"{new - old:+.4g}", was.shown(plain(old)), " worse" * worse)
    if name in SHARES:
        samples = row.report.samples
        change, worse, better = points(new - old), new < old - 0.0005, False
        shown, before = now.shown(percent(new, samples)), was.shown(percent(old, samples))
    else:
        ratio = old / new if new else 1.0
        change, worse, better = times(ratio), ratio < 0.95, ratio > 1.05
        shown, before = now.shown(RATIOS[name][1](new)), was.shown(RATIOS[name][1](old))
    return _StepCell(shown, change, before, " worse" if worse else " better" if better else "")
