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
    assert (options["input"], options["standardize"]) == ([2], False)
    assert bundle.manifest.input.columns == ("small", "large")
    assert bundle.manifest.input.std == pytest.approx((1, 1e4), rel=0.2)
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


@pytest.fixture(scope="module")
def gaps(tmp_path_factory):
    """Rows of two columns, every tenth of which lacks one of them, with the label to the right of an unrelated one."""
    x = np.random.default_rng(0).normal(size=(200, 2)) * (1.0, 1e3) + (0.0, 5e3)
    rows = [[f"{a:.4f}", f"{b:.2f}", "up" if a > 0 else "down"] for a, b in x]
    for i in range(0, 200, 10):
        rows[i][i // 10 % 2] = "" if i % 20 else "NA"
    path = tmp_path_factory.mktemp("gaps") / "gaps.csv"
    path.write_text("\n".join(["near,far,label", *map(",".join, rows)]) + "\n")
    return path


def test_what_rows_lack_is_filled_in_everywhere_or_refused_by_file_and_line(gaps, tmp_path, refused):
    with refused(DataError, f"line 2 of {gaps} has no number in near: 'NA'", hint="--set missing=mean"):
        pocketzoo.fit("mlp", tmp_path / "no", data=gaps)
    bundle = pocketzoo.fit("mlp", tmp_path / "m", data=gaps, training={"missing": "median", "epochs": 12})
    spec = bundle.manifest.input
    assert spec.columns == ("near", "far")
    assert spec.missing[1] == pytest.approx(5e3, rel=0.1)
    assert spec.std[1] == pytest.approx(1e3, rel=0.2)
    assert bundle.manifest.provenance["training"]["missing"] == "median"
    score = pocketzoo.eval(bundle.path, data=gaps)
    assert score["accuracy"] == bundle.manifest.metrics["test_accuracy"] > 0.8
    with pocketzoo.load_runtime(bundle.path, provider="cpu") as runtime:
        wanted = runtime.predict(np.float32([[-1.0, spec.missing[1]]]))
        for given in ({"near": -1.0}, {"near": "-1", "far": ""}, [[-1.0, None]], np.float32([[-1.0, np.nan]])):
            assert np.array_equal(runtime.predict(given), wanted)
    small = pocketzoo.compress(
        bundle.path, tmp_path / "small", data=gaps, steps=[Int8Config()], keep_slower=True, accept=True, samples=32
    )
    assert small.manifest.input == spec
    with refused(RecipeError, "reads image input", hint="leave out"):
        pocketzoo.fit("tinynet", tmp_path / "no", data="digits", training={"missing": "mean"})


def test_columns_that_no_model_asked_for_are_not_read(gaps, tmp_path, refused):
    """Names and dates may stand in the table, and the label may be called as one of ours."""
    whole = gaps.parent / "whole.csv"
    rows = [row.split(",") for row in gaps.read_text().splitlines()]
    whole.write_text("\n".join(",".join(row) for row in rows if "" not in row and "NA" not in row))
    bundle = pocketzoo.fit("mlp", tmp_path / "m", data=whole, training={"epochs": 2})
    more = tmp_path / "more.csv"
    lines = whole.read_text().splitlines()
    more.write_text("\n".join(["name,near,text,far,label", *(
        f"n{i},{a},words,{b},{label}" for i, (a, b, label) in enumerate(line.split(",") for line in lines[1:])
    )]))  # fmt: skip
    assert pocketzoo.eval(bundle.path, data=more)["accuracy"] == pocketzoo.eval(bundle.path, data=whole)["accuracy"]
    more.write_text("nearly,far,label\n1,2,up\n")
    with refused(DataError, "more.csv has no column 'near'", hint="did you mean 'nearly'?; the model reads near, far"):
        pocketzoo.eval(bundle.path, data=more)
    more.write_text("near,far,near,label\n1,2,3,up\n")
    with refused(DataError, "two columns called 'near'"):
        pocketzoo.eval(bundle.path, data=more)
