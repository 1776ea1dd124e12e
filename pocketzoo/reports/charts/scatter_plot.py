"""Scatter plot of accuracy against latency: one mark per row, its area the file size, with the Pareto front."""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup, escape

from pocketzoo.reports.charts.plot_labels import Box, Mark, leader, place_labels
from pocketzoo.reports.charts.svg import shorten, svg, text_width, tick_decimals, ticks
from pocketzoo.reports.measured.bench_runs import BenchRun, label
from pocketzoo.reports.measured.number_format import Number, kilobytes, milliseconds, plain
from pocketzoo.zoo.graphs.layer_cost import FLOATS

FONT = 13.0
TONES = 4  # colors that report.css has for precisions
LINE = 16.0  # pixels from one baseline to the next


@dataclass(frozen=True, slots=True)
class Point:
    """A row of the run that has both numbers."""

    row: int
    x: Number  # milliseconds
    y: Number  # share, 0-1
    size: Number  # bytes


@dataclass(frozen=True, slots=True)
class Words:
    """The label of a mark: the name, and below it what it is and, where there is room, the file's size."""

    name: str
    kind: str
    size: Number | None


def points_of(run: BenchRun) -> list[Point]:
    """The rows that can be drawn: those with a latency at the smallest batch size, and a fraction of right answers."""
    points: list[Point] = []
    if run.quality == "sqnr":  # endless for the reference
        return points
    for row in range(len(run.rows)):
        x = run.number(row, f"latency.{run.batches[0]}.p50") if run.batches else None
        y, size = run.number(row, run.quality), run.number(row, "bytes")
        if x and y and size and math.isfinite(x.value) and math.isfinite(y.value):
            points.append(Point(row, x, y, size))
    return points


def front(points: list[Point], *, higher_is_better: bool = True) -> list[Point]:
    """The rows that no other row beats in both, fastest first."""
    better = 1 if higher_is_better else -1
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.x.value, -better * p.y.value)):
        if not best or better * point.y.value > better * best[-1].y.value:
            best.append(point)
    return best


def _front(run: BenchRun, points: list[Point]) -> list[Point]:
    return front(points, higher_is_better=run.measure.higher_is_better)


def scatter(run: BenchRun, name: str, *, wide: bool) -> Markup:
    """The plot, or nothing where no row was timed."""
    points = points_of(run)
    if not points:
        return Markup()
    width, height = (1064.0, 420.0) if wide else (372.0, 400.0)
    axes = _Axes(run, points, Box(52, 34, width - 14, height - 46), wide=wide)
    words = [_words(run, point, wide=wide) for point in points]
    marks = [_mark(point, axes, pair, wide=wide) for point, pair in zip(points, words, strict=True)]
    order = _priority(run, points)
    lines = axes.stairs(_front(run, points)) if run.measure.higher_is_better else []
    boxes = place_labels([marks[i] for i in order], axes.room, [_line_box(*line) for line in lines])
    body = [*axes.draw(run), '<g class="front">']
    body += [f'<line x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}"/>' for a, b, c, d in lines]
    body.append("</g>")
    # Large marks first, so that a small one on the same spot stays to be seen; the line ends at their edge.
    by_size = sorted(order, key=lambda i: -marks[i].radius)
    body += [f'<g class="hole">{_shape(run, points[i], marks[i], "")}</g>' for i in by_size]
    body += [_draw_mark(run, points[i], marks[i]) for i in by_size]
    body += [_draw_label(words[i], marks[i], box) for i, box in zip(order, boxes, strict=True) if box]
    if missing := boxes.count(None):
        note = f"{missing} not labeled for lack of space: see the table"
        body.append(f'<text class="end" x="{axes.area.right:g}" y="16">{note}</text>')
    title = f"{run.measure.name} against latency".capitalize() + f", {run.sample_word}" * bool(run.made_samples)
    kind = "wide" if wide else "narrow"
    return svg(f"{name}-{kind}", width, height, title, _describe(run, points), body, kind)


