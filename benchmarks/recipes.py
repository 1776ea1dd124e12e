"""The textbook's recipe and ours, side by side: the same model, data and targets, measured in one run.

Usage: python benchmarks/recipes.py [--crops 256]. Needs Fashion-MNIST and examples/efficientnet-lite.
Writes benchmarks/results/recipes.json.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from photos import groups, photos, write_crops
from record import ROOT, write
from sides import Side

import pocketzoo
from pocketzoo.core.typed import to_plain
from pocketzoo.zoo.catalog.dataset import Dataset, Groups, Split

RECIPES = ("classic", "edge")
SIDES: dict[str, Side] = {"train": "calibration", "val": "third", "test": "test"}


def fashion_mnist(folder: Path, count: int) -> Dataset:
    return pocketzoo.load_data("fashion-mnist")


def crops(folder: Path, count: int) -> Dataset:
    """Crops of photographs: ``count`` to calibrate, half as many to decide, twice as many to test, of other photos."""
    sizes = {"train": count, "val": count // 2, "test": 2 * count}
    splits, first = {}, 0
    for i, (name, size) in enumerate(sizes.items(), 1):
        made = write_crops(folder / name, size, i, photos(SIDES[name]))
        ids = groups(made) + first
        first = int(ids.max()) + 1
        splits[name] = Split(sorted(made.iterdir()), groups=Groups(ids, "photo"))
    return Dataset("photo crops", (), splits, None)  # type: ignore[arg-type]


MODELS: dict[str, Callable[[Path, int], Dataset]] = {"tinynet": fashion_mnist, "efficientnet-lite0": crops}


def run(model: str, folder: Path, count: int) -> dict[str, Any]:
    """Both recipes on one model, then all graphs in turn."""
    data = MODELS[model](folder / "data", count)
    made = {}
    for name in RECIPES:
        start = time.perf_counter()
        bundle = pocketzoo.compress(
            model, folder / name, data=data, recipe=ROOT / "recipes" / f"{name}.toml", samples=count
        )
        made[name] = {
            "seconds": time.perf_counter() - start,
            "steps": [
                {"compressor": s.compressor, "config": s.config, "report": s.report} for s in bundle.manifest.steps
            ],
            "rejected": bundle.manifest.rejected,
        }
        print(f"{model}, {name}: {made[name]['seconds']:.0f} s", flush=True)
    rows = pocketzoo.bench([model, *(folder / name for name in RECIPES)], data=data, seconds=2.0)
    return {"data": data.name, "rows": to_plain(rows), "recipes": to_plain(made)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crops", type=int, default=256, help="to calibrate on")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    args = parser.parse_args()
    results = {}
    for model in args.models:
        with tempfile.TemporaryDirectory() as name:
            results[model] = run(model, Path(name), args.crops)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    write("recipes", {"samples": args.crops, "peak_mb": peak, "models": results})


if __name__ == "__main__":
    main()
