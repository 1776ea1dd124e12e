"""docs/real_files.md: the table of benchmarks/real_files.py."""

from __future__ import annotations

import statistics
from typing import Any

METHODS = ("onnxruntime, static", "onnxruntime, dynamic", "pocketzoo")
HEAD = """# Files that packages ship, in int8

Written by `python benchmarks/page.py` from `benchmarks/results/real_files.json`; do not edit.

`python benchmarks/real_files.py`: float32 as shipped, `onnxruntime.quantization.quantize_static` (its preparation, Q/DQ
nodes, per channel, MinMax) and `quantize_dynamic`, and pocketzoo's int8 for `cpu`, from the same calibration samples.
What is measured is of other sources: other sentences, fonts and photos, other notes with other overtones, another
voice, files of other packages. SQNR of each output against the float file; "speed" is how many times as fast as float
on one thread, timed in turn by the thread's own clock; answers are compared with those of the float file.
"Calibration" is the processor time of the whole process, on all cores, and "memory" the most that it had, with the
libraries. No package ships a detector with SiLU: that one is made here, with random weights (`silu_detector.py`).
"""


def render(result: dict[str, Any]) -> str:
    """The page."""
    parts = [HEAD]
    for name, file in result["files"].items():
        rows = file["rows"]
        table = [["by", "SQNR, dB", file["metric"], "speed", "MB", "calibration", "memory"], ["---"] * 7]
        for method, row in rows.items():
            table.append(_cells(method, row, rows["float32"]))
        lines = "\n".join(f"| {' | '.join(cells)} |" for cells in table)
        calibrated, measured = file["samples"]
        parts.append(
            f"## {name.capitalize() if name[0].islower() else name}\n\n`{file['file']}`, {calibrated} samples to"
            f" calibrate, {measured} measured.\n\n{lines}\n"
        )
        if floats := rows.get(METHODS[-1], {}).get("float_layers"):
            parts.append(_floats(rows[METHODS[-1]], floats))
    parts.append(_gains(result))
    return "\n".join(parts)


def _cells(method: str, row: dict[str, Any], first: dict[str, Any]) -> list[str]:
    if "failed" in row:
        return [method, f"fails: {row['failed'][:90].replace('|', '/')}", *["-"] * 5]
    if "sqnr" not in row:
        return [method, "-", "-", f"1 ({row['ms']:.2f} ms)", f"{row['bytes'] / 1e6:.2f}", "-", "-"]
    return [
        method,
        ", ".join(f"{value:.1f}" for value in row["sqnr"].values()),
        f"{row['alike']:.3f}",
        f"{first['ms'] / row['ms']:.2f}",
        f"{row['bytes'] / 1e6:.2f}",
        f"{row['cpu_seconds']:.0f} s",
        f"{row['peak_bytes'] / 1e6:.0f} MB" if "peak_bytes" in row else "-",
    ]


def _floats(row: dict[str, Any], floats: dict[str, str]) -> str:
    lines = [f"- `{name}`: {why}" for name, why in list(floats.items())[:8]]
    more = [f"- and {len(floats) - 8} more"] if len(floats) > 8 else []
    return "\n".join([f"In float ({len(floats)} layers, {row['int8_layers']} are in int8):", "", *lines, *more, ""])


def _gains(result: dict[str, Any]) -> str:
    """What pocketzoo's SQNR is above onnxruntime's static quantizer's."""
    gains = []
    for file in result["files"].values():
        theirs, ours = (file["rows"].get(method, {}).get("sqnr", {}) for method in (METHODS[0], METHODS[-1]))
        gains += [ours[name] - theirs[name] for name in theirs if name in ours]
    if not gains:
        return ""
    return (
        "## SQNR above onnxruntime's static quantizer\n\n"
        f"Over {len(gains)} outputs: {statistics.median(gains):+.1f} dB in the median, {min(gains):+.1f} dB at the"
        " least.\n"
    )
