"""Training curves: loss and validation metric by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pocketzoo.reports.charts.svg import svg, text_width, tick_decimals, ticks
from pocketzoo.reports.measured.number_format import Number
from pocketzoo.zoo.bundles.bundle import Bundle

WIDTH, HEIGHT = 500.0, 240.0  # pixels, as all lengths here
TOP, BOTTOM, RIGHT = 14.0, 34.0, 12.0
FONT = 13.0
MARKED = 60  # epochs up to which each has a mark


def curves_section(bundle: Bundle, index: int, title: str, name: str) -> Markup:
    """The section, or nothing where the manifest has no epochs; ``name`` is unique on the page."""
    training: Any = bundle.manifest.provenance.get("training", {})
    if not isinstance(training, Mapping):
        return Markup()
    keys = [key for key in ("loss", *(key for key in training if str(key).startswith("val_"))) if key in training]
    least = training.get("lower_is_better") is True  # of the metric; the loss always is
    drawings = [
        drawing
        for i, key in enumerate(keys)
        if (drawing := _curve(training[key], key, least, f"provenance.training.{key}", index, f"{name}-{i}"))
    ]
    if not drawings:
        return Markup()
    stopped = training.get("stopped")
    note = Markup("<figcaption>Stopped early: {}.</figcaption>").format(stopped) if stopped else ""
    return Markup(
        '<section class="training" aria-labelledby="{name}"><h2 id="{name}">How {title} was trained</h2>'
        '<figure><div class="curves">{drawings}</div>{note}</figure></section>'
    ).format(name=name, title=title, drawings=Markup().join(drawings), note=note)


def _curve(series: Any, key: str, least: bool, path: str, index: int, name: str) -> Markup:
    if not isinstance(series, Sequence) or not series or not all(_finite(value) for value in series):
        return Markup()
    values: Sequence[float] = series
    words = "training loss" if key == "loss" else f"validation {key.removeprefix('val_').replace('_', ' ')}"
    best = min(values) if least or key == "loss" else max(values)
    low, high = min(values), max(values)
    gap = (high - low) * 0.06 or abs(high) * 0.05 or 0.05
    low, high = low - gap, high + gap
    marks = ticks(low, high, 4)
    texts = [f"{value:.{tick_decimals(marks)}f}" for value in marks]
    left = max(text_width(text, FONT) for text in texts) + 10
    room, tall = WIDTH - left - RIGHT, HEIGHT - TOP - BOTTOM

    def x(epoch: int) -> float:
        return left + (room * (epoch - 1) / (len(values) - 1) if len(values) > 1 else room / 2)

    def y(value: float) -> float:
        return TOP + tall * (high - value) / (high - low)

    body = ['<g class="grid">']
    for value, text in zip(marks, texts, strict=True):
        body.append(f'<line x1="{left:g}" y1="{y(value):.1f}" x2="{WIDTH - RIGHT:g}" y2="{y(value):.1f}"/>')
        body.append(f'<text class="end" x="{left - 7:g}" y="{y(value) + 4.5:.1f}">{text}</text>')
    body.append("</g>")
    for epoch in _epochs(len(values)):
        body.append(f'<text class="middle" x="{x(epoch):.1f}" y="{HEIGHT - 12:g}">{epoch}</text>')
    kind = "loss" if key == "loss" else "metric"
    line = " ".join(f"{x(i):.1f},{y(value):.1f}" for i, value in enumerate(values, start=1))
    body.append(f'<polyline class="curve {kind}" points="{line}"/>')
    for i, value in enumerate(values):
        chosen = value == best and value not in values[:i]
        if len(values) > MARKED and not chosen and i != len(values) - 1:
            continue
        number = Number(value, f"{path}.{i}", index)
        body.append(
            f'<circle class="curve {kind}{" best" if chosen else ""}" cx="{x(i + 1):.1f}" cy="{y(value):.1f}" '
            f'r="{4.5 if chosen else 2.2:g}" {number.attributes}><title>epoch {i + 1}: {value:.4g}</title></circle>'
        )
    description = f"{words} over {len(values)} epochs, from {values[0]:.4g} to {values[-1]:.4g}, at best {best:.4g}."
    drawing = svg(name, WIDTH, HEIGHT, words, description, body, "")
    at = f"{best:.4g} at best, epoch {values.index(best) + 1}"
    return Markup('<div><h3>{}<span class="at">{}</span></h3>{}</div>').format(words, at, drawing)


def _epochs(count: int) -> list[int]:
    """Epochs that are named on the axis: the first, and round ones."""
    if count <= 6:
        return list(range(1, count + 1))
    return [1, *(round(t) for t in ticks(1, count, 6) if t > max(1, count * 0.05) and t == round(t))]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