class _Axes:
    """From numbers to pixels: latency from 0, shares from a little below the worst to a little above the best."""

    def __init__(self, run: BenchRun, points: list[Point], area: Box, *, wide: bool) -> None:
        self.area = area
        self.right = max(p.x.value for p in points) * (1.12 if wide else 1.2) or 1.0
        values = [p.y.value for p in points]
        room = max((max(values) - min(values)) * 0.28, 0.004)
        self.low, self.high = min(values) - room, max(values) + room
        if min(values) >= 0:
            self.low = max(0.0, self.low)
        self.x_ticks = ticks(0.0, self.right, 8 if wide else 5)
        self.y_ticks = [tick for tick in ticks(self.low, self.high, 5) if run.measure.unit or tick <= 1.0 + 1e-9]
        self.room = Box(area.left + 4, area.top - 12, area.right + 10, area.bottom - 3)  # for labels
        self.largest = max(p.size.value for p in points)

    def x(self, value: float) -> float:
        return self.area.left + value / self.right * (self.area.right - self.area.left)

    def y(self, value: float) -> float:
        return self.area.bottom - (value - self.low) / (self.high - self.low) * (self.area.bottom - self.area.top)

    def stairs(self, best: list[Point]) -> list[tuple[float, float, float, float]]:
        """The border of what is beaten: up at each of the best, then level until the next."""
        lines, below = [], self.area.bottom
        for i, point in enumerate(best):
            x, y = self.x(point.x.value), self.y(point.y.value)
            until = self.x(best[i + 1].x.value) if i + 1 < len(best) else self.area.right
            lines += [(x, below, x, y), (x, y, until, y)]
            below = y
        return lines

    def draw(self, run: BenchRun) -> list[str]:
        area, parts = self.area, ['<g class="grid">']
        across, up = tick_decimals(self.x_ticks), tick_decimals([100 * tick for tick in self.y_ticks])
        for tick in self.y_ticks:
            y = round(self.y(tick)) + 0.5  # on the pixel, so that the line is sharp
            parts.append(f'<line x1="{area.left:g}" y1="{y:g}" x2="{area.right:g}" y2="{y:g}"/>')
            shown = plain(tick) if run.measure.unit else f"{100 * tick:.{up}f}%"
            parts.append(f'<text class="end" x="{area.left - 8:g}" y="{y + 4:g}">{shown}</text>')
        for tick in self.x_ticks:
            x = round(self.x(tick)) + 0.5
            parts.append(f'<line class="tick" x1="{x:g}" y1="{area.bottom:g}" x2="{x:g}" y2="{area.bottom + 5:g}"/>')
            parts.append(f'<text class="middle" x="{x:g}" y="{area.bottom + 20:g}">{tick:.{across}f}</text>')
        bottom = round(area.bottom) + 0.5
        parts.append(f'<line class="axis" x1="{area.left:g}" y1="{bottom:g}" x2="{area.right:g}" y2="{bottom:g}"/></g>')
        batch = run.batches[0]
        size, _, tokens = batch.partition("x")
        what = "one sample" if size == "1" else f"a batch of {size}"
        what += f" of {tokens} tokens" * bool(tokens)
        parts.append(f'<text class="name" x="0" y="16">{escape(_quality(run))}</text>')
        parts.append(
            f'<text class="name end" x="{area.right:g}" y="{area.bottom + 40:g}">'
            f"median latency of {escape(what)}, ms</text>"
        )
        return parts


def _quality(run: BenchRun) -> str:
    named = "agreement with the reference" if run.quality == "agreement" else run.measure.name
    return named + f", {run.sample_word}" * bool(run.made_samples)


def _words(run: BenchRun, point: Point, *, wide: bool) -> Words:
    row = run.rows[point.row]
    if wide:
        return Words(shorten(row.bundle, 200, FONT), f"{shorten(label(row), 200, FONT)}, ", point.size)
    return Words(shorten(row.bundle, 110, FONT), shorten(row.target or row.precision, 110, FONT), None)


