"""Plot of the loss over the learning rate, with the suggested rate, as SVG or HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from pocketzoo.core.files import replacing_file
from pocketzoo.core.reading.utf8 import encoded
from pocketzoo.core.untrusted.shown import shown
from pocketzoo.reports.charts.plot_labels import Box
from pocketzoo.reports.charts.svg import svg, text_width, tick_decimals, ticks
from pocketzoo.reports.html_page import check_drawing, page, style

WIDTH, HEIGHT = 760.0, 420.0
FONT = 'font-family: -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;'
AREA = Box(56, 40, WIDTH - 24, HEIGHT - 52)


def draw_rates(
    out: str | Path, rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], best: float, what: str
) -> Path:
    """Write the image to ``out``, an .svg or .html file; ``best`` is one of ``rates``, ``what`` the title.

    Raises:
        ExportError: the file is called otherwise.
    """
    place = Path(out)
    check_drawing(place)
    drawing = rate_curve(rates, losses, smoothed, best, what)
    if place.suffix == ".svg":
        # The size keeps viewers from filling the window; of the page there is neither font nor background.
        head, _, rest = str(drawing).partition(">")
        head = head.replace("<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH:g}" height="{HEIGHT:g}" ')
        sheet = f'<style>{style()}\nsvg {{ {FONT} }}</style><rect width="100%" height="100%" fill="var(--card)"/>'
        text = shown(f"{head}>{sheet}{rest}\n")
    else:
        text = page("find-rate", what, Markup("<figure>{}</figure>").format(drawing))
    with replacing_file(place) as temporary:
        temporary.write_bytes(encoded(text))
    return place


def rate_curve(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], best: float, what: str
) -> Markup:
    """The image: the loss of each step pale, smoothed on top, a mark at the rate to take."""
    left, right = math.log10(rates[0]), math.log10(rates[-1])
    start = max(smoothed[: max(len(smoothed) // 4, 1)])
    high = min(max(smoothed), 1.3 * start) * 1.05  # where it blows up there is nothing to see
    low = max(min(*losses, *smoothed) - 0.05 * high, 0.0)

    def x(rate: float) -> float:
        return AREA.left + (math.log10(rate) - left) / (right - left) * (AREA.right - AREA.left)

    def y(loss: float) -> float:
        return AREA.bottom - (min(loss, high) - low) / (high - low) * (AREA.bottom - AREA.top)

    body = ['<g class="grid">']
    levels = ticks(low, high, 5)
    for tick in levels:
        at = round(y(tick)) + 0.5
        body.append(f'<line x1="{AREA.left:g}" y1="{at:g}" x2="{AREA.right:g}" y2="{at:g}"/>')
        words = f"{tick:.{tick_decimals(levels)}f}"
        body.append(f'<text class="end" x="{AREA.left - 8:g}" y="{at + 4:g}">{words}</text>')
    for power in range(math.ceil(left - 1e-9), math.floor(right + 1e-9) + 1):
        at = round(x(10.0**power)) + 0.5
        body.append(f'<line class="tick" x1="{at:g}" y1="{AREA.bottom:g}" x2="{at:g}" y2="{AREA.bottom + 5:g}"/>')
        body.append(f'<text class="middle" x="{at:g}" y="{AREA.bottom + 20:g}">{10.0**power:g}</text>')
    floor = round(AREA.bottom) + 0.5
    body.append(f'<line class="axis" x1="{AREA.left:g}" y1="{floor:g}" x2="{AREA.right:g}" y2="{floor:g}"/></g>')
    body.append('<text class="name" x="10" y="20">loss of a batch, and smoothed</text>')
    body.append(f'<text class="name end" x="{AREA.right:g}" y="{AREA.bottom + 42:g}">learning rate of the head</text>')
    for kind, values in (("pale", losses), ("curve", smoothed)):
        points = " ".join(f"{x(rate):.1f},{y(loss):.1f}" for rate, loss in zip(rates, values, strict=True))
        body.append(f'<polyline class="{kind}" points="{points}"/>')
    at, level = x(best), y(smoothed[list(rates).index(best)])
    words = f"{best:.2g}: the steepest descent"
    side = "" if at + text_width(words, 13) + 12 < AREA.right else "end"
    body.append(
        f'<g class="front"><line x1="{at:.1f}" y1="{AREA.top:g}" x2="{at:.1f}" y2="{AREA.bottom:g}"/></g>'
        f'<g class="mark float"><circle cx="{at:.1f}" cy="{level:.1f}" r="5"/></g>'
        f'<g class="label"><text class="strong {side}" x="{at + (-8 if side else 8):.1f}" y="{AREA.top + 10:g}">'
        f"{words}</text></g>"
    )
    says = f"The smoothed loss is {smoothed[0]:.3g} at {rates[0]:.2g}, {min(smoothed):.3g} at its least; {words}."
    return svg("rates", WIDTH, HEIGHT, what, says, body, "rates")
