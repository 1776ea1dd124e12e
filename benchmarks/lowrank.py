"""Low rank on a text encoder: plain SVD, SVD whitened by the inputs, and ours, at the same number of parameters.

Usage: python benchmarks/lowrank.py MODEL CALIBRATE.txt TEST.txt, where MODEL is a bundle or name of an encoder whose
outputs are embeddings (all-MiniLM-L6-v2). All its linear layers are factorized; nothing is timed away.
Writes benchmarks/results/lowrank.json.
"""

from __future__ import annotations

import argparse
import copy
import time
from typing import Any

import torch
from record import write
from torch import Tensor, nn

from pocketzoo import default_registry, load_data, open_model
from pocketzoo.compress.configs import LowRankConfig
from pocketzoo.compress.low_rank import low_rank as lowrank
from pocketzoo.compress.low_rank.factorizations import InputMetric, factorize, plain_metric
from pocketzoo.compress.low_rank.kronecker_factors import kronecker_factors
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.models.build import load_module

SHARES = (0.8, 0.6, 0.4)


def read(bundle: Any, path: str) -> list[Any]:
    data = load_data(path)
    batches = [
        Batches(data.split(s), bundle.manifest.input, files=bundle.source_files()) for s in ("train", "val", "test")
    ]
    return [x[bundle.manifest.input.name] for each in batches for x, _ in each]


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
def outputs(model: nn.Module, batches: list[Any]) -> Tensor:
    return torch.cat([model(torch.from_numpy(x)) for x in batches])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("calibrate")
    parser.add_argument("test")
    args = parser.parse_args()
    torch.set_num_threads(1)
    registry = default_registry()
    bundle = open_model(args.model)
    model = load_module(bundle, registry)
    calibrate, test = read(bundle, args.calibrate), read(bundle, args.test)
    reference = outputs(model, test)
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    total = sum(m.weight.numel() for m in layers.values())
    effects = kronecker_factors(model, list(layers), calibrate)
    metrics = {n: InputMetric(e.inputs.mean) for n, e in effects.items() if e.inputs}
    del effects
    rows = []

    def record(way: str, share: float, made: nn.Module, seconds: float) -> None:
        cosine = torch.cosine_similarity(outputs(made, test), reference, dim=1)
        weights = (made.get_submodule(n).parameters() for n in layers)
        used = sum(p.numel() for each in weights for p in each if p.ndim > 1) / total
        row = {"way": way, "share": share, "used": used, "cosine": float(cosine.mean()), "least": float(cosine.min())}
        rows.append({**row, "seconds": seconds})
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)

    for share in SHARES:
        start = time.perf_counter()
        config = LowRankConfig(parameters=share, only_faster=False)
        plan = lowrank.plan(model, config, calibrate, registry.get("target", "cpu"))
        made = lowrank.apply(model, plan, calibrate)
        record("ours", share, made, time.perf_counter() - start)
    for way, given in (("plain", None), ("whitened", metrics)):
        for share in SHARES:
            start = time.perf_counter()
            record(way, share, uniform(model, share, given), time.perf_counter() - start)
    counts = {"calibrate": sum(map(len, calibrate)), "test": sum(map(len, test))}
    write("lowrank", {"model": bundle.manifest.name, **counts, "rows": rows})


if __name__ == "__main__":
    main()
