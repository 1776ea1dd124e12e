"""What growth costs, in time and peak memory: samples, layers, batch, bytes of a bundle, bundles in a bench.

Usage: python benchmarks/scaling.py [--small]. Every point is a process of its own; --small is for a first look. Writes
benchmarks/results/scaling.json; page.py makes docs/scaling.md of it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from record import write

WIDTH = 256  # units of each layer, where layers are counted
Point = Callable[[int, Path], dict[str, float]]


def samples(count: int, folder: Path) -> dict[str, float]:
    """tinynet's graph to an int8 plan, on so many samples that are made as they are asked for."""
    import numpy as np
    import onnx

    from pocketzoo.compress.configs import Int8Config
    from pocketzoo.compress.quantization import int8
    from pocketzoo.zoo.models.open_model import open_model

    class Drawn:
        def __iter__(self) -> Iterator[Any]:
            generator = np.random.default_rng(0)
            return (generator.normal(size=(32, 1, 28, 28)).astype(np.float32) for _ in range(count // 32))

    graph = onnx.load(open_model("tinynet").graph(""))
    with Stopwatch() as watch:
        int8.plan(graph, Int8Config(), Drawn())
    return {"int8": watch.seconds}


def layers(count: int, folder: Path) -> dict[str, float]:
    """A perceptron of so many layers: to a graph, checked; planned to lose 30% of its units; to an int8 plan."""
    import numpy as np
    import onnx
    import torch

    from pocketzoo.compress.configs import Int8Config, PruneConfig
    from pocketzoo.compress.pruning import prune
    from pocketzoo.compress.quantization import int8
    from pocketzoo.zoo.bundles.manifest import ModelRef
    from pocketzoo.zoo.catalog.registry import default_registry
    from pocketzoo.zoo.models.build import build, resolve
    from pocketzoo.zoo.models.export_graph import onnx_from_model

    torch.manual_seed(0)
    registry = default_registry()
    options = {"hidden": [WIDTH] * count, "input": [1, 28, 28]}
    ref = ModelRef(backbone="mlp", head="linear", outputs=10, backbone_options=options)
    module, spec = build(ref, registry), resolve(ref, registry).backbone.input
    drawn = [np.random.default_rng(0).normal(size=(32, 1, 28, 28)).astype(np.float32)]
    with Stopwatch() as export:
        onnx_from_model(module, spec, folder / "model.onnx")
    with Stopwatch() as planned:
        prune.plan(module, PruneConfig(ratio=0.3), drawn, registry.get("target", "cpu"))
    with Stopwatch() as quantized:
        int8.plan(onnx.load(folder / "model.onnx"), Int8Config(), drawn)
    return {"export": export.seconds, "prune, planned": planned.seconds, "int8": quantized.seconds}


def batch(count: int, folder: Path) -> dict[str, float]:
    """tinynet's graph on onnxruntime, ten batches of so many samples."""
    from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
    from pocketzoo.zoo.data.random_samples import random_samples
    from pocketzoo.zoo.models.open_model import open_model

    bundle = open_model("tinynet")
    x = random_samples(bundle.manifest.input, count)
    with OnnxRunner(bundle.graph(""), threads=1) as runner:
        runner.infer(x)
        with Stopwatch() as watch:
            for _ in range(10):
                runner.infer(x)
    return {"ten batches": watch.seconds}


def megabytes(count: int, folder: Path) -> dict[str, float]:
    """A bundle of so many MB of weights: opened and verified; opened, verified and asked for one answer."""
    path = folder / "bundle"
    _make_bundle(path, count)
    from pocketzoo.deploy.device.runtime import load_runtime
    from pocketzoo.zoo.bundles.bundle import read_bundle
    from pocketzoo.zoo.data.random_samples import random_samples

    with Stopwatch() as opened:
        bundle = read_bundle(path)
    with Stopwatch() as answered, load_runtime(path, threads=1, provider="cpu") as runtime:
        runtime.predict(random_samples(bundle.manifest.input, 1))
    return {"verify": opened.seconds, "first answer": answered.seconds}


def bundles(count: int, folder: Path) -> dict[str, float]:
    """So many bundles in one bench: the same graph in different files."""
    from dataclasses import replace

    import onnx

    from pocketzoo.workflows.bench import bench
    from pocketzoo.zoo.bundles.bundle import updating
    from pocketzoo.zoo.models.open_model import open_model

    source = open_model("tinynet")
    paths = [folder / f"model-{i}" for i in range(count)]
    for path in paths:
        with updating(source, path) as draft:
            graph = onnx.load(draft.folder / "model.onnx")
            graph.doc_string = path.name
            onnx.save(graph, draft.folder / "model.onnx")
            draft.manifest = replace(source.manifest, name=path.name)
    with Stopwatch() as watch:
        bench(paths, seconds=0.0, batch_sizes=(1, 32), memory=False)
    return {"bench": watch.seconds}


SWEEPS: dict[str, tuple[Point, tuple[int, ...], tuple[int, ...]]] = {
    "samples": (samples, (64, 256, 1024), (64, 128)),
    "layers": (layers, (4, 8, 16, 32), (2, 4)),
    "batch": (batch, (1, 8, 64, 512), (1, 16)),
    "megabytes": (megabytes, (1, 16, 128, 512), (1, 8)),
    "bundles": (bundles, (1, 2, 4, 8, 16), (1, 3)),
}


class Stopwatch:
    """CPU seconds of this process, all threads: what else runs on the machine does not count."""

    seconds = 0.0

    def __enter__(self) -> Stopwatch:
        self.start = time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.process_time() - self.start


def _make_bundle(path: Path, size: int) -> None:
    """In a process of its own, so that the peak of this one is not that of making it."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import scaling; scaling.make_bundle(sys.argv[2], sys.argv[3])"
    )
    subprocess.run([sys.executable, "-c", script, str(Path(__file__).parent), str(path), str(size)], check=True)


def make_bundle(path: str, size: str) -> None:
    """A bundle whose float graph multiplies its input by a matrix of ``size`` million bytes, and sums up."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from pocketzoo.zoo.bundles.bundle import graph_name, writing
    from pocketzoo.zoo.bundles.manifest import Manifest, ModelRef
    from pocketzoo.zoo.catalog.specs import InputSpec
    from pocketzoo.zoo.data.processors.open_processor import describe_config

    width = max(1, int(size) * 1_000_000 // 4 // 64)
    weights = {
        "w0": np.random.default_rng(0).normal(size=(64, width)).astype(np.float32) / width,
        "w1": np.ones((width, 1), np.float32),
    }
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w0"], ["h"]), helper.make_node("MatMul", ["h", "w1"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    with writing(Path(path)) as draft:
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.save(model, draft.mark(graph_name(), precision="float32"))
        draft.manifest = Manifest(
            name="sized",
            model=ModelRef(backbone="onnx:sized", head="", outputs=1),
            processor=describe_config(InputSpec(shape=("batch", 64), mean=(), std=(), resize=0, name="x", layout="NC")),
            labels=(),
            returns="values",
            license="",
            parameters=65 * width,
            macs=65 * width,
        )


def peak() -> int:
    """Bytes that this process held at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="few and small points")
    parser.add_argument("--point", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        name, count = options.point
        with tempfile.TemporaryDirectory() as folder:
            seconds = SWEEPS[name][0](int(count), Path(folder))
        print(json.dumps({"seconds": seconds, "peak": peak()}))
        return
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started, found = time.perf_counter(), {}
    for name, (run, counts, few) in SWEEPS.items():
        rows = []
        for count in few if options.small else counts:
            command = [sys.executable, __file__, "--point", name, str(count)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            if done.returncode:
                raise SystemExit(done.stderr)
            row = {"count": count, **json.loads(done.stdout.splitlines()[-1])}
            rows.append(row)
            times = ", ".join(f"{what} {seconds:.3f} s" for what, seconds in row["seconds"].items())
            print(f"{name:10} {count:6}: {times}; peak {row['peak'] / 1e6:,.0f} MB", flush=True)
        found[name] = {"what": (run.__doc__ or "").strip(), "rows": rows}
    result = {"small": options.small, "seconds": round(time.perf_counter() - started, 1), "sweeps": found}
    write("scaling", result)


if __name__ == "__main__":
    main()
