"""EfficientNet-Lite0 on photo crops: time and peak memory of each stage, each in a process of its own.

Usage: python benchmarks/compress.py [--crops 128]. Needs examples/efficientnet-lite installed.
Writes benchmarks/results/compress.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from photos import GROUP, photos, write_crops
from record import write

from pocketzoo.zoo.data.batches import SHARES

MODEL = "efficientnet-lite0"


def stage_export(folder: Path) -> dict[str, Any]:
    """Module to checked ONNX graph."""
    from pocketzoo import default_registry
    from pocketzoo.zoo.bundles.manifest import ModelRef
    from pocketzoo.zoo.models.build import build, load_pretrained
    from pocketzoo.zoo.models.export_graph import onnx_from_model

    registry = default_registry()
    ref = ModelRef(backbone=MODEL, head=f"{MODEL}-imagenet", outputs=1000)
    model = build(ref, registry)
    load_pretrained(model, ref, registry)
    start = time.perf_counter()
    onnx_from_model(model, registry.get("backbone", MODEL).input, folder / "model.onnx")
    return {"seconds": time.perf_counter() - start}


def stage_int8(folder: Path) -> dict[str, Any]:
    """The int8 step alone: plan on the crops, then the encodings for both targets."""
    import onnx

    from pocketzoo import default_registry, load_data
    from pocketzoo.compress.configs import Int8Config
    from pocketzoo.compress.pipeline.job import Inputs
    from pocketzoo.compress.quantization import int8
    from pocketzoo.zoo.data.batches import Batches

    registry = default_registry()
    spec = registry.get("backbone", MODEL).input
    split = load_data(f"{folder / 'photos'}{GROUP}").split("train")
    samples = Inputs.of(Batches(split, spec, size=8), split.groups)
    graph = onnx.load(folder / "model.onnx")
    start = time.perf_counter()
    plan = int8.plan(graph, Int8Config(), samples)
    for name in ("cpu", "tensorrt-rtx"):
        onnx.save(int8.apply(graph, plan, registry.get("target", name)), folder / f"{name}.onnx")
    return {"seconds": time.perf_counter() - start, "samples": plan.samples}


def stage_engine(folder: Path) -> dict[str, Any]:
    """NVIDIA's parser and builder on the int8 graph."""
    from pocketzoo import default_registry
    from pocketzoo.zoo.backends.tensorrt.build_engine import save_engine

    start = time.perf_counter()
    save_engine(folder / "tensorrt-rtx.onnx", folder / "model.engine", default_registry().get("target", "tensorrt-rtx"))
    return {"seconds": time.perf_counter() - start, "bytes": (folder / "model.engine").stat().st_size}


def stage_prune(folder: Path) -> dict[str, Any]:
    """The whole command: prune, int8, measure."""
    import pocketzoo
    from pocketzoo.compress.configs import Int8Config, PruneConfig
    from pocketzoo.core.typed import to_plain

    start = time.perf_counter()
    bundle = pocketzoo.compress(
        MODEL,
        folder / "small",
        data=f"{folder / 'photos'}{GROUP}",
        samples=128,
        steps=[PruneConfig(ratio=0.1), Int8Config()],
    )
    return {"seconds": time.perf_counter() - start, "measurements": to_plain(bundle.manifest.measurements)}


STAGES = {"export": stage_export, "int8": stage_int8, "engine": stage_engine, "compress": stage_prune}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crops", type=int, default=128)
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        result = STAGES[args.stage](args.folder)
        result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(json.dumps(result))
        return
    rows = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # So many that the training split, which calibrates, has as many as were asked for.
        write_crops(folder / "photos", round(args.crops / SHARES[0]), 1, photos("calibration"))
        for stage in STAGES:
            command = [sys.executable, __file__, "--stage", stage, "--folder", name]
            environment = {**os.environ, "POCKETZOO_HOME": str(folder / "home")}
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            rows[stage] = json.loads(done.stdout.splitlines()[-1])
            print(f"{stage:9} {rows[stage]['seconds']:6.1f} s, peak {rows[stage]['peak_mb']:,.0f} MB", flush=True)
    write("compress", {"model": MODEL, "crops": args.crops, "rows": rows})


if __name__ == "__main__":
    main()
