"""int8 alone: what is asked of it, measured in one run, each row made by a process of its own.

Usage: python benchmarks/int8.py [--many 4096] [--only PATTERN]. Needs what benchmarks/peers.py needs; onnxruntime's
quantizer and Model Optimizer run alongside pocketzoo. ``--many``: samples that one more row calibrates on, the same
ones over and over, to see whether memory grows with them; another has none at all. --only takes the rows whose
"model/name" does not match from the last run. Writes benchmarks/results/int8.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from environments import cache
from filelock import FileLock
from page_peers import CPU, CROPS, NO_DATA, NVIDIA, ORT, SYMMETRIC, TEXTS, render_int8
from peers import Row, add_latency, inputs, judge, make, rows, test_groups
from peers_inputs import CROPS as CROP_COUNTS
from peers_inputs import SENTENCES
from record import write

NOISE = (20, 25, 30, 35, 40)  # dB
DRAWS = 10


def measure(work: Path, many: int, only: str) -> dict[str, Any]:
    """The rows of each model, float32 first, timed together."""
    folders = inputs(work)
    names = (ORT, CPU, NVIDIA, *SYMMETRIC)
    wanted = [row for row in rows() if row.name in names and (row.model, row.name) != (TEXTS, NVIDIA)]
    wanted = [row for row in wanted if row.model == CROPS or row.name == CPU]
    wanted.append(Row(CROPS, f"{CPU}, {many:,} samples", "", "ours_int8", f"cpu:{many}"))
    wanted.append(Row(CROPS, NO_DATA, "", "ours_int8", "cpu:none"))
    found: dict[str, list[dict[str, Any]]] = {}
    kept = work / "int8"
    kept.mkdir(exist_ok=True)
    for model, folder in folders.items():
        found[model] = [{"name": "float32", **judge(folder / "model.onnx", folder)}]
        graphs = {"float32": folder / "model.onnx"}
        for row in (row for row in wanted if row.model == model):
            place = kept / f"{model}-{row.name.replace(' ', '-').replace(',', '')}.onnx"
            said = place.with_suffix(".json")
            if only and said.exists() and not fnmatch(f"{model}/{row.name}", only):
                result = json.loads(said.read_text())
            else:
                with tempfile.TemporaryDirectory() as made:
                    result = make(row, "", folder, Path(made) / "graph.onnx")
                    if "failed" not in result:
                        shutil.move(Path(made) / "graph.onnx", place)
                said.write_text(json.dumps(result))
            print(f"{model}/{row.name}: {json.dumps(result)}", flush=True)
            found[model].append({"name": row.name, "tool": row.tool or "pocketzoo", **result})
            if "failed" not in result:
                graphs[row.name] = place
        add_latency(found[model], folder, graphs)
    logits = np.load(folders[CROPS] / "test_reference.npy")
    return {
        "models": found,
        "many": many,
        "groups": test_groups(folders),
        "samples": {CROPS: CROP_COUNTS, TEXTS: SENTENCES},
        "noise": {str(decibels): agreement_under_noise(logits, decibels) for decibels in NOISE},
    }


def agreement_under_noise(logits: np.ndarray, decibels: float) -> float:
    """The fraction of answers (N, classes) that stay when white noise of that SQNR is added, over ``DRAWS`` draws."""
    generator = np.random.default_rng(0)
    scale = np.sqrt(np.square(logits, dtype=np.float64).mean() / 10 ** (decibels / 10))
    kept = [
        (logits + scale * generator.normal(size=logits.shape)).argmax(-1) == logits.argmax(-1) for _ in range(DRAWS)
    ]
    return float(np.mean(kept))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--many", type=int, default=4096)
    parser.add_argument("--only", default="", metavar="PATTERN", help='rows to do again, such as "*/pocketzoo*"')
    args = parser.parse_args()
    work = cache() / "peers"
    work.mkdir(parents=True, exist_ok=True)
    with FileLock(work / "lock"):
        result = measure(work, args.many, args.only)
    print(render_int8(result))
    write("int8", result)


if __name__ == "__main__":
    main()
