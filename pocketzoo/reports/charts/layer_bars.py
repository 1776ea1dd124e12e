"""Bar chart of multiply-accumulates and bytes per layer, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from pocketzoo.reports.charts.svg import shorten, svg, text_width
from pocketzoo.reports.measured.layer_costs import Layer, Pair, costliest
from pocketzoo.reports.measured.number_format import kilobytes, short

MOST = 32  # layers that are drawn; more would be a page of bars
TOP = 28.0  # pixels, as all lengths here
BAR = 9.0
FONT = 12.0
VALUE = 62.0  # room for the number after a bar


@dataclass(frozen=True, slots=True)
class _Panel:
    """One of the two columns of bars."""

    field: str  # of Layer
    title: str
    left: float
    width: float  # of the longest bar


def bars(pairs: Sequence[Pair], name: str, *, before: str, after: str, wide: bool) -> Markup:
    """The drawing. ``before`` and ``after`` say what the two bars of a layer are."""
    drawn, others = costliest(pairs, MOST)
    width, pitch = (1064.0, 36.0) if wide else (372.0, 52.0)
    names = [pair.name for pair in drawn] + [f"{len(others)} other layers"] * bool(others)
    label = min(max(text_width(each, FONT) for each in names) + 16, 250.0) if wide else 0.0
    gap = 28.0 if wide else 14.0
    room = (width - label - gap) / 2
    panels = (
        _Panel("macs", "multiply-accumulates" if wide else "MACs", label, room - VALUE),
        _Panel("bytes", "bytes of weights", label + room + gap, room - VALUE),
    )
    tops = [TOP + i * pitch for i in range(len(names))]
    body = []
    for panel in panels:
        totals = f'<tspan class="soft" dx="8">{_change(pairs, panel)}</tspan>' if wide else ""
        body.append(f'<text class="name" x="{panel.left:g}" y="14">{panel.title}{totals}</text>')
    for pair, top in zip(drawn, tops, strict=False):
        body.append(_name(pair.name, top, label if wide else width, wide=wide))
        for panel in panels:
            body += _pair_bars(pair, panel, _largest(drawn, panel), top + (2 if wide else 18))
    if others:
        body.append(_name(names[-1], tops[-1], label if wide else width, wide=wide))
        y = tops[-1] + (17 if wide else 27)
        body += [f'<text class="value" x="{p.left + 6:g}" y="{y:g}">{_change(others, p)}</text>' for p in panels]
    for panel in panels:
        x = round(panel.left) + 0.5
        # On a narrow screen the names lie between the bars: the line leaves them out.
        ends = [(24.0, tops[-1] + pitch - 4)] if wide else [(top + 16, top + pitch - 11) for top in tops]
        body += [f'<line class="axis" x1="{x:g}" y1="{top:g}" x2="{x:g}" y2="{bottom:g}"/>' for top, bottom in ends]
    kind = "wide" if wide else "narrow"
    title, description = "Cost of each layer, before and after", _describe(drawn, before, after)
    return svg(f"{name}-{kind}", width, tops[-1] + pitch, title, description, body, kind)


def _sum(layers: Sequence[Layer], field: str) -> float:
    return sum((layer.bytes if field == "bytes" else layer.macs).value for layer in layers)


def _largest(pairs: Sequence[Pair], panel: _Panel) -> float:
    return max(_sum(side, panel.field) for pair in pairs for side in (pair.before, pair.after)) or 1.0


def _shown(value: float, field: str) -> str:
    return kilobytes(value) if field == "bytes" else short(value)


def _change(pairs: Sequence[Pair], panel: _Panel) -> str:
    """What the layers cost together, before and after."""
    old = sum(_sum(pair.before, panel.field) for pair in pairs)
    new = sum(_sum(pair.after, panel.field) for pair in pairs)
    return f"{_shown(old, panel.field)} \u2192 {_shown(new, panel.field)}"


def _name(name: str, top: float, room: float, *, wide: bool) -> str:
    text = f"{escape(shorten(name, room - 14, FONT))}<title>{escape(name)}</title>"
    if wide:
        return f'<text class="small end" x="{room - 12:g}" y="{top + 17:g}">{text}</text>'
    return f'<text class="small" x="0" y="{top + 12:g}">{text}</text>'


def _pair_bars(pair: Pair, panel: _Panel, largest: float, top: float) -> list[str]:
    parts = []
    for side, layers in (("before", pair.before), ("after", pair.after)):
        y = top + (0 if side == "before" else BAR + 3)
        x = panel.left + 1
        if not layers:
            missing = "" if side == "before" else "gone"
            parts.append(
                f'<text class="value" x="{x + 5:.1f}" y="{y + BAR - 0.5:.1f}">{missing}</text>' * bool(missing)
            )
            continue
        for layer in layers:
            number = layer.bytes if panel.field == "bytes" else layer.macs
            length = max(number.value / largest * panel.width, 1.0 if number.value else 0.0)
            tip = f"{layer.name} ({layer.op}, {layer.precision}): {number.value:,} {panel.field}, {side}"
            parts.append(
                f'<rect class="{side}" x="{x:.1f}" y="{y:g}" width="{length:.1f}" height="{BAR:g}" '
                f"{number.attributes}><title>{escape(tip)}</title></rect>"
            )
            x += length + 1.5  # the seam between the factors of a layer
        text = _shown(_sum(layers, panel.field), panel.field)
        parts.append(f'<text class="value {side}" x="{x + 5:.1f}" y="{y + BAR - 0.5:.1f}">{text}</text>')
    return parts


def _describe(pairs: Sequence[Pair], before: str, after: str) -> str:
    """The bars in words."""
    rows = [
        f"{pair.name}: {short(_sum(pair.before, 'macs'))} to {short(_sum(pair.after, 'macs'))} multiply-accumulates, "
        f"{kilobytes(_sum(pair.before, 'bytes'))} to {kilobytes(_sum(pair.after, 'bytes'))}"
        for pair in pairs
    ]
    return f"From {before} to {after}. " + "; ".join(rows) + "."
