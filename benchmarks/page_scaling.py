"""docs/scaling.md: the tables of benchmarks/scaling.py, and how fast each cost grows."""

from __future__ import annotations

import math
from typing import Any

HEAD = """# Scaling

Written by `python benchmarks/page.py` from `benchmarks/results/scaling.json`; do not edit.

What growth costs. Every point is a process of its own; seconds are CPU time of all its threads, and the peak is its
memory, imports included. In brackets, the growth over the point before: a linear cost grows by the same factor as the
count.
"""
NAMES = {
    "samples": ("Calibration samples", "samples"),
    "layers": ("Layers", "layers"),
    "batch": ("Batch", "samples in a batch"),
    "megabytes": ("Size of a bundle", "MB of weights"),
    "bundles": ("Bundles in a bench", "bundles"),
}


def growth(counts: list[float], values: list[float]) -> float:
    """The exponent p of a cost that grows as count^p, between the last two points: 0 is none, 1 in proportion."""
    return math.log(max(values[-1], 1e-9) / max(values[-2], 1e-9)) / math.log(counts[-1] / counts[-2])


def render(result: dict[str, Any]) -> str:
    """Everything below the title."""
    parts = [HEAD]
    if result["small"]:
        parts.append("**These are a few small points, for a first look: `--small`.**\n")
    for name, sweep in result["sweeps"].items():
        title, unit = NAMES[name]
        rows, whats = sweep["rows"], list(sweep["rows"][0]["seconds"])
        columns = {f"{what}, s": [row["seconds"][what] for row in rows] for what in whats}
        columns["peak, MB"] = [row["peak"] / 1e6 for row in rows]
        table = [[unit, *columns], ["---"] * (1 + len(columns))]
        for i, row in enumerate(rows):
            times = f" ({row['count'] / rows[i - 1]['count']:.3g}x)" if i else ""
            cells = [_cell(values, i, 0 if "MB" in what else 3) for what, values in columns.items()]
            table.append([f"{row['count']:,}{times}", *cells])
        counts = [float(row["count"]) for row in rows]
        grows = "; ".join(f"{what.partition(',')[0]} as n^{growth(counts, v):.2f}" for what, v in columns.items())
        lines = "\n".join(f"| {' | '.join(cells)} |" for cells in table)
        parts.append(f"## {title}\n\n{sweep['what']}\n\n{lines}\n\nBetween the last two: {grows}.\n")
    return "\n".join(parts) + f"\n`python benchmarks/scaling.py` took {result['seconds']:.0f} s.\n"


def _cell(values: list[float], i: int, digits: int) -> str:
    times = f" ({values[i] / values[i - 1]:.2g}x)" if i and values[i - 1] > 0 else ""
    return f"{values[i]:,.{digits}f}{times}"
