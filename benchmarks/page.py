"""Write the pages of docs/ that have numbers from what the benchmarks recorded in benchmarks/results.

Usage: python benchmarks/page.py. A test holds the pages and the results equal.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gpu_roofline import render as render_gpu
from page_campaign import render as render_campaign
from page_graphs import render as render_graphs
from page_half_files import render as render_half_files
from page_nodes import render as render_nodes
from page_peers import render as render_peers
from page_peers import render_int8
from page_precision import render as render_precision
from page_real_files import render as render_real_files
from page_scaling import render as render_scaling
from page_sources import render_sources, render_truth

from pocketzoo.zoo.bundles.early_format_2 import report_of

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
SCALING = ROOT / "docs" / "scaling.md"
CAMPAIGN = ROOT / "docs" / "campaign.md"
REAL_FILES = ROOT / "docs" / "real_files.md"
HALF_FILES = ROOT / "docs" / "half_files.md"
GRAPHS = ROOT / "docs" / "graphs.md"
BARS = {"export": "10 s", "int8": "10 s, 900 MB", "engine": "2 s", "compress": "-"}
RECIPE_BARS = {
    "tinynet": "at least 4x smaller and 2x faster within 0.5 points of accuracy",
    "EfficientNet-Lite0": "at least 4.5x smaller and 2.8x faster at an agreement of 0.95",
}
EDGE_BARS = {"int8, packed for a device": "6 MB", "int8": "0.5 s"}
START = ("ready_s", "ready_least_s", "ready_cpu_s", "answered_s")
REGISTRY_BARS = {"list": "0.3 s"}
STARTUP_BARS = {"pocketzoo --help": "0.15 s", "pocketzoo list": "0.25 s"}


def page() -> str:
    """The whole page."""
    parts = ["# Benchmarks\n\nWritten by `python benchmarks/page.py` from `benchmarks/results/`; do not edit.\n"]
    sections = {
        "demo": _demo,
        "startup": _startup,
        "registry": _registry,
        "timing": _timing,
        "edge": _edge,
        "compress": _compress,
        "lowrank": _lowrank,
        "distill": _distill,
        "training": _training,
        "recipes": _recipes,
        "int8": _int8,
        "precision": render_precision,
        "sources": render_sources,
        "truth": render_truth,
        "pruning": _pruning,
        "peers": _peers,
        "gpu": _gpu,
    }
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


def _timing(result: dict[str, Any]) -> str:
    count = result["races"]
    rows = [
        [name, f"{row['tenth_seen']} of {count}", f"{row['equal_differs']} of {count}", f"{row['width']:.1%}"]
        for name, row in result["rows"].items()
    ]
    table = _table(["compared by", "10% detected", "false positives", "width of the interval"], rows)
    return (
        "## What timing tells apart\n\n"
        "`python benchmarks/timing.py`: a run against an equal one and one with 10% more work,\n"
        f"{result['rounds']} rounds each, alongside whatever else ran. Of a hundred equal ones one may be called "
        f"different.\n\n{table}\n"
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


def _edge(result: dict[str, Any]) -> str:
    rows = [
        [f"`pip install pocketzoo[{extra}]`, besides Python", f"{found['bytes'] / 1e6:.1f} MB", "230 MB"]
        for extra, found in result["footprint"].items()
    ]
    rows += [
        [f"{result['model']}, {name}", f"{size / 1e6:.2f} MB", EDGE_BARS.get(name, "-")]
        for name, size in result["bundles"].items()
    ]
    starts = [
        [f"{result['model']}, {name}", *(f"{found[key]:.2f} s" for key in START), EDGE_BARS.get(name, "-")]
        for name, found in result["startup"].items()
    ]
    parts = result["footprint"]["edge"]["largest"]
    return f"""## On the device

`python benchmarks/edge.py`: an environment with nothing but the extra; a bundle as `compress` writes it,
and as `pack` copies it.

{_table(["what", "on the disk", "bar"], rows)}

