"""Table of compression steps: measurements before and after, rejected attempts and the reasons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from markupsafe import Markup

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

# What of a step's report the table shows; everything else is listed below it.
RATIOS: dict[str, tuple[str, Callable[[float], str]]] = {
    "parameters": ("parameters", short),
    "macs": ("MACs", short),
    "bytes": ("file", kilobytes),
    "latency_ms": ("one sample", milliseconds),
}
SHARES = {"accuracy": "accuracy", "agreement": "agreement"}
OTHERS = ("metric", "sqnr_db", "validation_samples", "left_in_float", "rejected")


@dataclass(frozen=True, slots=True)
class _StepRow:
    """One line of the table: a step that was taken, or tried."""

    kind: str
    config: Mapping[str, Any]
    report: Mapping[str, Any]
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
    own = dict.fromkeys(row.report["metric"] for row in rows if "metric" in row.report)
    shares = {**{key: key.replace("_", " ") for key in own}, **SHARES}
    known = [name for name in (*RATIOS, *shares) if any(f"{name}_after" in row.report for row in rows)]
    if not known:
        return Markup()
    samples = next((row.report["validation_samples"] for row in rows if "validation_samples" in row.report), None)
    scored = "" if samples is None else f" Scores are of {samples:,} samples of the validation split."
    return render(
        "steps.html",
        name=f"steps-{index}",
        caption=f"Each step against the graph it replaced, both timed in turn.{scored}",
        titles=["SQNR", *(RATIOS[name][0] if name in RATIOS else shares[name] for name in known)],
        rows=[_line(row, known, index) for row in rows],
    )


def rest_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """What of a step's report the table does not show."""
    own = {report["metric"]} if "metric" in report else set()
    shown = {f"{name}_{when}" for name in (*RATIOS, *SHARES, *own) for when in ("before", "after")}
    return {k: v for k, v in report.items() if k not in shown and k not in OTHERS}


def reasons(manifest: Manifest) -> dict[str, str]:
    """Layer -> why it is not in int8, or not factorized, as far as a step says."""
    layer_reasons: dict[str, str] = {}
    for step in manifest.steps:
        layer_reasons |= {layer: f"{step.kind}: {why}" for layer, why in step.plan.get("dense", {}).items()}
        layer_reasons |= {layer: f"{step.kind}: unchanged: {why}" for layer, why in step.plan.get("left", {}).items()}
        layer_reasons |= {layer: f"in float: {why}" for layer, why in step.report.get("left_in_float", {}).items()}
        if "ranges" in step.plan:
            layers = {row["layer"] for row in manifest.layers.get("float", ())}
            for layer in layers - set(step.plan["layers"]) - set(layer_reasons):
                if any(fnmatchcase(layer, pattern) for pattern in step.config.get("skip", ())):
                    layer_reasons[layer] = "in float: skipped by the recipe"
    return layer_reasons


def _rows(manifest: Manifest) -> list[_StepRow]:
    rows = []
    for i, step in enumerate(manifest.steps):
        key = f"steps.{i}.report"
        for j, no in enumerate(step.report.get("rejected", ())):
            what = f"{step.kind} for {no['target']}" if "target" in no else step.kind
            report = no.get("report", {})
            rows.append(_StepRow(what, no.get("config", {}), report, f"{key}.rejected.{j}.report", no["why"]))
        rows.append(_StepRow(step.kind, step.config, step.report, key))
    for i, no in enumerate(manifest.rejected):
        rows.append(_StepRow(no["kind"], no["config"], no.get("report", {}), f"rejected.{i}.report", no["why"]))
    return rows


def _line(row: _StepRow, known: Sequence[str], index: int) -> _Line:
    numbers = {name: value for name, value in row.config.items() if type(value) in (int, float)}
    asked = ", ".join(f"{name.replace('_', ' ')} {plain(value)}" for name, value in numbers.items())
    sqnr = row.report.get("sqnr_db")
    first = NOTHING if sqnr is None else Number(sqnr, f"{row.key}.sqnr_db", index).shown(f"{sqnr:.1f}\u00a0dB")
    return _Line(row.kind, asked, row.why, [_StepCell(first), *(_cell(row, name, index) for name in known)])


def _cell(row: _StepRow, name: str, index: int) -> _StepCell:
    old, new = row.report.get(f"{name}_before"), row.report.get(f"{name}_after")
    if old is None or new is None:
        return _StepCell(NOTHING)
    was, now = Number(old, f"{row.key}.{name}_before", index), Number(new, f"{row.key}.{name}_after", index)
    if name not in RATIOS:
        samples = row.report.get("validation_samples", 0)
        change, worse, better = points(new - old), new < old - 0.0005, False
        shown, before = now.shown(percent(new, samples)), was.shown(percent(old, samples))
    else:
        ratio = old / new if new else 1.0
        change, worse, better = times(ratio), ratio < 0.95, ratio > 1.05
        shown, before = now.shown(RATIOS[name][1](new)), was.shown(RATIOS[name][1](old))
    return _StepCell(shown, change, before, " worse" if worse else " better" if better else "")
