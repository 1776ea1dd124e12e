"""Half of the channels go, then `distill`: how much of what was lost comes back, on samples without classes.

Usage: python benchmarks/distill.py. Digits with a head fitted here, and the pretrained tinynet on Fashion-MNIST.
Writes benchmarks/results/distill.json.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from record import write
from torch import nn

from pocketzoo import default_registry, fit, load_data, open_model
from pocketzoo.compress.configs import DistillConfig, PruneConfig
from pocketzoo.compress.distillation import distill
from pocketzoo.compress.pruning import prune
from pocketzoo.core.progress import SILENT
from pocketzoo.zoo.catalog.compressor import Distillation
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.models.build import load_module

RATIO, PRUNED_ON = 0.5, 256
SAMPLES = {"digits": 1024, "fashion-mnist": 2048}  # to learn from; no classes are read
TESTED = 4000  # samples at most


@torch.no_grad()
def scores(model: nn.Module, reference: nn.Module, batches: Batches) -> dict[str, float]:
    """Accuracy, and how often the answer is the reference's."""
    right = same = total = 0
    for inputs, y in batches:
        (x,) = inputs.values()
        answers, wanted = (m(torch.from_numpy(x)).argmax(1) for m in (model, reference))
        right += int((answers.numpy() == y).sum())
        same += int((answers == wanted).sum())
        total += len(x)
    return {"accuracy": right / total, "agreement": same / total, "samples": total}


def run(name: str, folder: Path) -> dict[str, Any]:
    registry = default_registry()
    data = load_data(name)
    bundle = fit("tinynet", data="digits", out=folder / name) if name == "digits" else open_model("tinynet")
    teacher, spec = load_module(bundle, registry), bundle.manifest.input
    samples = [x[spec.name] for x, _ in Batches(data.split("train"), spec, limit=SAMPLES[name])]
    tests = Batches(data.split("test"), spec, limit=TESTED)
    few = samples[: PRUNED_ON // len(samples[0])]
    config = PruneConfig(ratio=RATIO)
    plan = prune.plan(teacher, config, few, registry.get("target", "cpu"))
    rows: dict[str, Any] = {"original": scores(teacher, teacher, tests)}
    # As textbooks prune, without making up for what is gone, and with it.
    for kind, given in (("pruned", None), ("pruned, compensated", few)):
        pruned = prune.apply(teacher, plan, given)
        rows[kind] = scores(pruned, teacher, tests)
        start = time.perf_counter()
        distilled = distill.distill(
            pruned, distill.plan(pruned, DistillConfig(), samples, registry.get("target", "cpu")), samples,
            Distillation(teacher, folder / f"{name} {kind}", SILENT),
        )  # fmt: skip
        rows[f"{kind}, distilled"] = {**scores(distilled, teacher, tests), "seconds": time.perf_counter() - start}
        lost = rows["original"]["accuracy"] - rows[kind]["accuracy"]
        back = rows[f"{kind}, distilled"]["accuracy"] - rows[kind]["accuracy"]
        rows[f"{kind}, distilled"]["won_back"] = back / lost if lost > 0 else None
        print(name, kind, rows[kind], rows[f"{kind}, distilled"], flush=True)
    return {"learned_from": sum(map(len, samples)), "rows": rows}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        results = {name: run(name, Path(folder)) for name in SAMPLES}
    write("distill", {"ratio": RATIO, "data": results})


if __name__ == "__main__":
    main()
