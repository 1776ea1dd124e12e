"""Graphs of older opsets, raised: they give what they gave, at any depth."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.zoo.backends.onnxruntime.session import open_session
from pocketzoo.zoo.graphs.foreign.raised_opset import raised
from pocketzoo.zoo.graphs.index import opset_of

SIZE = (2, 5, 6)


def node(op: str, *inputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), ["y"], **attributes)


# opset, a node that reads x of (n, 2, 5, 6) and the constants beside it
OLD = [
    (7, node("Pad", "x", mode="reflect", pads=[0, 0, 1, 2, 0, 0, 1, 0], value=0.0), {}),
    (9, node("Pad", "x", mode="edge", pads=[0, 0, 1, 2, 0, 0, 1, 0], value=3.0), {}),
    (7, node("Pad", "x", mode="constant", pads=[0, 0, 1, -2, 0, 0, -1, 0], value=2.5), {}),
    (7, node("Upsample", "x", mode="linear", scales=[1.0, 1.0, 2.0, 3.0]), {}),
    (8, node("Upsample", "x", mode="nearest", scales=[1.0, 1.0, 2.0, 1.0]), {}),
    (9, node("Upsample", "x", "s", mode="linear"), {"s": np.array([1, 1, 2, 2], np.float32)}),
    (10, node("Resize", "x", "s", mode="linear"), {"s": np.array([1, 1, 2, 1.5], np.float32)}),
    (10, node("Resize", "x", "s", mode="nearest"), {"s": np.array([1, 1, 2, 2], np.float32)}),
    (10, node("Resize", "x", "s"), {"s": np.array([1, 1, 2, 1.5], np.float32)}),
    (7, node("Clip", "x", min=-0.5, max=0.25), {}),
    (10, node("Clip", "x", max=0.25), {}),
    (7, node("Softmax", "x", axis=1), {}),
    (12, node("LogSoftmax", "x", axis=2), {}),
    (7, node("Dropout", "x", ratio=0.3), {}),
    (9, node("Slice", "x", starts=[1, -3], ends=[9, -1], axes=[3, 2]), {}),
    (12, node("ReduceSum", "x", axes=[-1], keepdims=1), {}),
    (7, node("ReduceMean", "x", axes=[1, 3], keepdims=0), {}),
    (12, node("Unsqueeze", "x", axes=[1]), {}),
    (7, node("HardSigmoid", "x", alpha=0.3), {}),
    (7, node("PRelu", "x", "s"), {"s": np.array([[[0.1]], [[0.2]]], np.float32)}),
    (
        7,
        node("BatchNormalization", "x", "s", "b", "m", "v"),
        {k: np.array([0.5, 2.0], np.float32) for k in ("s", "b", "m", "v")},
    ),
]


def model(
    opset: int, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], kind: int = TensorProto.FLOAT
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, ["n", *SIZE])],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def runs_of(made: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return np.asarray(open_session(made, optimization="none").run(["y"], {"x": x})[0])


X = np.random.default_rng(0).normal(size=(3, *SIZE)).astype(np.float32)


@pytest.mark.parametrize(("opset", "one", "constants"), OLD, ids=lambda each: getattr(each, "op_type", None))
def test_a_raised_graph_gives_what_it_gave(opset, one, constants):
    made = model(opset, [one], constants)
    wanted = runs_of(made, X)
    newer = raised(made, 17)
    assert newer is not None
    assert opset_of(newer) == 17
    np.testing.assert_allclose(runs_of(newer, X), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("opset", "one", "constants"), OLD, ids=lambda each: getattr(each, "op_type", None))
def test_inside_of_branches_too(opset, one, constants):
    branches = []
    for name in ("then", "else"):
        inner = onnx.NodeProto()
        inner.CopyFrom(one)
        inner.output[0] = f"{name}_y"
        branches.append(helper.make_graph([inner], name, [], [helper.make_tensor_value_info(f"{name}_y", 1, None)]))
    condition = {"c": np.array(True)}
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])]
    made = model(opset, nodes, constants | condition)
    wanted = runs_of(made, X)
    newer = raised(made, 17)
    assert newer is not None
    np.testing.assert_allclose(runs_of(newer, X), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_limits_have_the_type_of_what_is_clipped(kind):
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    made = model(7, [node("Clip", "x", min=-0.5, max=0.25)], {}, kind)
    newer = raised(made, 17)
    assert newer is not None
    np.testing.assert_array_equal(runs_of(newer, X.astype(dtype)), np.clip(X.astype(dtype), -0.5, 0.25))


def test_what_the_converter_has_no_way_for_is_none():
    made = model(8, [node("Identity", "x")], {})
    made.graph.node[0].op_type = "NoSuchOperator"
    assert raised(made, 17) is None
