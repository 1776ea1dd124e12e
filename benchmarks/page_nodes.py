"""The part of docs/scaling.md on nodes: the table of benchmarks/nodes.py."""

from __future__ import annotations

from typing import Any

HEAD = """## Nodes of a graph

Generated graphs (`benchmarks/big_graphs.py`) as .onnx files, imported, and each command on the bundle; that of int8
plans on {samples} samples, applies, judges and measures. Seconds of CPU time of all threads, and the peak of the
process. In brackets, the growth over the row before.
"""


def render(result: dict[str, Any]) -> str:
    """The part, with its title."""
    parts = [HEAD.format(samples=result["samples"])]
    for shape, what in result["shapes"].items():
        rows = [row for row in result["rows"] if row["shape"] == shape]
        if not rows:
            continue
        names = list(rows[0]["commands"])
        table = [["nodes", *names, "peak, MB"], ["---"] * (2 + len(names))]
        for i, row in enumerate(rows):
            before = rows[i - 1] if i else None
            times = f" ({row['count'] / before['count']:.3g}x)" if before else ""
            peak = max(each["peak"] for each in row["commands"].values())
            cells = [_cell(name, row, before) for name in names]
            table.append([f"{row['count']:,}{times}", *cells, f"{peak / 1e6:,.0f}"])
        lines = "\n".join(f"| {' | '.join(cells)} |" for cells in table)
        parts.append(f"{what}\n\n{lines}\n")
    return "\n".join(parts)


def _cell(name: str, row: dict[str, Any], before: dict[str, Any] | None) -> str:
    """Seconds; or that a command failed."""
    found = row["commands"].get(name)
    if found is None or found["code"]:
        return "-" if found is None else "failed: " + " ".join(found["said"])[:60]
    known = before and before["commands"].get(name)
    times = f" ({found['seconds'] / known['seconds']:.2g}x)" if known and known["seconds"] else ""
    return f"{found['seconds']:,.1f}{times}"
