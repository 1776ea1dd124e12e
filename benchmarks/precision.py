"""Latency by what was measured: int8 with layers left in float that are faster so, and channels pruned for int8.

Usage: python benchmarks/precision.py [--seconds 2] [--samples 128]. Needs examples/efficientnet-lite and what
benchmarks/peers.py needs of onnxruntime. All graphs are timed in one process on one thread, in turn, by the CPU time of
the thread: ratios are the median over the rounds, with an interval of 99% by the sign test. Weights are rounded to
nearest and nothing is refitted: graphs are as fast as with it, and how accurate they are benchmarks/int8.py and
benchmarks/sources.py say. Writes benchmarks/results/precision.json.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from environments import cache
from page_peers import CROPS, ORT
from peers import SCRIPTS, inputs, make, rows
from peers_inputs import CROPS as CROP_COUNTS
from record import write

sys.path.insert(0, str(SCRIPTS))
from common import Samples

from pocketzoo import default_registry
from pocketzoo.compress.configs import Int8Config, PruneConfig
from pocketzoo.compress.quantization import int8
from pocketzoo.compress.quantization.precision.faster_in_float import tune
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.backends.open_backend import timer_of
from pocketzoo.zoo.backends.timing import speedup, time_in_turn
from pocketzoo.zoo.bundles.manifest import ModelRef
from pocketzoo.zoo.models.build import build, load_pretrained
from pocketzoo.zoo.models.export_graph import onnx_from_model

RATIOS = (0.1, 0.2, 0.3)
OURS, ALL, PLAIN = "pocketzoo, int8 for cpu", "pocketzoo, all layers in int8", "float32"
FEW = 8  # samples that ranges are of: no kernel is faster or slower by them


def made(work: Path, folder: Path, samples: int) -> tuple[dict[str, Path], dict[str, dict[str, str]], dict[str, float]]:
    """The graphs by name; of ours what is left in float and why; and the channels that are gone."""
    registry = default_registry()
    cpu, compressors = registry.get("target", "cpu"), registry.entries("compressor")
    prune, quantize = compressors["prune"].spec, compressors["int8"].spec
    timer = timer_of(cpu, registry)
    assert timer is not None
    whole = np.load(folder / "calibration.npy")
    few, x = [whole[:FEW]], {registry.get("backbone", CROPS).input.name: whole[:1]}
    graphs = {ORT: work / "onnxruntime.onnx", PLAIN: folder / "model.onnx"}
    (row,) = (row for row in rows() if (row.model, row.name) == (CROPS, ORT))
    if "failed" in (result := make(row, "", folder, graphs[ORT])):
        raise SystemExit(result["failed"])
    floats: dict[str, dict[str, str]] = {}
    gone: dict[str, float] = {}

    def add(name: str, graph: Path) -> None:
        model = onnx.load(graph)
        plan = int8.plan(model, Int8Config(), few, refine=False)
        tuned = tune(model, plan, x, cpu, timer)
        floats[name] = dict(tuned.faster.get(cpu.name, {}))
        for each, how in ((name, tuned), *(((ALL, plan),) if name == OURS else ())):
            graphs[each] = work / f"{len(graphs)}.onnx"
            onnx.save(int8.apply(model, how, cpu), graphs[each])
        print(f"{name}: {floats[name]}", flush=True)

    add(OURS, graphs[PLAIN])
    ref = ModelRef(backbone=CROPS, head=f"{CROPS}-imagenet", outputs=1000)
    net = build(ref, registry)
    load_pretrained(net, ref, registry)
    net.eval()
    calibration = Samples(folder / "calibration.npy", count=samples)  # with their photos, as compress has them
    for ratio in RATIOS:
        config = PruneConfig(ratio=ratio, refit=False)
        plan = prune.plan(net, config, calibration, quantize.module_target(cpu))
        name = f"pocketzoo, {ratio} of the channels, int8"
        channels = plan.savings["channels"]
        gone[name] = 1 - channels.after / channels.before
        smaller = work / f"pruned-{ratio}.onnx"
        onnx_from_model(prune.apply(net, replace(plan, refit=False)), registry.get("backbone", CROPS).input, smaller)
        add(name, smaller)
    return graphs, floats, gone


def measure(seconds: float, samples: int) -> dict[str, Any]:
    """Latencies, and ratios against onnxruntime's int8 graph and against ours."""
    folder = inputs(cache() / "peers")[CROPS]
    with tempfile.TemporaryDirectory() as work, ExitStack() as stack:
        graphs, floats, gone = made(Path(work), folder, samples)
        x = np.load(folder / "test.npy")[:1]
        runners = [stack.enter_context(OnnxRunner(path, threads=1)) for path in graphs.values()]
        runs = [partial(runner.infer, {runner.signature.inputs[0].name: x}) for runner in runners]
        spent = dict(zip(graphs, time_in_turn(runs, seconds), strict=True))

    def against(name: str, reference: str) -> dict[str, float]:
        found = speedup(spent[reference].cpu, spent[name].cpu)
        assert found is not None
        return {"middle": found.middle, "low": found.low, "high": found.high}

    return {
        "samples": samples,
        "rounds": len(spent[ORT].cpu),
        "rows": [
            {
                "name": name,
                "ms": float(np.median(times.cpu)),
                "against_onnxruntime": against(name, ORT),
                "against_int8": against(name, OURS),
                "in_float": floats.get(name, {}),
                **({"channels_gone": gone[name]} if name in gone else {}),
            }
            for name, times in spent.items()
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--samples", type=int, default=CROP_COUNTS[0])
    args = parser.parse_args()
    torch.set_num_threads(1)
    work = cache() / "peers"
    work.mkdir(parents=True, exist_ok=True)
    write("precision", measure(args.seconds, args.samples))


if __name__ == "__main__":
    main()
