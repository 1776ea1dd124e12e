"""What the nodes of a graph cost: each command on generated graphs of several shapes, of more and more nodes.

Usage: python benchmarks/nodes.py [--small] [--shapes residual,...] [--counts 1000,...]. Every command is a process of
its own. Adds to benchmarks/results/nodes.json what it measured, in place of what was there for the same graphs; page.py
makes a part of docs/scaling.md of it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from big_graphs import SHAPES
from record import ROOT, write

COUNTS, FEW = (1000, 10_000, 30_000), (300, 600)
SAMPLES = 32  # that int8 is calibrated on
RESULT = ROOT / "benchmarks" / "results" / "nodes.json"
MAKE = """
import sys
from pathlib import Path
import numpy as np
import onnx
from big_graphs import SHAPES
shape, count, folder, samples = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
model = SHAPES[shape](count)
onnx.save(model, folder / "big.onnx")
dims = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:]
np.savez(folder / "x.npz", x=np.random.default_rng(0).normal(size=(samples, *dims)).astype(np.float32))
"""
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
    "check": ["check", "{bundle}", "--target", "cpu", "--json"],
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
    given = [shape, str(count), str(folder), str(SAMPLES)]
    subprocess.run([sys.executable, "-c", MAKE, *given], check=True, cwd=Path(__file__).parent)
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
    parser.add_argument("--counts", help="of their nodes, instead of the usual ones")
    options = parser.parse_args()
    counts = FEW if options.small else COUNTS
    if options.counts:
        counts = tuple(map(int, options.counts.split(",")))
    rows: list[dict[str, Any]] = []
    for shape in options.shapes.split(","):
        for count in counts:
            with tempfile.TemporaryDirectory() as folder:
                row = {"shape": shape, "count": count, "commands": commands(shape, count, Path(folder))}
            print(f"{shape:12} {count:6} import", row["commands"]["import"], flush=True)
            rows.append(row)
    what = {shape: (make.__doc__ or "").strip() for shape, make in SHAPES.items()}
    before = json.loads(RESULT.read_text("utf8"))["rows"] if RESULT.exists() else []
    new = {(row["shape"], row["count"]) for row in rows}
    rows += [row for row in before if (row["shape"], row["count"]) not in new]
    rows.sort(key=lambda row: (list(SHAPES).index(row["shape"]), row["count"]))
    write("nodes", {"samples": SAMPLES, "shapes": what, "rows": rows})


if __name__ == "__main__":
    main()
