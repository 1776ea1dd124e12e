"""The tables of benchmarks/results/sources.json and truth.json."""

from __future__ import annotations

from typing import Any

from page_peers import render_table


def render_sources(result: dict[str, Any]) -> str:
    """The curve over the number of sources."""
    cells = []
    for row in result["rows"]:
        figures = [
            f"{row[of].get('agreement', row[of].get('cosine')):.3f} ({low:.3f}-{high:.3f}), {row[of]['sqnr']:.1f} dB"
            for of in ("own", "test")
            for low, high in [row[of]["interval"]]
        ]
        cells.append([row["step"], f"{row['count']} {row['kind']}", *figures])
    cells.sort(key=lambda each: each[0])
    head = ["step", "calibrated on", "on those", f"on others ({result['test']} samples)"]
    return f"""## What more sources bring

`python benchmarks/sources.py`: {result["samples"]} samples calibrate, of more and more photographs or documents.
EfficientNet-Lite0 on photographs: agreement; MiniLM on documents: cosine to the float32 embeddings; each with the SQNR.
Intervals of 95% are over sources.

{render_table(head, cells)}
"""


def render_truth(result: dict[str, Any]) -> str:
    """What left-out sources say, held against a third set."""
    rows, cells = result["rows"], []
    for row in rows:
        figures = [_figures(row[of]) for of in ("calibration", "left out", "third")]
        cells.append([row["name"], *figures, "yes" if _holds(row) else "**no**"])
    head = ["compressed", "on calibration samples", "on left-out sources", "on a third set", "holds"]
    return f"""## Whether the left-out figures are true

`python benchmarks/truth.py`: what `compress` says of the sources that it left out, against samples of sources that no
command has seen. It holds within 1 dB and 2 points: of {sum(map(_holds, rows))} in {len(rows)} compressions.

{render_table(head, cells)}
"""


def _figures(of: dict[str, Any]) -> str:
    if not of:
        return "-"
    agreement = "" if of["agreement"] is None else f"{of['agreement']:.3f}, "
    return f"{agreement}{of['sqnr']:.1f} dB ({of['samples']:,} samples)"


def _holds(row: dict[str, Any]) -> bool:
    said, true = row["left out"], row["third"]
    near = abs(said["sqnr"] - true["sqnr"]) <= 1
    return near and (said["agreement"] is None or abs(said["agreement"] - true["agreement"]) <= 0.02)
