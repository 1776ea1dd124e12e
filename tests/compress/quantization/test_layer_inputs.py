from __future__ import annotations

import tracemalloc

import numpy as np
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from pocketzoo.compress.quantization import layer_inputs
from pocketzoo.compress.quantization.gptq import round_weight
from pocketzoo.compress.quantization.layer_inputs import (
    ColumnMoments,
    Im2col,
    SummedMoments,
    as_matrix,
    from_matrix,
    im2col_of,
)

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
    np.testing.assert_allclose(moments.covariance(), centered @ centered.transpose(0, 2, 1) / 900, atol=5e-5)


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
    for all_, own in ((whole.second, parted.second), (whole.covariance(), parted.covariance())):
        blocks = [all_[g, i : i + 4, i : i + 4] for g in range(groups) for i in (0, 4, 8)]
        np.testing.assert_allclose(own, blocks, atol=1e-5)


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


def test_how_much_is_kept_of_what_layers_read():
    found = layer_inputs.WIDEST, layer_inputs.LEAST, layer_inputs.MOST, layer_inputs.WAITING, layer_inputs.BLOCK
    assert found == (4608, 64, 384, 256, 256)


@pytest.mark.parametrize(
    ("count", "width", "size", "turn", "start", "step"),
    [
        (64, 1, 1, 0, 0, 1),
        (65, 1, 1, 0, 0, 2),
        (128, 1, 64, 1, 1, 2),
        (129, 1, 64, 4, 1, 3),
        (129, 1, 65, 0, 0, 2),
        (400, 1, 100, 6, 2, 4),
        (768, 1, 384, 0, 0, 2),
        (769, 1, 384, 0, 0, 3),
        (769, 1, 9999, 2, 2, 3),
        (256, 16, 1, 0, 0, 5),  # 4 and 16 have a factor in common
        (384, 18, 1, 0, 0, 7),  # so have 6 and 18
        (60, 6, 1, 3, 0, 1),
        (128, 3, 1, 0, 0, 2),
        (128, 2, 1, 0, 0, 3),
    ],
)
def test_which_positions_are_taken(count, width, size, turn, start, step):
    assert layer_inputs._spread(count, width, size, turn).tolist() == list(range(start, count, step))


@pytest.mark.parametrize(
    ("size", "shape"),
    [(1, (1, 1, 1)), (4608, (1, 4608, 4608)), (4610, (2, 2305, 2305)), (4611, (3, 1537, 1537)), (4621, (4621, 1, 1))],
)
def test_columns_are_parted_into_the_fewest_parts_of_one_size(size, shape):
    """4621 is a prime."""
    empty = ColumnMoments.empty(1, size)
    assert empty.second.shape == shape
    assert empty.first.shape == (1, size)
    assert (empty.count, empty.held, empty.waiting) == (0, 0, None)
    assert (empty.second.dtype, empty.first.dtype) == (np.float32, np.float64)


def test_columns_wait_until_many_are_multiplied(monkeypatch):
    monkeypatch.setattr(layer_inputs, "WAITING", 10)
    moments, given = ColumnMoments.empty(1, 3), np.random.default_rng(0).normal(size=(1, 3, 40)).astype(np.float32)
    states, start = [], 0
    for count in (4, 6, 1, 9, 10, 1, 9):
        moments.add(given[:, :, start : start + count])
        start += count
        states.append((moments.count, moments.held))
    # 4 and 6 fill it; what no longer fits is multiplied first; ten at once do not wait.
    assert states == [(0, 4), (0, 10), (10, 1), (10, 10), (20, 10), (30, 1), (30, 10)]
    moments.flush()
    assert (moments.count, moments.held) == (40, 0)
    np.testing.assert_allclose(moments.second[0], given[0] @ given[0].T / 40, atol=1e-5)
    moments.flush()
    assert moments.count == 40


def test_columns_of_groups_do_not_wait():
    moments = ColumnMoments.empty(2, 3)
    moments.add(np.ones((2, 3, 5), np.float32))
    assert (moments.count, moments.held) == (5, 0)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "least", "most"),
    [
        (7, 3, 1, 1, 1, 1),
        (7, 2, 1, 1, 0, 1),
        (7, 3, 2, 1, 1, 1),
        (8, 3, 2, 1, 0, 1),
        (7, 3, 1, 2, 2, 2),
        (7, 1, 3, 1, 0, 0),
        (5, 4, 1, 1, 1, 2),
    ],
)
def test_padding_to_the_same_size_is_split_with_the_rest_on_one_side(
    auto_pad, size, kernel, stride, dilation, least, most
):
    read = Im2col("x", (kernel, 1), (stride, 1), (dilation, 1), (0,) * 4, auto_pad)
    x = np.arange(1, size + 1, dtype=np.float32).reshape(1, size, 1)
    before, after = (least, most) if auto_pad == "SAME_UPPER" else (most, least)
    assert read._padded(x).ravel().tolist() == [0.0] * before + x.ravel().tolist() + [0.0] * after


