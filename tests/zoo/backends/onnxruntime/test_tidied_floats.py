"""Graphs of other floats than float32, opened: what they compute in, and what of them is folded."""

from __future__ import annotations

from collections import Counter

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from told import Told

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.pipeline.compress_model import compress, encode
from pocketzoo.measure.measure_graphs import candidates
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.catalog.registry import default_registry
from pocketzoo.zoo.models.import_onnx import open_graph
from pocketzoo.zoo.models.resolver import Resolver

TYPES = {
    "float16": (np.float16, TensorProto.FLOAT16),
    "bfloat16": (ml_dtypes.bfloat16, TensorProto.BFLOAT16),
    "float64": (np.float64, TensorProto.DOUBLE),
}


def write(folder, kind: str, *, ends: bool = False):
    """Convolution, normalization and product; a weight that is computed of constants, and an If that one decides."""
    dtype, code = TYPES[kind]
    outside = code if ends else TensorProto.FLOAT
    rng = np.random.default_rng(0)
    stored = {
        "w": rng.normal(0, 0.3, (8, 3, 3, 3)), "scale": rng.uniform(0.5, 1.5, 8), "shift": rng.normal(size=8),
        "mean": rng.normal(size=8), "variance": rng.uniform(0.5, 2, 8), "half_of_it": rng.normal(0, 0.3, (8, 5)),
        "two": np.array(2.0),
    }  # fmt: skip
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(op, ["f"], [name])], name, [], [helper.make_tensor_value_info(name, code, None)]
        )
        for name, op in (("then", "Relu"), ("else", "Neg"))
    }
    nodes = [
        helper.make_node("Cast", ["x"], ["inside"], to=code),
        helper.make_node("Conv", ["inside", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", "scale", "shift", "mean", "variance"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["d"]),
        helper.make_node("Flatten", ["d"], ["f"]),
        helper.make_node("Greater", ["two", "two"], ["never"]),
        helper.make_node("If", ["never"], ["g"], **branches),
        helper.make_node("Mul", ["half_of_it", "two"], ["fc"]),
        helper.make_node("MatMul", ["g", "fc"], ["h"]),
        helper.make_node("Cast", ["h"], ["y"], to=outside),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", outside, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", outside, ["n", 5])],
        [numpy_helper.from_array(np.asarray(value).astype(dtype), name) for name, value in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    path = folder / "theirs.onnx"
    onnx.save(model, path)
    np.savez(folder / "d.npz", x=rng.normal(size=(96, 3, 8, 8)).astype(np.float32))
    return path


def test_a_graph_of_float16_is_opened_as_one(tmp_path):
    bundle = open_graph(write(tmp_path, "float16"))
    graph = onnx.load(bundle.graph("")).graph
    ops = Counter(node.op_type for node in graph.node)
    assert ops == {"Cast": 2, "Conv": 1, "BatchNormalization": 1, "Relu": 1, "GlobalAveragePool": 1, "Flatten": 1,
                   "Neg": 1, "MatMul": 1, "Identity": 1}  # fmt: skip
    assert {tensor.data_type for tensor in graph.initializer} == {TensorProto.FLOAT16}
    assert bundle.float_precision == "float16"
    assert {cost.precision for cost in bundle.manifest.layers["float"]} == {"float16"}
    assert [row.precision for row in candidates(bundle)] == ["float16"]


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("kind", ["bfloat16", "float64"])
def test_what_onnxruntime_has_no_kernels_for_is_opened_in_float32_and_said(kind, ends, tmp_path):
    told = Told()
    bundle = open_graph(write(tmp_path, kind, ends=ends), progress=told)
    assert f"theirs.onnx computes in {kind}, which onnxruntime does not: opened in float32" in told.said
    assert bundle.float_precision == "float32"
    assert {tensor.dtype for tensor in bundle.manifest.signature.inputs} == {"float32"}


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("kind", TYPES)
def test_int8_quantizes_its_layers(kind, ends, tmp_path):
    path = write(tmp_path, kind, ends=ends)
    made = compress(
        path, tmp_path / "made", data=tmp_path / "d.npz", steps=[Int8Config()], keep_slower=True, targets=["cpu"]
    )
    (step,) = made.manifest.steps
    assert set(step.plan["layers"]) == {"w", "fc"}
    x = np.load(tmp_path / "d.npz")["x"][:32]
    dtype = made.manifest.signature.inputs[0].dtype
    with OnnxRunner(made.graph("")) as floats, OnnxRunner(made.graph("cpu")) as integers:
        expected, y = (next(iter(r.infer({"x": x.astype(dtype)}).values())) for r in (floats, integers))
    assert y.dtype == expected.dtype
    noise = np.asarray(y, np.float64) - expected
    assert 10 * np.log10(np.square(expected, dtype=np.float64).mean() / np.square(noise).mean()) > 30
    again = encode(made, default_registry().get("target", "cpu"), Resolver.of(None).compressors(made))
    assert again == onnx.load(made.graph("cpu"))