The largest parts of `[edge]`: {", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in parts.items())}.

From the first line of a program to a runtime that is ready (imports, digests of all files, session), and to the answer
for a photograph; {result["runs"]} processes, one thread, without Python's own start:

{_table(["bundle", "ready, median", "fastest", "of which the processor worked", "answered", "bar"], starts)}
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

`python benchmarks/compress.py`: real ImageNet weights, crops of real photographs, each stage in its own process.
The peak is that of the whole process.

{_table(["stage", "time", "peak memory", "bar"], rows)}

Measurements of the whole command:

{_measurements(result["rows"]["compress"]["measurements"])}
"""


def _training(result: dict[str, Any]) -> str:
    kept, loader, quality = result["features"], result["decoding"], result["quality"]
    texts = result["quality_texts"]
    rows = [
        [
            f"{kept['epochs']} epochs on cached features, against computing them in each",
            f"{kept['kept_s']:.1f} s against {kept['anew_s']:.0f} s: {kept['anew_s'] / kept['kept_s']:.1f}x",
            "15x",
        ],
        [
            "images per second, against a bare loop in two processes",
            f"{loader['loader']:.0f} against {loader['loop']:.0f}: {loader['ratio']:.2f}",
            "0.80",
        ],
        [
            "accuracy of a linear head on images, against scikit-learn's logistic regression",
            f"{quality['linear']:.4f} against {quality['sklearn']:.4f}",
            "within 0.005",
        ],
        [
            "the same on texts (MiniLM)",
            f"{texts['linear']:.4f} against {texts['sklearn']:.4f}",
            "within 0.005",
        ],
    ]
    return f"""## Training

`python benchmarks/training.py`: EfficientNet-Lite0, frozen; {result["photos"]:,} crops of photographs, and for accuracy
{quality["samples"]["train"]:,} images of Fashion-MNIST. Texts are {texts["samples"]["train"]:,} sentences out of the
documentation of three libraries, on frozen MiniLM; the library is the class. What computing features in each epoch
takes was measured on {kept["tried"]} epochs. Export and the reading of images are included.

{_table(["what", "measured", "bar"], rows)}
"""


def _recipes(result: dict[str, Any]) -> str:
    parts = [
        f"""## Recipes

`python benchmarks/recipes.py`: the textbook's recipe (`recipes/classic.toml`) and ours (`recipes/edge.toml`) on the
same model and data, {result["samples"]} calibration samples, every graph timed in turn on one thread. Ratios are
against the first row. The bars: {"; ".join(f"{model}: {bar}" for model, bar in RECIPE_BARS.items())}.
"""
    ]
    for model, found in result["models"].items():
        steps = []
        for name, made in found["recipes"].items():
            for step in made["steps"]:
                steps += [[name, *_rejected(no, _compressor(step))] for no in step["report"].get("rejected", ())]
                steps.append([name, _compressor(step), *_changes(step["report"])])
            steps += [[name, *_rejected(no, _compressor(no))] for no in made["rejected"]]
        took = ", ".join(f"{name} {made['seconds']:.0f} s" for name, made in found["recipes"].items())
        head = ["recipe", "step", "file", "ms, batch 1", "accuracy or agreement", "SQNR dB", "s"]
        parts.append(
            f"### {model} on {found['data']}\n\n{_measurements(found['rows'])}\n\n"
            f"Step by step, on the validation split ({took} in all):\n\n{_table(head, steps)}\n"
        )
    return "\n".join(parts)


def _changes(report: dict[str, Any]) -> list[str]:
    """A step's report as cells; of files that were written before reports were typed, too."""
    report = report_of(report)

    def change(name: str, scale: float, digits: int, unit: str = "") -> str:
        both = report.get(name)
        if not both:
            return "-"
        return " -> ".join(f"{both[when] / scale:,.{digits}f}" for when in ("before", "after")) + unit

    return [
        change("bytes", 1e3, 0, " KB"),
        change("latency", 1, 2),
        change("metric" if report.get("metric") else "agreement", 1, 3),
        "-" if report.get("sqnr") is None else f"{report['sqnr']:.1f}",
        "-" if report.get("seconds") is None else f"{report['seconds']:.1f}",
    ]


def _compressor(step: dict[str, Any]) -> str:
    """The name of who took a step, by either key."""
    return str(step.get("compressor") or step["kind"])


def _rejected(no: dict[str, Any], name: str) -> list[str]:
    return [f"{name}, rejected: {no['why']}", *_changes(no.get("report", {}))]


def _lowrank(result: dict[str, Any]) -> str:
    names = {"plain": "truncated SVD", "whitened": "whitened by the inputs (SVD-LLM)", "ours": "ours"}
    bars = {0.8: 0.94, 0.6: 0.88}
    most = max(r["documents"] for r in result["rows"])
    rows = [
        [names[r["way"]], f"{r['share']:.1f}", f"{r['used']:.3f}", str(r["documents"]), str(r["samples"]),
         f"{r['cosine']:.3f} ({r['low']:.3f} to {r['high']:.3f})", f"{r['least']:.3f}",
         str(bars.get(r["share"], "-")) if r["way"] == "ours" and r["documents"] == most else "-",
         f"{r['seconds']:.0f} s"]
        for way in names for r in result["rows"] if r["way"] == way
    ]  # fmt: skip
    head = ["way", "fraction of parameters", "used", "documents", "sentences", "cosine", "minimum", "bar", "CPU time"]
    return f"""## Low rank

`python benchmarks/lowrank.py`: all linear layers of {result["model"]}, calibrated on {result["calibrate"]} sentences at
most; cosine to the fp32 embeddings of {result["test"]} sentences of {result["documents"]} documents that nothing was
calibrated on, with an interval of 95% over these. The first two keep the same fraction in every layer, ours has one
budget for all.

{_table(head, rows)}
"""


def _distill(result: dict[str, Any]) -> str:
    cells = []
    for name, data in result["data"].items():
        for kind, row in data["rows"].items():
            won = row.get("won_back")
            cells.append(
                [name, kind, f"{row['accuracy']:.4f}", f"{row['agreement']:.4f}", "-" if won is None else f"{won:.0%}"]
            )
    trained = ", ".join(f"{data['learned_from']:,} of {name}" for name, data in result["data"].items())
    return f"""## Distillation

`python benchmarks/distill.py`: tinynet with {result["ratio"]:.0%} of its channels removed, with and without
compensation, then `distill` on samples without labels ({trained}). The bar: half of the lost accuracy is recovered.

{_table(["data", "model", "accuracy", "agreement", "recovered"], cells)}
"""


def _int8(result: dict[str, Any]) -> str:
    return f"""## int8

`python benchmarks/int8.py`: each row made by a process of its own, {result["samples"]["efficientnet-lite0"][0]} crops
and {result["samples"]["minilm"][0]} calibration sentences. The peak is the memory of the process, imports included.
Time is wall-clock time and, in brackets, CPU time of all cores. Latency is of one sample on one thread, all graphs in
turn, the minimum over the rounds; x: median speedup over float32.

{render_int8(result)}"""


def _pruning(result: dict[str, Any]) -> str:
    steps, batch, (calibrate, test) = result["steps"], result["batch"], result["samples"]
    cells = []
    for name, model in result["models"].items():
        whole = model["rows"][0]["macs"]
        for row in model["rows"]:
            quality = [_with_interval(row, key) for key in ("accuracy", "agreement", "cosine")]
            cells.append([name, row["name"], f"{row['macs'] / 1e6:,.2f} ({row['macs'] / whole:.2f})", *quality])
    head = ["network", "pruned by", "MMACs (share)", "accuracy", "agreement", "cosine"]
    return f"""## Channels removed in one shot

`python benchmarks/pruning.py`: pocketzoo to a fraction of the multiply-accumulates of convolutions and linear layers,
then Torch-Pruning to as many, without training afterwards; either may use {calibrate} samples without classes (MiniLM:
256 texts of 16 tokens). ResNet, VGG and ViT are small, made for 28 x 28, and were trained for {steps:,} steps of
{batch} on Fashion-MNIST; {test:,} images test them. MiniLM has its published weights, and is scored by the cosine to
its own vectors.

{_table(head, cells)}
"""


def _with_interval(row: dict[str, Any], name: str) -> str:
    if name not in row:
        return "-"
    low, high = row.get(f"{name}_interval", (None, None))
    return f"{row[name]:.4f}" + (f" ({low:.4f}-{high:.4f})" if low is not None and low < high else "")


def _peers(result: dict[str, Any]) -> str:
    return f"""## Other tools

`python benchmarks/peers.py`: each tool in an environment of its own, on the same graph and the same samples; their
outputs are scored, timed and parsed in one place.

{render_peers(result)}"""


def _gpu(result: dict[str, Any]) -> str:
    gpu = result["gpu"]
    versions = ", ".join(f"{name} {version}" for name, version in gpu["versions"].items())
    return f"""## On a GPU

`python benchmarks/gpu.py` on {gpu["name"]} (compute capability {gpu["capability"]}, {gpu["memory"] >> 30} GiB;
driver, clock and power: {gpu["driver, clock, power"]}); {versions}. Outputs were checked against torch in fp32 on the
CPU first. "of the roofline": relative to the peaks of the same run, for operations and for reading weights and samples
once and writing outputs once; above 100%, weights stayed in the cache.

{render_gpu(result)}"""


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
    load = f" with {machine['load']:.0f} processes wanting to run" if "load" in machine else ""
    return (
        f"\nMeasured {machine['date']} at commit `{machine['commit'][:12]}` on {machine['cpu']}, "
        f"{machine['cores']} cores{load}, Python {machine['python']}; {packages}.\n"
    )


def scaling() -> str:
    """docs/scaling.md."""
    result, nodes = (json.loads((RESULTS / f"{name}.json").read_text("utf8")) for name in ("scaling", "nodes"))
    return "\n".join(
        (render_scaling(result) + _machine(result["machine"]), render_nodes(nodes) + _machine(nodes["machine"]))
    )


def campaign() -> str:
    """docs/campaign.md."""
    return render_campaign(json.loads((RESULTS / "campaign.json").read_text("utf8")))


def real_files() -> str:
    """docs/real_files.md."""
    result = json.loads((RESULTS / "real_files.json").read_text("utf8"))
    return render_real_files(result) + _machine(result["machine"])


def half_files() -> str:
    """docs/half_files.md."""
    result = json.loads((RESULTS / "half_files.json").read_text("utf8"))
    return render_half_files(result) + _machine(result["machine"])


def graphs() -> str:
    """docs/graphs.md."""
    return render_graphs(json.loads((RESULTS / "graphs.json").read_text("utf8")))


def main() -> None:
    pages = ((PAGE, page), (SCALING, scaling), (CAMPAIGN, campaign), (GRAPHS, graphs), (REAL_FILES, real_files),
             (HALF_FILES, half_files))  # fmt: skip
    for path, write in pages:
        path.write_text(write(), "utf8")
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
