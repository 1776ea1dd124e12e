"""Layers with nothing but a weight and a bias: which are written anew, how, and that the answers stay."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from pocketzoo.zoo.graphs.operands import plain_operands

FLOAT = TensorProto.FLOAT
W = np.array([[1, 2, 3], [4, 5, 6]], np.float32)  # 2 inputs, 3 outputs
X = np.array([[1, -1], [2, 3]], np.float32)
K = np.arange(1, 7, dtype=np.float32).reshape(3, 2, 1, 1)
IMAGE = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)


def graph(*nodes, shape=("batch", 2), **constants) -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes, "g", [info("x", FLOAT, shape)], [info("y", FLOAT, [None] * len(shape))],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()],
    )  # fmt: skip
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def gemm(*third: str, **attributes) -> onnx.NodeProto:
    return helper.make_node("Gemm", ["x", "fc.weight", *third], ["y"], **attributes)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model)
    return ReferenceEvaluator(model).run(None, {"x": x})[0]


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


ROW, CELL = np.array([1, 2, 3], np.float32), np.array([7], np.float32)
GEMMS = {
    "no bias": ((), {}, {}, None),
    "an omitted bias": (("",), {}, {}, None),
    "a bias": (("c",), {}, {"c": ROW}, None),
    "a scaled product": (("c",), {"alpha": 2.0}, {"c": ROW}, ["Gemm"]),
    "a scaled product alone": ((), {"alpha": 0.5}, {}, ["Gemm"]),
    "a scaled bias": (("c",), {"beta": 3.0}, {"c": ROW}, ["Gemm"]),
    "one number": (("c",), {}, {"c": CELL}, ["Gemm"]),
    "a number without axes": (("c",), {"beta": 0.5}, {"c": np.float32(4)}, ["Gemm"]),
    "a row of two axes": (("c",), {}, {"c": ROW[None]}, ["Gemm"]),
    "a column": (("c",), {"beta": 2.0}, {"c": np.array([[1], [5]], np.float32)}, ["Gemm", "Add"]),
    "a matrix": (("c",), {}, {"c": np.arange(6, dtype=np.float32).reshape(2, 3)}, ["Gemm", "Add"]),
}


@pytest.mark.parametrize("case", GEMMS)
def test_a_third_operand_of_a_gemm_becomes_a_bias_or_is_added(case):
    third, attributes, constants, wanted = GEMMS[case]
    model = graph(gemm(*third, **attributes), **{"fc.weight": W}, **constants)
    before = model.SerializeToString()
    plain = plain_operands(model, ["fc"])
    assert model.SerializeToString() == before
    if wanted is None:
        assert plain is model
        return
    assert ops(plain) == wanted
    layer = plain.graph.node[0]
    assert not {a.name for a in layer.attribute} & {"alpha", "beta"}
    assert len(layer.input) == 2 + (wanted == ["Gemm"] and bool(third))
    if len(layer.input) > 2:
        assert {t.name: list(t.dims) for t in plain.graph.initializer}[layer.input[2]] == [3]
    np.testing.assert_array_equal(run(plain, X), run(model, X))
    assert plain_operands(plain, ["fc"]) is plain


@pytest.mark.parametrize("beta", [1.0, 2.0])
@pytest.mark.parametrize("transposed", [0, 1])
def test_what_is_computed_is_added_after_the_layer(beta, transposed):
    nodes = (
        helper.make_node("MatMul", ["x", "v"], ["h"]),
        gemm("h", beta=beta, transB=transposed),
    )
    model = graph(*nodes, **{"fc.weight": W.T.copy() if transposed else W, "v": W[:, ::-1].copy()})
    plain = plain_operands(model, {"fc"})
    assert ops(plain) == ["MatMul", "Gemm", *(["Mul"] if beta != 1.0 else []), "Add"]
    assert [a.name for a in plain.graph.node[1].attribute] == ["transB"]
    assert list(plain.graph.node[-1].output) == ["y"]
    assert list(plain.graph.node[1].output) == ["y_product"]
    np.testing.assert_array_equal(run(plain, X), run(model, X))


@pytest.mark.parametrize("rank", [1, 2])
def test_what_is_computed_for_a_convolution_is_a_number_for_each_channel(rank):
    kernel, image = K.reshape(3, 2, *[1] * rank), IMAGE.reshape(1, 2, -1) if rank == 1 else IMAGE
    nodes = (
        helper.make_node("Neg", ["c"], ["h"]),
        helper.make_node("Conv", ["x", "conv.weight", "h"], ["y"]),
    )
    model = graph(*nodes, shape=("batch", *image.shape[1:]), **{"conv.weight": kernel, "c": ROW})
    plain = plain_operands(model, ["conv"])
    assert ops(plain) == ["Neg", "Conv", "Reshape", "Add"]
    shape = next(t for t in plain.graph.initializer if t.name == plain.graph.node[2].input[1])
    assert numpy_helper.to_array(shape).tolist() == [1, -1, *[1] * rank]
    np.testing.assert_array_equal(run(plain, image), run(model, image))


def test_only_layers_that_are_named_are_written_anew():
    nodes = (
        helper.make_node("Gemm", ["x", "a.weight"], ["h"], alpha=2.0),
        helper.make_node("Gemm", ["h", "b.weight"], ["i"], alpha=3.0),
        helper.make_node("MatMul", ["i", "c.weight"], ["y"]),
    )
    square = np.array([[1, 2], [3, 4]], np.float32)
    model = graph(*nodes, **{"a.weight": square, "b.weight": square, "c.weight": square})
    plain = plain_operands(model, ["b", "c"])
    assert [[a.name for a in n.attribute] for n in plain.graph.node] == [["alpha"], [], []]
    weights = {t.name: numpy_helper.to_array(t).tolist() for t in plain.graph.initializer}
    assert weights == {
        "a.weight": square.tolist(), "b.weight": (3 * square).tolist(), "c.weight": square.tolist(),
    }  # fmt: skip
    np.testing.assert_array_equal(run(plain, X), run(model, X))
    for names in ([], ["c"], ["x"]):
        assert plain_operands(model, names) is model


def test_names_that_are_taken_stay_and_new_ones_are_the_same_each_time():
    taken = ["y_bias", "y_addend", "y_beta", "y_product"]
    ends = [helper.make_node("Neg", ["x" if i == 0 else taken[i - 1]], [name]) for i, name in enumerate(taken)]
    model = graph(
        *ends, helper.make_node("MatMul", ["y_product", "v"], ["h"]), gemm("h", beta=2.0),
        **{"fc.weight": W, "v": W},
    )  # fmt: skip
    one, two = plain_operands(model, ["fc"]), plain_operands(model, ["fc"])
    assert one == two
    assert len({name for n in one.graph.node for name in n.output}) == len(one.graph.node)
    np.testing.assert_array_equal(run(one, X), run(model, X))