def test_padding_by_hand_is_of_each_side():
    read = Im2col("x", (1, 1), (1, 1), (1, 1), (1, 0, 2, 3))
    padded = read._padded(np.ones((2, 2, 2), np.float32))
    assert padded.shape == (2, 5, 5)
    wanted = np.zeros((2, 5, 5))
    wanted[:, 1:3, :2] = 1
    np.testing.assert_array_equal(padded, wanted)
    assert padded.dtype == np.float32
    plain = np.ones((2, 2, 2), np.float32)
    assert Im2col("x", (1, 1), (1, 1), (1, 1), (0,) * 4)._padded(plain) is plain


@pytest.mark.parametrize("groups", [1, 2])
def test_matrices_come_back_as_the_weight_they_were(groups):
    conv = helper.make_node("Conv", ["x", "w"], ["y"], group=groups)
    weight = np.arange(6 * 2 * 3 * 2, dtype=np.float32).reshape(6, 2, 3, 2)
    matrix = as_matrix(weight, conv, groups)
    assert matrix.shape == (groups, 6 // groups, 12)
    np.testing.assert_array_equal(matrix.reshape(6, 12), weight.reshape(6, 12))
    np.testing.assert_array_equal(from_matrix(matrix, weight, conv), weight)
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    matrix = as_matrix(rows, product, 1)
    np.testing.assert_array_equal(matrix[0], rows.T)
    back = from_matrix(matrix, rows, product)
    np.testing.assert_array_equal(back, rows)
    assert back.flags.c_contiguous


def test_what_an_input_is_read_as_when_nothing_is_said():
    read = Im2col("x")
    assert (read.kernel, read.strides, read.dilations, read.pads) == ((), (), (), ())
    assert (read.auto_pad, read.groups, read.transposed) == ("NOTSET", 1, False)


def test_more_rows_of_a_sequence_are_taken_where_they_are_wide():
    """300 rows of 128 numbers: every third; of 8 numbers every fifth."""
    for width, step in ((128, 3), (8, 5)):
        x = np.random.default_rng(0).normal(size=(1, 300, width)).astype(np.float32)
        for turn in (0, 1, step):
            found = Im2col("x").columns(x, turn)
            np.testing.assert_array_equal(found, x[:, turn % step :: step].transpose(0, 2, 1))
            assert found.flags.c_contiguous


def test_more_positions_of_an_image_are_taken_where_columns_are_long():
    """20 x 20 positions of 3 x 2 values of 20 channels: every fourth, and 20 has a factor of it, so every seventh."""
    read = Im2col("x", (3, 2), (1, 1), (1, 1), (0, 0, 0, 0))
    x = np.random.default_rng(0).normal(size=(1, 20, 22, 21)).astype(np.float32)
    taken = [divmod(i, 20) for i in range(1, 400, 7)]
    wanted = np.stack([x[0, :, r : r + 3, c : c + 2].reshape(-1) for r, c in taken], 1)[None]
    np.testing.assert_array_equal(read.columns(x, 1), wanted)
    grouped = Im2col("x", (3, 2), (1, 1), (1, 1), (0, 0, 0, 0), groups=20)
    assert grouped.columns(x).shape == (20, 6, 58)


def _moments(size: int, parts: int, seed: int) -> ColumnMoments:
    rng = np.random.default_rng(seed)
    second = rng.normal(size=(parts, size // parts, size // parts)).astype(np.float32)
    return ColumnMoments(second, rng.normal(size=(1, size)), count=9)


def test_sums_of_second_moments_are_made_block_by_block():
    one, other = _moments(12, 3, 0), _moments(12, 3, 1)
    summed = SummedMoments(((one, True), (other, False), (other, True)))
    whole = one.covariance() + other.second + other.covariance()
    assert len(summed) == 3
    np.testing.assert_array_equal(summed[:], whole)
    for i in range(3):
        np.testing.assert_array_equal(summed[i : i + 1], whole[i : i + 1])


def test_moments_of_many_blocks_are_never_copied_whole():
    """Of what a flattened map gives there are gigabytes: one block is worked on at a time."""
    size, parts = 2048, 16
    moments = _moments(size, parts, 0)
    moments.second[:] = moments.second @ moments.second.mT
    weight = np.random.default_rng(2).normal(size=(1, 4, size)).astype(np.float32)
    hessian = SummedMoments(((moments, True),))
    tracemalloc.start()
    try:
        levels, _ = round_weight(weight, hessian)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < moments.second.nbytes  # 16 blocks; some copies of one of them, in double precision
    np.testing.assert_array_equal(levels, round_weight(weight, moments.covariance())[0])
