from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from pocketzoo.compress.quantization import layer_inputs
from pocketzoo.compress.quantization.layer_inputs import ColumnMoments, Im2col, as_matrix, from_matrix, im2col_of

CASES = {
    "plain": {},
    "grouped": {"groups": 2},
    "depthwise": {"groups": 4},
    "strided": {"strides": [2, 2], "pads": [0, 1, 2, 0]},
    "dilated": {"dilations": [2, 1], "pads": [2, 1, 2, 1]},
    "same upper": {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    "same lower": {"auto_pad": "SAME_LOWER", "k": 2},
    "pointwise": {"k": 1},
}


def run(model, x):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def layer(model):
    node = model.graph.node[-1]
    known = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    return node, known[node.input[1]]


@pytest.mark.parametrize("case", CASES)
def test_the_matrix_times_the_columns_is_what_the_convolution_gives(case, graph_builder):
    """64 output positions at the most: none is left out, and they come in order."""
    attributes = dict(CASES[case])
    if "auto_pad" in attributes:
        attributes["pads"] = [0] * 4  # which the builder would else set, and auto_pad rules out
    g = graph_builder((4, 7, 8))
    model = g.model(g.conv("x", "c", 6 if case != "depthwise" else 8, bias=False, **attributes), 4)
    for node in model.graph.node:
        if "auto_pad" in attributes:
            kept = [a for a in node.attribute if a.name != "pads"]
            del node.attribute[:]
            node.attribute.extend(kept)
    x = np.random.default_rng(0).normal(size=(1, 4, 7, 8)).astype(np.float32)
    node, weight = layer(model)
    read = im2col_of(node, weight)
    given = as_matrix(weight, node, read.groups) @ read.columns(x)
    wanted = run(model, x)
    np.testing.assert_allclose(given.reshape(wanted.shape), wanted, atol=1e-5)


@pytest.mark.parametrize("transposed", [True, False])
def test_the_matrix_times_the_columns_is_what_a_gemm_gives(transposed, graph_builder):
    g = graph_builder((12,))
    model = g.model(g.gemm("x", "fc", 12, 5, bias=False, transposed=transposed))
    node, weight = layer(model)
    read, x = im2col_of(node, weight), np.random.default_rng(0).normal(size=(1, 12)).astype(np.float32)
    given = as_matrix(weight, node, 1) @ read.columns(x)
    np.testing.assert_allclose(given[0].T, run(model, x), atol=1e-5)
    np.testing.assert_array_equal(from_matrix(as_matrix(weight, node, 1), weight, node), weight)


def test_a_matmul_reads_the_last_axis_of_sequences(graph_builder):
    g = graph_builder((9, 12))
    model = g.model(g.matmul("x", "fc", 12, 5), 3)
    node, weight = layer(model)
    read, x = im2col_of(node, weight), np.random.default_rng(0).normal(size=(1, 9, 12)).astype(np.float32)
    given = as_matrix(weight, node, 1) @ read.columns(x)
    np.testing.assert_allclose(given[0].T[None], run(model, x), atol=1e-5)


def test_a_large_image_is_read_at_all_of_its_columns_and_in_turn():
    read = Im2col("x", (1, 1), (1, 1), (1, 1), (0, 0, 0, 0))
    x = np.arange(64 * 64, dtype=np.float32).reshape(1, 1, 64, 64)
    first, second = (read.columns(x, turn).ravel().astype(int) for turn in (0, 1))
    assert len(first) <= 64
    assert len(set(first % 64)) > 50
    assert not set(first) & set(second)
    np.testing.assert_array_equal(first, read.columns(x, 0).ravel())


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("count", [1, 7, 64, 300])
def test_moments_streamed_are_moments_at_once(count, groups):
    r = np.random.default_rng(0)
    columns = (r.normal(size=(groups, 300, 900)) + 1.0).astype(np.float32)
    moments = ColumnMoments.empty(groups, 300)
    for start in range(0, 900, count):
        moments.add(columns[:, :, start : start + count])
    moments.flush()
    wide = columns.astype(np.float64)
    assert moments.count == 900
    np.testing.assert_allclose(moments.second, wide @ wide.transpose(0, 2, 1) / 900, atol=2e-5)
    np.testing.assert_allclose(moments.first, wide.mean(2), atol=1e-6)
    centered = wide - wide.mean(2, keepdims=True)
    np.testing.assert_allclose(moments.covariance, centered @ centered.transpose(0, 2, 1) / 900, atol=5e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_wide_columns_keep_second_moments_within_parts(groups, monkeypatch):
    columns = np.random.default_rng(0).normal(1, 1, (groups, 12, 50)).astype(np.float32)
    whole = ColumnMoments.empty(groups, 12)
    monkeypatch.setattr(layer_inputs, "WIDEST", 5)
    parted = ColumnMoments.empty(groups, 12)
    for moments in (whole, parted):
        for start in range(0, 50, 10):
            moments.add(columns[:, :, start : start + 10])
        moments.flush()
    assert parted.second.shape == (3 * groups, 4, 4)
    np.testing.assert_allclose(parted.first, whole.first, rtol=1e-6)
    for name in ("second", "covariance"):
        blocks = [getattr(whole, name)[g, i : i + 4, i : i + 4] for g in range(groups) for i in (0, 4, 8)]
        np.testing.assert_allclose(getattr(parted, name), blocks, atol=1e-5)


@pytest.mark.parametrize(
    ("attributes", "transposed"), [({}, False), ({"transA": 0, "transB": 1}, False), ({"transA": 1}, True)]
)
def test_a_gemm_may_read_its_input_transposed(attributes, transposed):
    node = helper.make_node("Gemm", ["x", "w"], ["y"], **attributes)
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    read = im2col_of(node, np.zeros((3 if transposed else 4, 2), np.float32))
    assert read == Im2col("x", transposed=transposed)
    assert read.groups == 1
    np.testing.assert_array_equal(read.columns(x)[0], x if transposed else x.T)


def test_what_a_convolution_leaves_out_is_one_and_none():
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    assert im2col_of(node, np.zeros((4, 3, 5, 2), np.float32)) == Im2col(
        "x", kernel=(5, 2), strides=(1, 1), dilations=(1, 1), pads=(0, 0, 0, 0), auto_pad="NOTSET", groups=1
    )
    given = helper.make_node(
        "Conv", ["x", "w"], ["y"], strides=[2, 3], dilations=[4, 5], pads=[1, 2, 3, 4], group=2, auto_pad="NOTSET"
    )
    assert im2col_of(given, np.zeros((4, 3, 5, 2), np.float32)) == Im2col(
        "x", kernel=(5, 2), strides=(2, 3), dilations=(4, 5), pads=(1, 2, 3, 4), auto_pad="NOTSET", groups=2
    )
