"""The perceptron as a backbone: its widths are options, from the command line to the bundle and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from feeds import only
from torch import nn

import pocketzoo
from pocketzoo.core.errors import DataError, RecipeError, UnsupportedModelError
from pocketzoo.measure.evaluate import evaluate
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.bundles.manifest import ModelRef
from pocketzoo.zoo.models.build import build, example, load_module, resolve
from pocketzoo.zoo.models.heads import configured


def widths(module: nn.Module) -> list[tuple[int, int]]:
    return [(m.in_features, m.out_features) for m in module.modules() if isinstance(m, nn.Linear)]


def test_as_it_comes_it_is_784_512_256(registry):
    ref = ModelRef(backbone="mlp", head="linear", outputs=10)
    model = build(ref, registry)
    assert widths(model) == [(784, 512), (512, 256), (256, 10)]
    parts = resolve(ref, registry)
    assert model(example(parts.backbone.input, 3)).shape == (3, 10)


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ({"input": "4", "hidden": "64,64"}, [(4, 64), (64, 64), (64, 2)]),
        ({"input": (3, 8, 6), "hidden": 5}, [(144, 5), (5, 2)]),
    ],
)
def test_its_widths_are_options(registry, options, layers):
    ref = ModelRef(backbone="mlp", head="linear", outputs=2, backbone_options=options)
    model, parts = build(ref, registry), resolve(ref, registry)
    assert widths(model) == layers
    assert model.backbone(example(parts.backbone.input, 4)).shape == (4, parts.features.channels)


def test_its_activation_and_dropout_are_options(registry):
    spec = configured(registry.get("backbone", "mlp"), {"input": 3, "hidden": 4, "activation": "tanh", "dropout": 0.5})
    net = spec.build()
    x = torch.randn(7, 3)
    assert torch.equal(net.eval()(x), torch.tanh(net.linear_1(x)))
    dropped = net.train()(x.expand(1, 7, 3).reshape(-1, 3).repeat(50, 1)) == 0
    assert 0.4 < dropped.float().mean() < 0.6


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"input": "4,4"}, r"input cannot be \(4, 4\)"),
        ({"input": 0}, "input cannot be"),
        ({"hidden": ""}, "hidden cannot be"),
        ({"dropout": 1}, "dropout cannot be"),
        ({"std": 0}, "std cannot be"),
        ({"width": 3}, "backbone 'mlp' has no option 'width'"),
    ],
)
def test_options_that_cannot_be(registry, options, text):
    with pytest.raises(RecipeError, match=text):
        configured(registry.get("backbone", "mlp"), options)


def test_other_backbones_take_no_options(registry):
    with pytest.raises(RecipeError, match="backbone 'tinynet' takes no options, but 'hidden' was given"):
        configured(registry.get("backbone", "tinynet"), {"hidden": 3})


def test_vectors_have_no_size_in_pixels(registry):
    ref = ModelRef(backbone="mlp", head="linear", outputs=2, backbone_options={"input": 4}, input_size=(8, 8))
    with pytest.raises(UnsupportedModelError, match="tabular input, which has no size in pixels"):
        resolve(ref, registry)


def test_a_table_of_numbers_is_fitted_and_read_back(run, registry, tmp_path):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(200, 3)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=np.where(x[:, 0] * x[:, 1] > 0, "same", "other"))
    out = tmp_path / "out"
    command = ["fit", "mlp", "--backbone-option", "input=3", "--backbone-option", "hidden=32,16", "--unfreeze", "all"]
    run(*command, "--data", tmp_path / "data.npz", "--epochs", "60", "--set", "backbone_rate=1", "-o", out)
    bundle = read_bundle(out)
    assert bundle.manifest.metrics["test_accuracy"] > 0.85  # no line divides the two
    assert json.loads((out / "pocketzoo.json").read_text())["model"]["backbone_options"]["hidden"] == [32, 16]
    module = load_module(bundle, registry)
    with OnnxRunner(bundle.graph()) as runner, torch.no_grad():
        np.testing.assert_allclose(only(runner, x), module(torch.from_numpy(x)).numpy(), atol=1e-4)
    assert "tabular-classification" in (out / "README.md").read_text()


def test_images_are_refused_where_it_reads_vectors(tmp_path, photos):
    photos(tmp_path / "p", {"a": 6, "b": 6})
    with pytest.raises(DataError, match="a row cannot be the file"):
        pocketzoo.fit("mlp", tmp_path / "out", backbone_options={"input": 4}, data=tmp_path / "p")


def test_columns_are_read_by_their_names_in_whatever_order(tmp_path, refused):
    """The bundle keeps them; another table may have them in another order, and a device a mapping."""
    numbers = np.random.default_rng(0).normal(size=(120, 2)) * [1, 100]
    labels = np.where(numbers[:, 0] > 0, "yes", "no")
    rows = [f"{a:.4f},{b:.4f},{label}" for (a, b), label in zip(numbers, labels, strict=True)]
    (tmp_path / "train.csv").write_text("\n".join(["near,far,label", *rows]))
    turned = [",".join([b, a, label]) for a, b, label in (row.split(",") for row in rows)]
    (tmp_path / "turned.csv").write_text("\n".join(["far,near,label", *turned]))
    (tmp_path / "lacking.csv").write_text("\n".join(["near,fra,label", *rows]))
    training = {"epochs": 20}
    bundle = pocketzoo.fit("mlp", tmp_path / "out", data=tmp_path / "train.csv", training=training)
    assert (bundle.manifest.processor.name, bundle.manifest.input.columns) == ("table", ("near", "far"))
    one, other = (evaluate(bundle.path, data=tmp_path / f"{name}.csv") for name in ("train", "turned"))
    assert one["accuracy"] == other["accuracy"] > 0.8
    with refused(DataError, "lacking.csv has no column 'far'", hint="fra"):
        evaluate(bundle.path, data=tmp_path / "lacking.csv")
    with pocketzoo.load_runtime(bundle.path) as runtime:
        given = runtime.predict({"far": 3.0, "near": -2.0})
        assert np.array_equal(given, runtime.predict(np.float32([[-2, 3]])))
