"""Helpers for inline SVG: accessible titles, axis ticks, text width."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape


def svg(name: str, width: float, height: float, title: str, description: str, body: Iterable[str], kind: str) -> Markup:
    """An image. ``name`` is unique on the page; ``kind`` is its class: "wide" or "narrow" screens; ``body`` is SVG."""
    name = escape(name)
    return Markup(
        f'<svg class="plot {kind}" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-labelledby="{name}-title {name}-desc"><title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-desc">{escape(description)}</desc>\n' + "\n".join(body) + "\n</svg>"
    )


def text_width(text: str, size: float) -> float:
    """Width of a line of text, a little more than any usual sans-serif takes: nobody knows the reader's fonts."""
    total = 0.0
    for char in text:
        if unicodedata.east_asian_width(char) in "WF":
            total += 1.05
        elif char in "iljtfr.,:;'|!()[]- \u00a0":
            total += 0.38
        elif char in "mwMW@%":
            total += 0.95
        else:
            total += 0.72 if char.isupper() else 0.6
    return total * size


def shorten(text: str, width: float, size: float) -> str:
    """``text`` with its middle left out so that it fits: layers differ at their end, models at their beginning."""
    if text_width(text, size) <= width:
        return text
    for keep in range(len(text) - 1, 1, -1):
        cut = f"{text[: keep // 3]}\u2026{text[len(text) - (keep - keep // 3) :]}"
        if text_width(cut, size) <= width:
            return cut
    return "\u2026"


def ticks(low: float, high: float, count: int) -> list[float]:
    """About ``count`` multiples of 1, 2 or 5 times a power of ten that lie between ``low`` and ``high``."""
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-6)
    return [n * step for n in range(first, math.floor(high / step + 1e-6) + 1)]


def tick_decimals(values: Sequence[float]) -> int:
    """Decimals that tell neighboring ticks apart."""
    step = values[1] - values[0] if len(values) > 1 else 1.0
    return max(0, -math.floor(math.log10(step) + 1e-6))
