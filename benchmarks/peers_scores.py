"""Score, time and parse the graphs of all peers, in one place.

Usage: python benchmarks/peers_scores.py score GRAPH FOLDER | parse GRAPH FOLDER | time FOLDER GRAPH...
Each prints a line of JSON last. FOLDER holds the model's samples and references.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from intervals import of_mean, of_sqnr

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from common import Samples

ROUNDS = 150


def main() -> None:
    verb, *paths = sys.argv[1], *map(Path, sys.argv[2:])
    print(json.dumps({"score": score, "parse": parse, "time": timings}[verb](*paths)))


def outputs(graph: Path, samples: Path) -> np.ndarray:
    """What a graph answers: (N, outputs)."""
    from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner

    with OnnxRunner(graph, threads=1) as runner:
        name, out = runner.signature.inputs[0].name, runner.signature.outputs[0].name
        return np.concatenate([runner.infer({name: x})[out] for x in Samples(samples)])


def score(graph: Path, folder: Path) -> dict[str, Any]:
    """How near a graph's answers are to the float32 graph's, on samples of sources that did not calibrate it.

    With intervals over the sources; ``kept`` has a character a sample, 1 where its answer is the same.
    """
    from pocketzoo.zoo.graphs.cost import layer_costs

    wanted = np.load(folder / "test_reference.npy").astype(np.float64)
    given = outputs(graph, folder / "test.npy").astype(np.float64)
    ids = np.load(folder / "test_groups.npy")
    signal, noise = (np.square(values).reshape(len(ids), -1).sum(-1) for values in (wanted, wanted - given))
    row: dict[str, Any] = {"bytes": graph.stat().st_size, "sqnr": None, "test_sources": len(np.unique(ids))}
    if noise.any():
        row["sqnr"] = float(10 * np.log10(signal.sum() / noise.sum()))
        row["sqnr_interval"] = of_sqnr(signal, noise, ids)
    if folder.name == "minilm":
        cosines = (wanted * given).sum(-1) / (np.linalg.norm(wanted, axis=-1) * np.linalg.norm(given, axis=-1))
        row |= {"cosine": float(cosines.mean()), "cosine_interval": of_mean(cosines, ids)}
        name, same = "neighbours", _nearest(wanted) == _nearest(given)
    else:
        name, same = "agreement", wanted.argmax(-1) == given.argmax(-1)
        if not any(node in graph.read_bytes() for node in (b"QuantizeLinear", b"DequantizeLinear")):
            row["macs"] = sum(layer.macs for layer in layer_costs(graph))  # int8 changes none
    row |= {name: float(same.mean()), f"{name}_interval": of_mean(same.astype(np.float64), ids)}
    return row | {"kept": "".join("01"[int(each)] for each in same)}


def _nearest(vectors: np.ndarray) -> np.ndarray:
    """For each vector (N, C) the other one of the largest cosine: (N,)."""
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    return cosines.argmax(-1)


def parse(graph: Path, _: Path) -> dict[str, Any]:
    """Whether NVIDIA's parser takes a graph, and its builder makes an engine of it."""
    from pocketzoo import default_registry
    from pocketzoo.core.errors import PocketzooError
    from pocketzoo.zoo.backends.tensorrt.build_engine import layer_precisions, save_engine

    target = default_registry().get("target", "tensorrt-rtx")
    row: dict[str, Any] = {"accepted": False, "built": False, "reason": ""}
    try:
        layer_precisions(graph, target)
        row["accepted"] = True
        with tempfile.TemporaryDirectory() as folder:
            save_engine(graph, Path(folder) / "model.engine", target)
        row["built"] = True
    except PocketzooError as error:
        row["reason"] = error.message
    return row


def timings(folder: Path, *graphs: Path) -> dict[str, Any]:
    """Milliseconds of each graph for one sample on one thread, and the first graph's time over its own.

    One run of each in turn, so that a slow moment of the machine hits all alike: a ratio is the median of those in each
    round. The time is that of the quickest round, since what else a machine does only ever adds to it; but two graphs'
    quickest rounds need not be equally lucky, so no ratio is made of them. The text is the one of median length.
    """
    from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner

    samples = list(Samples(folder / "test.npy", size=1))
    x = sorted(samples, key=lambda sample: sample.shape[-1])[len(samples) // 2]
    with ExitStack() as stack:
        runners = [stack.enter_context(OnnxRunner(graph, threads=1)) for graph in graphs]
        times = np.zeros((ROUNDS + 3, len(runners)))
        for row in times:
            for i, runner in enumerate(runners):
                start = time.perf_counter()
                runner.infer({runner.signature.inputs[0].name: x})
                row[i] = (time.perf_counter() - start) * 1e3
    times = times[3:]  # the first runs allocate
    return {
        str(graph): {"ms": float(times[:, i].min()), "ratio": float(np.median(times[:, 0] / times[:, i]))}
        for i, graph in enumerate(graphs)
    } | {"shape": list(x.shape)}


if __name__ == "__main__":
    main()
