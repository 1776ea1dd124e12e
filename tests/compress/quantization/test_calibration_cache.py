"""TensorRT's calibration caches: read, and planned with."""

from __future__ import annotations

import struct

import numpy as np
import onnx
import pytest

from pocketzoo.compress.quantization import int8
from pocketzoo.compress.quantization.calibration_cache import plan_by_scales, read_cache
from pocketzoo.core.errors import DataError
from pocketzoo.plugins.targets import pocketzoo_targets

TARGETS = {t.name: t for t in pocketzoo_targets()}
HEADER = "TRT-8601-EntropyCalibration2\n"


def cache(path, text):
    path.write_text(text)
    return path


def test_scales_are_the_bits_of_floats(tmp_path):
    scales = {"images": 0.5, "a:0": 1 / 127, "(Unnamed Layer* 3) [Constant]_output": 2.0**-20}
    lines = "".join(f"{n}: {struct.pack('>f', s).hex()}\n" for n, s in scales.items())
    found = read_cache(cache(tmp_path / "c", HEADER + lines + "nothing: 0\nshort: 3f800000\n"))
    assert found == {n: pytest.approx(s, rel=1e-7) for n, s in scales.items()} | {"short": 1.0}
    assert read_cache(cache(tmp_path / "d", HEADER)) == {}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "is not a calibration cache"),
        ("images: 3c010a14\n", "is not a calibration cache"),
        (HEADER + "images 3c010a14\n", "line 2 is no scale"),
        (HEADER + "a: 3c010a14\nb: 3c010a14ff\n", "line 3 is no scale"),
        (HEADER + "images: 7f800000\n", "the scale of 'images' is inf"),
        (HEADER + "images: 7fc00000\n", "the scale of 'images' is nan"),
        (HEADER + "images: bf800000\n", "the scale of 'images' is -1.0"),
    ],
)
def test_what_is_no_cache_is_refused(text, what, tmp_path, refused):
    with refused(DataError, what):
        read_cache(cache(tmp_path / "c", text))


@pytest.mark.parametrize("target", ["tensorrt-rtx", "cpu"])
def test_the_scales_are_those_of_the_graph(target, graphs):
    model = graphs["plain"]
    calibrated = int8.plan(model, int8.Int8Config(ranges="minmax"), [samples(model)])
    scales = {name: r.magnitude / 127 for name, r in calibrated.ranges.items()}
    plan = plan_by_scales(model, scales)
    assert plan.layers == calibrated.layers
    made = int8.apply(model, plan, TARGETS[target])
    onnx.checker.check_model(made)
    if target == "tensorrt-rtx":
        stored = {t.name: onnx.numpy_helper.to_array(t) for t in made.graph.initializer}
        written = {n.input[0]: stored[n.input[1]] for n in made.graph.node if n.op_type == "QuantizeLinear"}
        assert written
        for name, scale in written.items():
            assert scale == pytest.approx(scales[name], rel=1e-6), name


def samples(model):
    shape = [d.dim_value or 8 for d in model.graph.input[0].type.tensor_type.shape.dim]
    return {model.graph.input[0].name: np.random.default_rng(0).normal(size=shape).astype(np.float32)}


def test_a_layer_without_a_scale_stays_in_float_by_name(graphs):
    model = graphs["plain"]
    calibrated = int8.plan(model, int8.Int8Config(ranges="minmax"), [samples(model)])
    first = model.graph.input[0].name
    scales = {name: r.magnitude / 127 for name, r in calibrated.ranges.items() if name != first}
    plan = plan_by_scales(model, scales)
    gone = set(calibrated.layers) - set(plan.layers)
    assert len(gone) == 1
    assert plan.left[gone.pop()] == f"the calibration cache has no scale for its input {first}"
