"""Write docs/benchmarks.md from what the benchmarks recorded in benchmarks/results.

Usage: python benchmarks/page.py. A test holds the page and the results equal.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from page_peers import render as render_peers

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
BARS = {"export": "10 s", "int8": "10 s, 900 MB", "engine": "2 s", "compress": "-"}
REGISTRY_BARS = {"list": "0.3 s"}
STARTUP_BARS = {"pocketzoo --help": "0.15 s", "pocketzoo list": "0.25 s"}


def page() -> str:
    """The whole page."""
    parts = ["# Benchmarks\n\nWritten by `python benchmarks/page.py` from `benchmarks/results/`; do not edit.\n"]
    sections = {"demo": _demo, "startup": _startup, "registry": _registry, "compress": _compress, "peers": _peers}
    for name, render in sections.items():
        if not (RESULTS / f"{name}.json").exists():
            continue  # not measured yet: nothing is said about it
        result = json.loads((RESULTS / f"{name}.json").read_text("utf8"))
        parts.append(render(result) + _machine(result["machine"]))
    return "\n".join(parts)


def _demo(result: dict[str, Any]) -> str:
    return f"""## The demo

`python benchmarks/demo.py`: handwritten digits on tinynet, {result["seconds"]:.0f} s in all. One thread of
onnxruntime; agreement and SQNR against the first row; p50 of the latencies. The rows for `tensorrt-rtx` run the graph
made for NVIDIA on onnxruntime's CPU kernels, which are slow on it: they are there for its accuracy.

{_measurements(result["rows"])}
"""


def _startup(result: dict[str, Any]) -> str:
    rows = [
        [f"`{name}`", f"{row['median_s']:.3f} s", f"{row['min_s']:.3f} s", STARTUP_BARS.get(name, "-")]
        for name, row in result["rows"].items()
    ]
    table = _table(["command", "median", "fastest", "bar"], rows)
    return (
        f"## Start-up\n\n`python benchmarks/startup.py`: whole processes, {result['runs']} runs in turn.\n\n{table}\n"
    )


def _registry(result: dict[str, Any]) -> str:
    processes = [
        [f"`pocketzoo {name}`", f"{row['median_s']:.3f} s", f"{row['min_s']:.3f} s", REGISTRY_BARS.get(name, "-")]
        for name, row in result["rows"].items()
    ]
    lookups = [
        [f"`{row['pattern']}`", row["what"], f"{row['found']:,}", f"{row['ms']:.3f} ms", f"{row['naive_ms']:.1f} ms"]
        for row in result["lookups"]
    ]
    return f"""## A plugin of {result["names"]:,} backbones

`python benchmarks/registry.py`: whole processes, {result["runs"]} runs in turn.

{_table(["command", "median", "fastest", "bar"], processes)}

Lookups in one process, the fastest of {result["runs"]}, each as if its pattern had never been asked for; the bar is
1 ms. Asking the plugin for its specs comes first, once: {result["collect_s"]:.2f} s.

{_table(["pattern", "what it is", "found", "time", "asking each name"], lookups)}
"""


def _compress(result: dict[str, Any]) -> str:
    what = {
        "export": "module to checked ONNX graph",
        "int8": f"int8 for two targets, {result['crops']} crops",
        "engine": "TensorRT-RTX engine of the int8 graph, without a GPU",
        "compress": "the whole command: prune 10%, int8, measure",
    }
    rows = [
        [what[name], f"{row['seconds']:.1f} s", f"{row['peak_mb']:,.0f} MB", BARS[name]]
        for name, row in result["rows"].items()
    ]
    return f"""## EfficientNet-Lite0

`python benchmarks/compress.py`: real ImageNet weights, crops of real photographs, each stage in a process of its own.
The peak is that of the whole process.

{_table(["stage", "time", "peak memory", "bar"], rows)}

What the whole command measured:

{_measurements(result["rows"]["compress"]["measurements"])}
"""


def _peers(result: dict[str, Any]) -> str:
    return f"""## Other tools

`python benchmarks/peers.py`: each tool in an environment of its own, on the same graph and the same samples; what they
wrote is scored, timed and parsed in one place.

{render_peers(result)}"""


def _measurements(rows: list[dict[str, Any]]) -> str:
    first = rows[0]
    cells = []
    for row in rows:
        one, many = (row["latency"][size]["p50"] for size in ("1", "32"))
        first_one, first_many = (first["latency"][size]["p50"] for size in ("1", "32"))
        cells.append(
            [
                row["bundle"],
                f"int8 for {row['target']}" if row["target"] else "float32",
                "-" if row["accuracy"] is None else f"{row['accuracy']:.3f}",
                f"{row['agreement']:.3f}",
                "-" if row["sqnr"] is None else f"{row['sqnr']:.1f}",
                f"{row['bytes'] / 1e3:,.0f} ({first['bytes'] / row['bytes']:.1f}x)",
                f"{row['macs'] / 1e6:,.1f}",
                f"{one:.2f} ({first_one / one:.1f}x)",
                f"{many:.1f} ({first_many / many:.1f}x)",
            ]
        )
    return _table(
        ["model", "precision", "accuracy", "agreement", "SQNR dB", "KB", "MMACs", "ms, batch 1", "ms, batch 32"], cells
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _machine(machine: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"\nMeasured {machine['date']} at commit `{machine['commit'][:12]}` on {machine['cpu']}, "
        f"{machine['cores']} cores, Python {machine['python']}; {packages}.\n"
    )


def main() -> None:
    PAGE.write_text(page(), "utf8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
