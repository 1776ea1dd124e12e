"""The table of benchmarks/results/precision.json, for the page."""

from __future__ import annotations

from typing import Any

from page_peers import ASKED, render_table

LEAST = {"pocketzoo, int8 for cpu": ("onnxruntime", 0.93)} | {
    f"pocketzoo, {ratio} of the channels, int8": ("int8", 1 - least)
    for ratio, least in (("0.1", 0.06), ("0.2", 0.11), ("0.3", 0.17))
}
HEAD = ("EfficientNet-Lite0", "ms", "of onnxruntime's int8", "of int8 for cpu", "channels gone", "layers in float")


def render(result: dict[str, Any]) -> str:
    """The section."""
    lines, asked = [], []
    for row in result["rows"]:
        gone = f"{row['channels_gone']:.1%}" if "channels_gone" in row else "-"
        floats = "; ".join(f"`{name}`: {why}" for name, why in row["in_float"].items()) or "-"
        ratios = [_ratio(row[f"against_{name}"]) for name in ("onnxruntime", "int8")]
        lines.append([row["name"], f"{row['ms']:.2f}", *ratios, gone, floats])
        if row["name"] in LEAST:
            reference, most = LEAST[row["name"]]
            ratio = row[f"against_{reference}"]["middle"]
            other = "onnxruntime's int8 graph" if reference == "onnxruntime" else "int8 alone"
            what = f"{row['name']}: latency of {other}"
            asked.append([what, f"{most:.2f}", f"{ratio:.3f}", "yes" if ratio <= most else "**no**"])
    return f"""## Precision and widths by measured latency

`python benchmarks/precision.py`: all graphs in turn in one process, one thread, {result["rounds"]} rounds, CPU time of
the thread; ratios are medians over the rounds, with an interval of 99%. Layers are in float where the target was faster
so when it was timed. {result["samples"]} crops say which channels go; nothing is refitted, which changes no latency.

{render_table(HEAD, lines)}

The bars, and what was reached in this run:

{render_table(ASKED, asked)}
"""


def _ratio(interval: dict[str, float]) -> str:
    return f"{interval['middle']:.3f} ({interval['low']:.3f} - {interval['high']:.3f})"
