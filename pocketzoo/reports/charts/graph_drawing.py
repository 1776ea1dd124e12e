"""Drawing of an executed graph: one row per node, colored by fraction of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup, escape

from pocketzoo.measure.profile import Node
from pocketzoo.reports.charts.svg import shorten, svg

ROW = 22.0  # pixels, as all lengths here
LANE = 18.0
FONT = 12.0
MOST_LANES = 12  # that get a place of their own


@dataclass(frozen=True, slots=True)
class Placed:
    """A node in its row, and the lane in which its result waits for who reads it."""

    node: Node
    lane: int
    reads: tuple[int, ...]  # rows


def visible(nodes: Sequence[Node]) -> list[Node]:
    """The nodes without those that only unpack weights: their time is counted where the weights are read."""
    hidden = {i for i, node in enumerate(nodes) if not node.reads and node.op == "DequantizeLinear"}
    rows = {i: row for row, i in enumerate(i for i in range(len(nodes)) if i not in hidden)}
    shown = []
    for i in rows:
        unpacked = [each for each in nodes[i].reads if each in hidden]
        readers = {each: sum(each in other.reads for other in nodes) for each in unpacked}
        extra = sum(nodes[each].ms / readers[each] for each in unpacked)
        reads = tuple(rows[each] for each in nodes[i].reads if each in rows)
        shown.append(replace(nodes[i], ms=nodes[i].ms + extra, reads=reads))
    return shown


def place(nodes: Sequence[Node]) -> list[Placed]:
    """Give every node a lane that is free until its last reader's row; a reader takes over the lane if it can."""
    last = list(range(len(nodes)))
    for i, node in enumerate(nodes):
        for each in node.reads:
            last[each] = i
    lanes: list[int | None] = []  # whose result each holds
    placed: list[Placed] = []
    for i, node in enumerate(nodes):
        free = [lane for lane, holder in enumerate(lanes) if holder is not None and last[holder] <= i]
        for lane in free:
            lanes[lane] = None
        own = [placed[each].lane for each in node.reads if placed[each].lane in free]
        lane = own[0] if own else next((k for k, holder in enumerate(lanes) if holder is None), len(lanes))
        if lane == len(lanes):
            lanes.append(None)
        lanes[lane] = i
        placed.append(Placed(node, lane, node.reads))
    return placed


def draw_graph(nodes: Sequence[Node], name: str, *, wide: bool) -> Markup:
    """The drawing; ``name`` is unique on the page."""
    placed = place(visible(nodes))
    width = 1064.0 if wide else 372.0
    whole = sum(p.node.ms for p in placed) or 1.0
    hottest = max((p.node.ms for p in placed), default=1.0) or 1.0
    lanes = min(max((p.lane for p in placed), default=0), MOST_LANES) + 1
    left = lanes * LANE + 12
    columns = (left, left + 150, width - 330, width - 20) if wide else (left, left, width - 62, width)
    body = [_edge(placed, i, each) for i, p in enumerate(placed) for each in p.reads]
    for i, p in enumerate(placed):
        body += _row(p, i, columns, whole, hottest, wide=wide)
    title = "The graph as it runs"
    kind = "wide" if wide else "narrow"
    return svg(f"{name}-{kind}", width, len(placed) * ROW + 6, title, _describe(placed, whole), body, kind)


def _x(lane: int) -> float:
    return 9 + min(lane, MOST_LANES) * LANE


def _y(row: int) -> float:
    return row * ROW + ROW / 2


def _edge(placed: Sequence[Placed], row: int, source: int) -> str:
    """Down the lane of what is read, which nobody else is in, then over to who reads it."""
    x0, x1, y0, y1 = _x(placed[source].lane), _x(placed[row].lane), _y(source), _y(row)
    if x0 == x1:
        return f'<path class="edge" d="M{x0:g} {y0:g}V{y1:g}"/>'
    turn = y1 - ROW
    return f'<path class="edge" d="M{x0:g} {y0:g}V{turn:g}C{x0:g} {y1 - 8:g} {x1:g} {y1 - 14:g} {x1:g} {y1:g}"/>'


def _row(p: Placed, row: int, columns: tuple[float, ...], whole: float, hottest: float, *, wide: bool) -> list[str]:
    node, x, y = p.node, _x(p.lane), _y(row)
    heat = max(node.ms / hottest, 0.0)
    shape = (
        f'<rect{{}} x="{x - 5.5:g}" y="{y - 5.5:g}" width="11" height="11" rx="2"{{}}/>'
        if node.kind == "int8"
        else f'<circle{{}} cx="{x:g}" cy="{y:g}" r="{6 if node.kind == "float" else 3.5:g}"{{}}/>'
    )
    op, layer, bar, end = columns
    share = node.ms / whole
    tip = f"{node.op} {node.name}: {node.ms:.3f} ms, {share:.1%}, {node.kind}{f', {node.layer}' if node.layer else ''}"
    parts = [
        f'<g class="node"><title>{escape(tip)}</title>',
        shape.format(' class="ground"', ""),
        shape.format(' class="heat"', f' fill-opacity="{0.06 + 0.94 * heat:.2f}"'),
    ]
    if wide:
        parts.append(
            f'<text class="small strong" x="{op:g}" y="{y + 4:g}">{escape(shorten(node.op, 140, FONT))}</text>'
        )
        words = node.layer or ("" if node.name.startswith(node.op) else node.name)
        text = escape(shorten(words, bar - layer - 16, FONT))
        parts.append(f'<text class="{"small" if node.layer else "value"}" x="{layer:g}" y="{y + 4:g}">{text}</text>')
        length = (end - bar - 96) * heat
        parts.append(
            f'<rect class="heat" x="{bar:g}" y="{y - 5:g}" width="{max(length, 0.5):.1f}" height="10" rx="1" '
            f'fill-opacity="{0.25 + 0.75 * heat:.2f}"/>'
        )
        value = f"{node.ms:.3f} ms, {share:.1%}"
        parts.append(f'<text class="value" x="{bar + length + 6:.1f}" y="{y + 4:g}">{value}</text>')
    else:
        words = f"{node.op} {node.layer}".strip()
        text = escape(shorten(words, bar - op - 8, FONT))
        parts.append(f'<text class="small" x="{op:g}" y="{y + 4:g}">{text}</text>')
        parts.append(f'<text class="value end" x="{end:g}" y="{y + 4:g}">{share:.1%}</text>')
    parts.append("</g>")
    return parts


def _describe(placed: Sequence[Placed], whole: float) -> str:
    """The drawing in words: the ten that take longest."""
    hot = sorted(placed, key=lambda p: -p.node.ms)[:10]
    rows = [f"{p.node.op} {p.node.layer}".strip() + f" {p.node.ms / whole:.1%}" for p in hot]
    return f"{len(placed)} nodes in the order they run in. The longest: {'; '.join(rows)}."