def _mark(point: Point, axes: _Axes, words: Words, *, wide: bool) -> Mark:
    radius = (26 if wide else 19) * math.sqrt(max(point.size.value, 0.0) / (axes.largest or 1.0))
    size = kilobytes(words.size.value) if words.size else ""
    length = max(text_width(words.name, FONT) * 1.06, text_width(words.kind + size, FONT))  # the name is bold
    return Mark(axes.x(point.x.value), axes.y(point.y.value), max(radius, 3.0), length, 2 * LINE)


def _priority(run: BenchRun, points: list[Point]) -> list[int]:
    """Which labels get their place first: the front, the reference and the best row, then the others."""
    first = {p.row for p in _front(run, points)} | {0, run.best}
    return sorted(range(len(points)), key=lambda i: (points[i].row not in first, points[i].x.value))


def _line_box(x0: float, y0: float, x1: float, y1: float) -> Box:
    return Box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)).grown(1)


def _shape(run: BenchRun, point: Point, mark: Mark, attributes: str) -> str:
    """A circle for floats, a square of the same area for what a step on the graph made."""
    if run.rows[point.row].precision in FLOATS:
        return f'<circle cx="{mark.x:.1f}" cy="{mark.y:.1f}" r="{mark.radius:.1f}" {attributes}/>'
    side = mark.radius * math.sqrt(math.pi)
    corner = f'x="{mark.x - side / 2:.1f}" y="{mark.y - side / 2:.1f}"'
    return f'<rect {corner} width="{side:.1f}" height="{side:.1f}" rx="2" {attributes}/>'


def mark_class(run: BenchRun, precision: str) -> str:
    """The class of marks and of their key: each precision of a run has a color of its own, up to four."""
    return "float" if precision in FLOATS else f"encoded tone{run.precisions.index(precision) % TONES}"


def _draw_mark(run: BenchRun, point: Point, mark: Mark) -> str:
    row = run.rows[point.row]
    kind = mark_class(run, row.precision)
    tip = f"{row.bundle}, {label(row)}: {_sentence(run, point)}"
    return (
        f'<g class="mark {kind}" {point.x.attributes}><g {point.y.attributes}>'
        f"{_shape(run, point, mark, point.size.attributes)}</g><title>{escape(tip)}</title></g>"
    )


def _draw_label(words: Words, mark: Mark, box: Box) -> str:
    # Words lie against the side that faces the mark.
    if box.left >= mark.x:
        x, anchor = box.left, "start"
    elif box.right <= mark.x:
        x, anchor = box.right, "end"
    else:
        x, anchor = (box.left + box.right) / 2, "middle"
    line = leader(mark, box)
    drawn = '<line class="leader" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'.format(*line) if line else ""
    size = words.size.shown(kilobytes(words.size.value), "tspan") if words.size else ""
    return (
        f'<g class="label">{drawn}<text class="{anchor}" x="{x:.1f}" y="{box.top + 12:.1f}">'
        f'<tspan class="strong">{escape(words.name)}</tspan>'
        f'<tspan x="{x:.1f}" dy="{LINE:g}">{escape(words.kind)}{size}</tspan></text></g>'
    )


def _sentence(run: BenchRun, point: Point) -> str:
    return (
        f"{milliseconds(point.x.value)}, {run.written(point.y.value)} {run.measure.name}, {kilobytes(point.size.value)}"
    )


def _describe(run: BenchRun, points: list[Point]) -> str:
    """The plot in words."""
    rows = [f"{run.rows[p.row].bundle} ({label(run.rows[p.row])}): {_sentence(run, p)}" for p in points]
    best = ", ".join(f"{run.rows[p.row].bundle} ({label(run.rows[p.row])})" for p in _front(run, points))
    return f"{'; '.join(rows)}. Not dominated in speed and quality: {best}."
