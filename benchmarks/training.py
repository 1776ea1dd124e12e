"""What fitting costs and how good it is: kept features, decoding, and a linear head beside scikit-learn's.

Usage: python benchmarks/training.py [--photos 1000]. Needs Fashion-MNIST and examples/efficientnet-lite.
Writes benchmarks/results/training.json.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from photos import sources, write_crops
from PIL import Image
from record import write

import pocketzoo
from pocketzoo import default_registry
from pocketzoo.zoo.bundle import ModelRef
from pocketzoo.zoo.data import Batches, Dataset, Split
from pocketzoo.zoo.model import build, load_pretrained
from pocketzoo.zoo.specs import InputSpec

MODEL, EPOCHS, TRIED = "efficientnet-lite0", 40, 2  # epochs of a fit; those in which features are really computed anew


def labelled(folder: Path, count: int) -> Dataset:
    """Crops of photographs, the photograph as class."""
    files = sorted(write_crops(folder, count, seed=5).iterdir())
    classes = np.arange(count) % len(sources())
    parts = {"train": slice(0, count), "val": slice(0, 70), "test": slice(0, 70)}
    splits = {name: Split(files[part], classes[part]) for name, part in parts.items()}
    return Dataset("photo crops", tuple(p.stem for p in sources()), splits, None)  # type: ignore[arg-type]


def kept_features(data: Dataset) -> dict[str, Any]:
    """A fit on kept features beside one whose features are computed in each of a few epochs."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        pocketzoo.fit(MODEL, Path(folder) / "kept", data=data, epochs=EPOCHS)
        kept = time.perf_counter() - start
        home = os.environ["POCKETZOO_HOME"]
        os.environ |= {"POCKETZOO_FEATURES": "0", "POCKETZOO_HOME": f"{folder}/home"}  # where none are kept yet
        times = []
        for epochs in (1, 1 + TRIED):
            start = time.perf_counter()
            pocketzoo.fit(MODEL, Path(folder) / f"anew-{epochs}", data=data, epochs=epochs)
            times.append(time.perf_counter() - start)
        del os.environ["POCKETZOO_FEATURES"]
        os.environ["POCKETZOO_HOME"] = home
    epoch = (times[1] - times[0]) / TRIED
    anew = times[0] + epoch * (EPOCHS - 1)
    return {"epochs": EPOCHS, "tried": TRIED, "kept_s": kept, "epoch_anew_s": epoch, "anew_s": anew}


def bare(files: list[Path]) -> int:
    """Decode and resize, and nothing else."""
    for file in files:
        with Image.open(file) as picture:
            np.asarray(picture.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC))
    return len(files)


def decoding(data: Dataset, rounds: int = 5) -> dict[str, Any]:
    """Pictures a second of the loader, and of a bare loop in two processes, in turn."""
    spec = default_registry().get("backbone", MODEL).input
    split = data.split("train")
    files = list(split.samples)
    loader, loop = [], []
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(bare, [files[:4], files[4:8]]))
        for _ in range(rounds):
            start = time.perf_counter()
            list(pool.map(bare, [files[0::2], files[1::2]]))
            loop.append(len(files) / (time.perf_counter() - start))
            start = time.perf_counter()
            for _ in Batches(split, spec, size=32):
                pass
            loader.append(len(files) / (time.perf_counter() - start))
    ratio = float(np.median(np.array(loader) / np.array(loop)))
    return {"loader": float(np.median(loader)), "loop": float(np.median(loop)), "ratio": ratio}


def quality(count: int = 3000) -> dict[str, Any]:
    """A linear head on frozen features of Fashion-MNIST, and logistic regression on the same features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    whole = pocketzoo.load_data("fashion-mnist")
    spec = default_registry().get("backbone", MODEL).input
    assert isinstance(spec, InputSpec)
    sizes = {"train": count, "val": count // 3, "test": count // 3}
    splits = {}
    for name, size in sizes.items():
        part = whole.split(name)  # type: ignore[arg-type]
        gray = [np.repeat(np.asarray(x)[..., None], 3, -1).astype(np.uint8) for x in part.samples[:size]]
        splits[name] = Split(np.stack(gray), part.targets[:size])
    data = Dataset("Fashion-MNIST, part", whole.labels, splits, None)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        bundle = pocketzoo.fit(MODEL, Path(folder) / "m", data=data, head_options={"pool": "mean"}, epochs=EPOCHS)
    registry = default_registry()
    ref = ModelRef(backbone=MODEL, head="linear", outputs=10)
    model = build(ref, registry)
    load_pretrained(model, ref, registry)
    arrays = {}
    for name in sizes:
        parts = [], []
        for x, y in Batches(data.split(name), spec):  # type: ignore[arg-type]
            with torch.no_grad():
                parts[0].append(model.backbone(torch.from_numpy(x)).mean((2, 3)).numpy())
            parts[1].append(y)
        arrays[name] = np.concatenate(parts[0]), np.concatenate(parts[1])
    scale = StandardScaler().fit(arrays["train"][0])
    tried = {}
    for c in (0.003, 0.01, 0.03, 0.1, 1.0):
        found = LogisticRegression(C=c, max_iter=500).fit(scale.transform(arrays["train"][0]), arrays["train"][1])
        tried[c] = [found.score(scale.transform(arrays[name][0]), arrays[name][1]) for name in ("val", "test")]
    best = max(tried.values())  # by the validation split
    return {"samples": sizes, "linear": bundle.manifest.metrics["test_accuracy"], "sklearn": best[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=1000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["POCKETZOO_HOME"] = f"{folder}/home"
        data = labelled(Path(folder) / "photos", args.photos)
        result = {"photos": args.photos, "features": kept_features(data)}
        print(result["features"], flush=True)
        result["decoding"] = decoding(data)
        print(result["decoding"], flush=True)
        result["quality"] = quality()
        print(result["quality"], flush=True)
    write("training", result)


if __name__ == "__main__":
    main()
