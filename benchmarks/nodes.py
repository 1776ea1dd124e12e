"""What the nodes of a graph cost: each command on generated graphs of several shapes, of more and more nodes.

Usage: python benchmarks/nodes.py [--small] [--shapes residual,...]. Every command is a process of its own. Writes
benchmarks/results/nodes.json; page.py makes a part of docs/scaling.md of it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from big_graphs import SHAPES
from record import write

COUNTS, FEW = (1000, 10_000, 30_000), (300, 1000)
SAMPLES = 32
IMPORT = """
import sys
from pathlib import Path
from pocketzoo.zoo.bundles.bundle import updating
from pocketzoo.zoo.models.import_onnx import open_graph
with updating(open_graph(Path(sys.argv[1])), Path(sys.argv[2])):
    pass
"""
RUN = "from pocketzoo.cli.main import main; main()"
COMMANDS = {
    "info": ["info", "{bundle}", "--json"],
    "profile": ["profile", "{bundle}", "--json"],
    "compress --int8": ["compress", "{bundle}", "--int8", "--data", "{data}", "--accept", "--keep-slower",
                        "-o", "{folder}/int8", "--json"],
    "export": ["export", "{bundle}", "-o", "{folder}/plain.onnx"],
    "export --precision fp16": ["export", "{bundle}", "--to", "onnx", "--target", "tensorrt-rtx", "--precision", "fp16",
                                "-o", "{folder}/half.onnx"],
    "check": ["check", "{bundle}", "--json"],
    "bench": ["bench", "{bundle}", "--json"],
}  # fmt: skip


def measure(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """CPU seconds and peak memory of a process and its children, and how it ended."""
    with tempfile.TemporaryFile() as said:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env=environment)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        words = said.read().decode(errors="replace").strip().splitlines()
    return {
        "seconds": round(used.ru_utime + used.ru_stime, 2),
        "wall": round(time.perf_counter() - started, 2),
        "peak": used.ru_maxrss * 1024,
        "code": process.returncode,
        "said": words[-2:] if process.returncode else [],
    }


def commands(shape: str, count: int, folder: Path) -> dict[str, Any]:
    """Every command on one graph."""
    model = SHAPES[shape](count)
    onnx.save(model, folder / "big.onnx")
    dims = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:]
    x = np.random.default_rng(0).normal(size=(SAMPLES, *dims)).astype(np.float32)
    np.savez(folder / "x.npz", x=x)
    del model
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "POCKETZOO_HOME": str(folder / "home")}
    bundle = folder / "bundle"
    done = {"import": measure([sys.executable, "-c", IMPORT, str(folder / "big.onnx"), str(bundle)], environment)}
    for name, words in COMMANDS.items():
        if not bundle.exists():
            break
        given = [word.format(bundle=bundle, data=folder / "x.npz", folder=folder) for word in words]
        done[name] = measure([sys.executable, "-c", RUN, *given], environment)
        print(f"{shape:12} {count:6} {name:24}", done[name], flush=True)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="few and small points")
    parser.add_argument("--shapes", default=",".join(SHAPES), help="of the graphs")
    parser.add_argument("--counts", help=argparse.SUPPRESS)
    options = parser.parse_args()
    counts = FEW if options.small else COUNTS
    if options.counts:
        counts = tuple(map(int, options.counts.split(",")))
    started, rows = time.perf_counter(), []
    for shape in options.shapes.split(","):
        for count in counts:
            with tempfile.TemporaryDirectory() as folder:
                row = {"shape": shape, "count": count, "commands": commands(shape, count, Path(folder))}
            print(f"{shape:12} {count:6} import", row["commands"]["import"], flush=True)
            rows.append(row)
    what = {shape: (make.__doc__ or "").strip() for shape, make in SHAPES.items()}
    result = {"small": options.small, "seconds": round(time.perf_counter() - started, 1), "shapes": what, "rows": rows}
    write("nodes", result)


if __name__ == "__main__":
    main()
