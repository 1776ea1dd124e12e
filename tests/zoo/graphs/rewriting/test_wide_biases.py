"""Biases in float16 that onnxruntime's rewriting must not misread."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.deploy.half_precision_export import half
from pocketzoo.plugins.targets import pocketzoo_targets
from pocketzoo.zoo.backends.onnxruntime.session import open_session
from pocketzoo.zoo.graphs.rewriting.half_precision import modern

RTX = next(t for t in pocketzoo_targets() if t.name == "tensorrt-rtx")
N = helper.make_node
RANDOM = np.random.default_rng(0)


def quantized(op, steps):
    """A layer between Q/DQ nodes, whose largest bias has so many of its steps."""
    shape = (4, 3, 3, 3) if op == "Conv" else (3, 4, 3, 3) if op == "ConvTranspose" else (3, 4)
    axis = 0 if op == "Conv" else 1
    scale, weight_scale = np.float32(2**-6), np.full(4, 2**-9, np.float32)
    bias = np.array([0.5, -0.25, 1, steps * 2**-15], np.float32)
    constants = {
        "scale": scale, "zero": np.int8(0), "weight": RANDOM.integers(-127, 127, shape).astype(np.int8),
        "weight_scale": weight_scale, "zeros": np.zeros(4, np.int8), "bias": bias, "out_scale": np.float32(2**-4),
    }  # fmt: skip
    nodes = [
        N("QuantizeLinear", ["x", "scale", "zero"], ["q"]), N("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        N("DequantizeLinear", ["weight", "weight_scale", "zeros"], ["w"], axis=axis), N(op, ["d", "w", "bias"], ["a"]),
        N("QuantizeLinear", ["a", "out_scale", "zero"], ["b"]),
        N("DequantizeLinear", ["b", "out_scale", "zero"], ["y"]),
    ]  # fmt: skip
    dims = [2, 3] if op == "Gemm" else [2, 3, 6, 6]
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    made = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], stored,
    )  # fmt: skip
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model)


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "Gemm"])
@pytest.mark.parametrize("steps", [1e3, 3e4, 4e4, 6e4, 7e4, 2e5, -2e5])
def test_a_layer_with_a_bias_in_float16_is_read_alike_with_and_without_rewriting(op, steps):
    model = modern(quantized(op, steps), "fp16", RTX)
    shown = [{"x": RANDOM.normal(size=(2, 3) if op == "Gemm" else (2, 3, 6, 6)).astype(np.float32)}]
    plan, made = half(model, RTX, "fp16", shown)
    assert plan.computing == ("a",)
    onnx.checker.check_model(made, full_check=True)
    assert [node.op_type for node in made.graph.node].count("Add") == (abs(steps) > 2**15)
    answers = [open_session(made, optimization=each).run(None, dict(shown[0]))[0] for each in ("none", "all")]
    exact = open_session(model, optimization="none").run(None, dict(shown[0]))[0]
    np.testing.assert_allclose(answers[1], answers[0], atol=2**-4)  # a step of what comes out
    np.testing.assert_allclose(answers[0], exact, atol=2**-4)
