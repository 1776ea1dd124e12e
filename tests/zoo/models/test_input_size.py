"""Backbones on images of another size: shapes as they turn out, and a refusal where they cannot be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hubmodels import PROCESSOR, VISION_FAMILIES
from transformers import AutoConfig

from pocketzoo.core.errors import UnsupportedModelError
from pocketzoo.plugins import transformers as plugin
from pocketzoo.zoo.bundles.manifest import ModelRef
from pocketzoo.zoo.catalog.specs import FeatureSpec, Repository, TextSpec
from pocketzoo.zoo.models.build import build, resolve
from pocketzoo.zoo.models.export_graph import onnx_from_model
from pocketzoo.zoo.models.input_size import resized


@pytest.mark.parametrize("size", [(28, 28), (56, 56), (40, 33), (4, 4)])
@pytest.mark.parametrize("cut", ["", "stem", "stage1"])
def test_what_is_stated_is_what_comes_out(registry, size, cut):
    ref = ModelRef(backbone="tinynet", head="linear", outputs=3, cut=cut, input_size=size)
    parts, model = resolve(ref, registry), build(ref, registry)
    assert parts.backbone.input.shape == ("batch", 1, *size)
    with torch.no_grad():
        features = model.backbone(torch.zeros(2, 1, *size))
    assert ("batch", *features.shape[1:]) == parts.features.shape
    assert model.head(features).shape == (2, 3)


def test_images_are_cut_out_in_the_same_proportion(registry):
    spec = registry.get("backbone", "tinynet")
    wide = replace(spec, input=replace(spec.input, resize=32))
    assert resized(wide, (14, 20)).input.resize == 16
    assert resized(spec, (28, 28)) is spec
    assert spec.input.size == (1, 28, 28)


def test_the_weights_stay_where_they_come_from(registry):
    spec = registry.get("backbone", "tinynet")
    other = resized(spec, (40, 40))
    assert (other.weights, other.name, other.build) == (spec.weights, spec.name, spec.build)


class OneSize(torch.nn.Module):
    def forward(self, x):
        if x.shape[2:] != (8, 8):
            raise ValueError("positions are learned for 8 x 8\nand no other")
        return x


@pytest.mark.parametrize(
    ("changes", "size", "text", "hint"),
    [
        (
            {"build": OneSize},
            (9, 9),
            "images of 9 x 9: positions are learned for 8 x 8",
            "28 x 28",
        ),
        ({"build": lambda: torch.nn.MaxPool2d(4)}, (2, 2), "cannot read images of 2 x 2", "28 x 28"),
        ({"build": torch.nn.Flatten}, (9, 9), "it outputs 81", "28 x 28"),
        ({"input": TextSpec(vocabulary=9, pad=0, max_length=5)}, (9, 9), "text input", "leave out --input-size"),
    ],
)
def test_what_cannot_be_is_refused(registry, refused, changes, size, text, hint):
    spec = replace(registry.get("backbone", "tinynet"), cuts=(), features=FeatureSpec("map", ("batch", 1, 8, 8)))
    with refused(UnsupportedModelError, text, hint=hint):
        resized(replace(spec, **changes), size)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # transformers' own, while it builds a model
@pytest.mark.parametrize("family", ["resnet", "convnext"])
@pytest.mark.parametrize("size", [(50, 50), (64, 96)])
def test_convolutions_of_transformers_read_any_size(family, size, tmp_path):
    spec = transformers_spec(family, tmp_path)
    small = resized(spec, size)
    with torch.no_grad():
        assert spec.build()(torch.zeros(1, 3, *size)).shape[1:] == small.features.shape[1:]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("family", ["vit", "deit"])
def test_positions_that_are_learned_for_one_size_are_refused_at_another(family, tmp_path, refused):
    with refused(UnsupportedModelError, "cannot read images of 48 x 48", hint="its default size is 32 x 32"):
        resized(transformers_spec(family, tmp_path), (48, 48))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_positions_that_the_library_interpolates_are(tmp_path):
    """DINOv2's: its graph is checked against it like any other."""
    small = resized(transformers_spec("dinov2", tmp_path), (48, 40))
    assert small.features.shape == ("batch", 6 * 5 + 1, 32)
    assert onnx_from_model(small.build().eval(), small.input, tmp_path / "m.onnx") < 1e-4


def transformers_spec(family: str, folder: Path):
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    config = AutoConfig.for_model(family, **VISION_FAMILIES[family]).to_dict()
    files = {"preprocessor_config.json": folder / "preprocessor_config.json"}
    return plugin.backbone(Repository(repo_id="a/b", commit="0" * 40, config=config, files=files))
