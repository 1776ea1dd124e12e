"""Tables of numbers on the perceptron: standardized, trained whole, then int8 and an engine."""

from __future__ import annotations

import math
from importlib.util import find_spec

import numpy as np
import pytest
import torch

import pocketzoo
from pocketzoo.compress.configs import Int8Config
from pocketzoo.core.errors import DataError, RecipeError
from pocketzoo.zoo.data.batches import from_arrays
from pocketzoo.zoo.models.build import load_module
from pocketzoo.zoo.models.heads import configured


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Two columns of very different scale, and whether their standardized product is positive: no line parts them."""
    x = np.random.default_rng(0).normal(size=(400, 2)) * (1.0, 1e4) + (0.0, 3e4)
    path = tmp_path_factory.mktemp("t") / "xor.csv"
    rows = [f"{a:.4f},{b:.1f},{'same' if a * (b - 3e4) > 0 else 'apart'}" for a, b in x]
    path.write_text("\n".join(["small,large,label", *rows]) + "\n")
    return path


def test_rows_are_standardized(registry):
    plain = configured(registry.get("backbone", "mlp"), {"input": 4}).build().eval()
    module = configured(registry.get("backbone", "mlp"), {"input": 4, "standardize": True}).build().eval()
    module.load_state_dict({**module.state_dict(), **plain.state_dict()})
    x = torch.randn(5, 4) * 100 + 7
    module.standard.standardize(x.mean(0), x.std(0))
    torch.testing.assert_close(module(x), plain((x - x.mean(0)) / x.std(0)))


def test_images_are_not_standardized(registry, refused):
    with refused(RecipeError, "images are not standardized"):
        configured(registry.get("backbone", "mlp"), {"standardize": True})


@pytest.mark.slow
def test_a_table_of_numbers_to_int8_and_an_engine(table, tmp_path):
    bundle = pocketzoo.fit("mlp", tmp_path / "m", data=table, epochs=30)
    assert (bundle.manifest.input.width, bundle.manifest.input.columns) == (2, ("small", "large"))
    assert bundle.manifest.metrics["test_accuracy"] >= 0.9
    options = bundle.manifest.model.backbone_options
    assert (options["input"], options["standardize"]) == ([2], True)
    scale = load_module(bundle, pocketzoo.default_registry()).backbone.standard.get_buffer("scale")
    assert scale[0] == pytest.approx(1, rel=0.2)
    assert scale[1] == pytest.approx(1e4, rel=0.2)
    small = pocketzoo.compress(
        bundle.path, tmp_path / "small", data=table, steps=[Int8Config()], targets=("cpu", "tensorrt-rtx"),
        keep_slower=True, samples=64,
    )  # fmt: skip
    assert pocketzoo.eval(small.path, data=table)["accuracy"] >= 0.88
    assert pocketzoo.export(small.path, to="onnx", out=tmp_path / "m.onnx").stat().st_size < 250_000
    if find_spec("tensorrt_rtx"):
        assert pocketzoo.export(small.path, to="tensorrt-rtx", out=tmp_path / "m.engine").stat().st_size > 0


def test_numbers_are_learned_from_rows(tmp_path):
    x = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    y = (np.abs(x[:, :1]) + x[:, 1:2] * 2).astype(np.float32)
    data = from_arrays("made", (), x, y)
    bundle = pocketzoo.fit("mlp", tmp_path / "m", data=data, head="regression", epochs=40)
    reached = bundle.manifest.metrics["test_r2"]
    assert reached >= 0.9
    assert math.isclose(pocketzoo.eval(bundle.path, data=data)["r2"], reached, abs_tol=1e-3)


def test_a_backbone_for_images_refuses_rows(table, tmp_path, refused):
    with refused(DataError, "a sample has shape 2, the model reads 1 x 28 x 28"):
        pocketzoo.fit("tinynet", tmp_path / "m", data=table)
