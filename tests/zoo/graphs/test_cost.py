"""Costs of layers against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.zoo.graphs.cost import LayerCost, layer_costs

F = TensorProto.FLOAT


def save(path: Path, nodes: list, arrays: dict[str, np.ndarray], shape: list, out: str = "y") -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", F, shape)],
        [helper.make_tensor_value_info(out, F, None)],
        [numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return path


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def conv(path: Path, weight: np.ndarray, shape: list, bias: bool = False, **attributes) -> LayerCost:
    arrays = {"conv.weight": weight} | ({"conv.bias": ones(len(weight))} if bias else {})
    node = helper.make_node("Conv", ["x", *arrays], ["y"], **attributes)
    (cost,) = layer_costs(save(path, [node], arrays, shape))
    return cost


@pytest.mark.parametrize(
    ("weight", "shape", "attributes", "macs"),
    [
        # output elements x weights of one output channel
        ((8, 3, 3, 3), ["batch", 3, 10, 10], {}, 8 * 8 * 8 * 27),
        ((8, 3, 3, 3), ["batch", 3, 10, 10], {"pads": [1, 1, 1, 1]}, 8 * 10 * 10 * 27),
        ((8, 3, 3, 3), ["batch", 3, 10, 10], {"pads": [1, 1, 1, 1], "strides": [2, 2]}, 8 * 5 * 5 * 27),
        ((8, 3, 3, 3), ["batch", 3, 11, 7], {"strides": [2, 3]}, 8 * 5 * 2 * 27),
        ((8, 3, 3, 3), ["batch", 3, 10, 10], {"dilations": [2, 2]}, 8 * 6 * 6 * 27),
        ((8, 1, 3, 3), ["batch", 8, 10, 10], {"group": 8}, 8 * 8 * 8 * 9),
        ((8, 2, 3, 3), ["batch", 4, 10, 10], {"group": 2}, 8 * 8 * 8 * 18),
        ((16, 8, 1, 1), ["batch", 8, 7, 7], {}, 16 * 49 * 8),
        ((4, 2, 5), ["batch", 2, 20], {}, 4 * 16 * 10),
        ((4, 2, 1, 7), ["batch", 2, 3, 20], {}, 4 * 3 * 14 * 14),
        ((8, 3, 3, 3), [5, 3, 10, 10], {}, 5 * 8 * 8 * 8 * 27),  # no axis counts samples: they are one
    ],
)
def test_convolutions(tmp_path, weight, shape, attributes, macs):
    cost = conv(tmp_path / "m.onnx", ones(*weight), shape, **attributes)
    assert cost == LayerCost(
        layer="conv",
        op="Conv",
        precision="float32",
        parameters=int(np.prod(weight)),
        nonzero=int(np.prod(weight)),
        bytes=int(np.prod(weight)) * 4,
        macs=macs,
    )


def test_a_bias_is_parameters_and_no_multiplications(tmp_path):
    without = conv(tmp_path / "a.onnx", ones(8, 3, 3, 3), ["batch", 3, 10, 10])
    with_bias = conv(tmp_path / "b.onnx", ones(8, 3, 3, 3), ["batch", 3, 10, 10], bias=True)
    assert with_bias.parameters == without.parameters + 8
    assert with_bias.bytes == without.bytes + 32
    assert with_bias.macs == without.macs


def test_zeros_are_counted(tmp_path):
    weight = ones(8, 3, 3, 3)
    weight[:3] = 0
    cost = conv(tmp_path / "m.onnx", weight, ["batch", 3, 10, 10], bias=True)
    assert (cost.parameters, cost.nonzero) == (216 + 8, 135 + 8)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", [False, True])
def test_gemm(tmp_path, transposed, bias):
    weight = ones(5, 7) if transposed else ones(7, 5)
    arrays = {"fc.weight": weight} | ({"fc.bias": ones(5)} if bias else {})
    node = helper.make_node("Gemm", ["x", *arrays], ["y"], transB=transposed)
    (cost,) = layer_costs(save(tmp_path / "m.onnx", [node], arrays, ["batch", 7]))
    assert (cost.layer, cost.op, cost.macs) == ("fc", "Gemm", 35)
    assert cost.parameters == cost.nonzero == 35 + 5 * bias
    assert cost.bytes == 4 * cost.parameters


@pytest.mark.parametrize(("shape", "rows"), [(["batch", 7], 1), (["batch", 9, 7], 9), (["batch", 3, 4, 7], 12)])
def test_matmul(tmp_path, shape, rows):
    node = helper.make_node("MatMul", ["x", "fc.weight"], ["y"])
    (cost,) = layer_costs(save(tmp_path / "m.onnx", [node], {"fc.weight": ones(7, 5)}, shape))
    assert (cost.op, cost.macs, cost.parameters) == ("MatMul", rows * 35, 35)


def test_a_weight_seen_through_transpose(tmp_path):
    nodes = [
        helper.make_node("Transpose", ["fc.weight"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    (cost,) = layer_costs(save(tmp_path / "m.onnx", nodes, {"fc.weight": ones(5, 7)}, ["batch", 7]))
    assert (cost.layer, cost.macs, cost.parameters) == ("fc", 35, 35)


def test_a_product_of_two_activations_has_no_weights(tmp_path):
    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]), helper.make_node("MatMul", ["x", "t"], ["y"])]
    (cost,) = layer_costs(save(tmp_path / "m.onnx", nodes, {}, ["batch", 4, 7]))
    assert cost == LayerCost("y", "MatMul", "float32", parameters=0, nonzero=0, bytes=0, macs=4 * 4 * 7)


@pytest.mark.parametrize("activation", [np.uint8, np.int8])
@pytest.mark.parametrize("int32_bias", [False, True])
def test_an_int8_convolution_costs_the_same_and_takes_a_quarter(tmp_path, activation, int32_bias):
    """As the pipeline writes it: everything passes through QuantizeLinear and DequantizeLinear."""
    weight, bias = np.ones((8, 3, 3, 3), np.int8), np.ones(8, np.int32 if int32_bias else np.float32)
    arrays = {
        "conv.weight_quantized": weight, "ws": ones(8), "wz": np.zeros(8, np.int8),
        "xs": np.float32(0.1).reshape(()), "xz": np.zeros((), activation),
        "conv.bias_quantized": bias, "bs": ones(8), "bz": np.zeros(8, np.int32),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        helper.make_node("DequantizeLinear", ["conv.weight_quantized", "ws", "wz"], ["wd"], axis=0),
        helper.make_node("DequantizeLinear", ["conv.bias_quantized", "bs", "bz"], ["bd"], axis=0),
        helper.make_node("Conv", ["xd", "wd", "bd" if int32_bias else "conv.bias_quantized"], ["y"], pads=[1, 1, 1, 1]),
    ]
    if not int32_bias:
        del nodes[3]
    (cost,) = layer_costs(save(tmp_path / "m.onnx", nodes, arrays, ["batch", 3, 10, 10]))
    assert cost == LayerCost(
        layer="conv", op="Conv", precision="int8", parameters=224, nonzero=224, bytes=216 + 32, macs=8 * 100 * 27
    )


def test_layers_come_in_the_order_of_the_graph(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "b.weight"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "a.weight"], ["y"]),
    ]
    arrays = {"a.weight": ones(2, 4, 1, 1), "b.weight": ones(4, 3, 1, 1)}
    costs = layer_costs(save(tmp_path / "m.onnx", nodes, arrays, ["batch", 3, 5, 5]))
    assert [(c.layer, c.macs) for c in costs] == [("b", 300), ("a", 200)]


def block(inputs: int, outputs: int, side: int, projected: bool) -> list[int]:
    pixels = side * side
    convs = [pixels * outputs * inputs * 9, pixels * outputs * outputs * 9]
    return [*convs, *([pixels * outputs * inputs] if projected else [])]


def test_tinynet_with_a_linear_head(fitted):
    costs = layer_costs(fitted.graph())
    wanted = [
        28 * 28 * 32 * 9,
        *block(32, 64, 14, True),
        *block(64, 64, 14, False),
        *block(64, 128, 7, True),
        4 * 128 * 10,
    ]
    assert sorted(c.macs for c in costs) == sorted(wanted)
    assert sum(c.macs for c in costs) == fitted.manifest.macs == sum(wanted)
    assert {c.precision for c in costs} == {"float32"}
    # In the graph batch norm is folded: a bias for each channel instead of weight and bias.
    biases = 32 + 3 * 64 + 2 * 64 + 3 * 128 + 10
    weights = 32 * 9 + 64 * 32 * 10 + 3 * 64 * 64 * 9 + 128 * 64 * 10 + 128 * 128 * 9 + 5120
    assert sum(c.parameters for c in costs) == weights + biases
    assert fitted.manifest.parameters == weights + 2 * (biases - 10) + 10


@pytest.mark.parametrize(("kind", "precision"), [(np.int8, "int8"), (np.uint8, "int8"), (np.float32, "float32")])
def test_integers_read_as_they_are(kind, precision, tmp_path):
    weight = np.array([[1, 0, 2], [0, 0, 3]], kind)
    op = "MatMul" if kind is np.float32 else "MatMulInteger"
    x = "x" if kind is np.float32 else "q"
    nodes = [helper.make_node(op, [x, "fc.weight"], ["y"])]
    if x == "q":
        nodes.insert(0, helper.make_node("Cast", ["x"], ["q"], to=TensorProto.UINT8))
    (cost,) = layer_costs(save(tmp_path / "m.onnx", nodes, {"fc.weight": weight}, ["batch", 2]))
    assert cost == LayerCost(
        layer="fc", op=op, precision=precision, parameters=6, nonzero=3, bytes=6 * weight.itemsize, macs=6
    )


def test_a_lookup_is_no_layer_and_does_not_end_the_list(tmp_path):
    nodes = [
        helper.make_node("Gather", ["table", "i"], ["rows"]),
        helper.make_node("MatMul", ["x", "x"], ["square"]),
        helper.make_node("Gemm", ["square", "fc.weight", "computed"], ["y"]),
    ]
    nodes.insert(0, helper.make_node("Neg", ["c"], ["computed"]))
    arrays = {"table": ones(9, 3), "i": np.zeros(2, np.int64), "fc.weight": ones(4, 5), "c": ones(5)}
    costs = layer_costs(save(tmp_path / "m.onnx", nodes, arrays, [4, 4]))
    assert [(c.layer, c.parameters, c.macs) for c in costs] == [("square", 0, 64), ("fc", 25, 80)]


def test_a_matrix_that_one_node_reads_twice_counts_once(tmp_path):
    node = helper.make_node("GRU", ["x", "w", "w"], ["", "y"], hidden_size=6)
    (cost,) = layer_costs(save(tmp_path / "g.onnx", [node], {"w": ones(1, 18, 6)}, [5, 1, 6]))
    assert (cost.parameters, cost.bytes, cost.macs) == (108, 432, 5 * 2 * 108)
