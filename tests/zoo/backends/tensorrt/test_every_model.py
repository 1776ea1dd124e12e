"""An engine of every bundled model in each precision: NVIDIA's parser takes it, and layers are what was asked for."""

from __future__ import annotations

from collections import Counter

import pytest

import pocketzoo
from pocketzoo.compress.configs import Int8Config
from pocketzoo.deploy.export import export
from pocketzoo.plugins.targets import pocketzoo_targets
from pocketzoo.zoo.backends.tensorrt.build_engine import layer_precisions, save_engine
from pocketzoo.zoo.bundles.bundle import read_bundle

pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed", exc_type=ImportError)
pytestmark = pytest.mark.engine
RTX = next(t for t in pocketzoo_targets() if t.name == "tensorrt-rtx")


@pytest.fixture(scope="module")
def perceptron(tmp_path_factory):
    """mlp on digits, and the same in int8."""
    folder = tmp_path_factory.mktemp("mlp")
    options = {"hidden": (64, 32)}
    pocketzoo.fit("mlp", folder / "f", data="digits", epochs=1, backbone_options=options)
    pocketzoo.compress(
        folder / "f", folder / "q", data="digits", steps=[Int8Config()], targets=["tensorrt-rtx"], samples=16,
        keep_slower=True,
    )  # fmt: skip
    return read_bundle(folder / "f"), read_bundle(folder / "q")


@pytest.fixture(params=["tinynet", "mlp"])
def model(request):
    """A float bundle, and its int8 one."""
    if request.param == "mlp":
        return request.getfixturevalue("perceptron")
    return request.getfixturevalue("fitted"), request.getfixturevalue("compressed")


@pytest.mark.parametrize(
    ("precision", "types"),
    [
        ("fp32", {"FLOAT"}),
        ("fp16", {"HALF"}),
        ("bf16", {"BF16"}),
        ("int8", {"INT8", "FLOAT"}),
        ("int8-fp16", {"INT8", "HALF"}),
    ],
)
def test_an_engine_is_built_and_its_layers_are_what_was_asked_for(model, precision, types, tmp_path):
    fitted, small = model
    bundle = small if "int8" in precision else fitted
    half = precision.removeprefix("int8").removeprefix("-") or "fp32"
    graph = export(bundle.path, to="onnx", target="tensorrt-rtx", precision=half, out=tmp_path / "m.onnx")
    found = Counter(layer_precisions(graph, RTX).values())
    assert types <= set(found)
    if half != "fp32":  # but for casts, and constants that are folded
        assert found["FLOAT"] < found["HALF"] + found["BF16"] + found["INT8"]
    save_engine(graph, tmp_path / "m.engine", RTX)
    assert (tmp_path / "m.engine").stat().st_size > 10_000
