"""Graphs in fp8: the numbers of e4m3, which layers there are kernels for, where pairs stand, and what answers lose."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.plans import Range
from pocketzoo.compress.quantization import fp8, int8
from pocketzoo.compress.quantization.fp8 import (
    E4M3,
    LARGEST,
    LEAST_SCALE,
    MOST_SCALE,
    activation_parameters,
    nearest,
    scale_of,
)
from pocketzoo.compress.quantization.gptq import round_weight
from pocketzoo.core.errors import BundleError
from pocketzoo.plugins.targets import NVIDIA_FP8
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.node import layer_name
from pocketzoo.zoo.tasks.agreement import sqnr

# The graphs here are small: every layer without groups becomes fp8.
ANY = replace(NVIDIA_FP8, conv_channels=1, matmul_channels=1)
ONE = np.ones((1, 1), np.float32)
TABLE = np.unique(np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float64))
TABLE = TABLE[np.isfinite(TABLE)]


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """As it is written: onnxruntime's rewriting takes float8 for integers."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


# -- numbers


@given(st.floats(0, 1e30))
def test_a_scale_is_the_least_power_of_two_that_reaches(magnitude):
    scale = scale_of(magnitude)
    assert np.frexp(scale)[0] == 0.5
    assert LEAST_SCALE <= scale <= MOST_SCALE
    assert float(np.float16(scale)) == scale
    assert scale == MOST_SCALE or magnitude <= LARGEST * scale
    assert scale == LEAST_SCALE or magnitude > LARGEST * scale / 2


@given(st.lists(st.floats(-600, 600, width=32), min_size=1, max_size=20))
def test_numbers_are_the_nearest_that_e4m3_has(values):
    """Held against a table of all of them; beyond 448 there is none, and no infinity either."""
    x = np.array([[values]], np.float32)
    got = nearest(x, ONE).astype(np.float64)
    wanted = np.abs(TABLE - x[..., None].astype(np.float64)).min(-1)
    np.testing.assert_array_equal(np.abs(got - x), wanted)


def test_halfway_goes_to_the_even_number():
    """Between 16 and 18, and between 18 and 20: mantissas 000, 001, 010."""
    np.testing.assert_array_equal(nearest(np.float32([[[17, 19]]]), ONE).astype(float), [[[16, 20]]])


def test_onnxruntime_rounds_and_saturates_to_the_same(graph_builder):
    """What a QuantizeLinear gives is what is stored of a weight."""
    g = graph_builder((64,))
    g.channels["x"] = 64
    model = g.model(g.gemm("x", "fc", 64, 4))
    plan = int8.plan(model, Int8Config(), [np.full((1, 64), 3.0, np.float32)])
    made, _ = fp8.apply(model, plan, ANY)
    made.graph.output.append(onnx.helper.make_empty_tensor_value_info("x_dequantized"))
    made.graph.output.pop(0)
    scale, _ = activation_parameters(plan.ranges["x"])
    x = np.linspace(-600 * scale, 600 * scale, 64, dtype=np.float32)[None]
    stored = nearest(x[None], np.float32([[scale]])).astype(np.float32)[0] * scale
    assert np.abs(stored).max() == LARGEST * scale
    np.testing.assert_array_equal(run(made, x), stored)


def test_a_range_has_room_above_what_int8_cut_off():
    scale, zero = activation_parameters(Range(low=-1.0, high=3.0, magnitude=2.0))
    assert scale * LARGEST >= 3.0 * fp8.ROOM > scale * LARGEST / 2
    assert zero.dtype == ml_dtypes.float8_e4m3fn


@pytest.mark.parametrize(
    ("low", "high", "magnitude", "scale"),
    [
        (0.0, 56.0, 1.0, 1.0),  # 8 times 56 is the largest number there is
        (0.0, 57.0, 1.0, 2.0),
        (-57.0, 1.0, 1.0, 2.0),
        (0.0, 1.0, 57.0, 2.0),
        (0.0, 28.0, 1.0, 0.5),
    ],
)
def test_the_room_is_three_octaves(low, high, magnitude, scale):
    """Int8's ranges are cut to a tenth at the least: of the three that a range has the widest counts."""
    assert activation_parameters(Range(low=low, high=high, magnitude=magnitude))[0] == scale


def test_no_channel_loses_more_than_by_rounding_to_nearest():
    r = np.random.default_rng(0)
    weight = r.normal(size=(2, 6, 90)).astype(np.float32)
    x = r.normal(size=(2, 300, 90)) @ r.normal(size=(2, 90, 90))
    second = (x.transpose(0, 2, 1) @ x / 300).astype(np.float32)
    levels, scale = round_weight(weight, second, grid=E4M3)
    assert levels.dtype == ml_dtypes.float8_e4m3fn

    def lost(numbers):
        error = weight - numbers.astype(np.float64) * scale[..., None]
        return np.einsum("goi,gij,goj->go", error, second, error)

    plain = lost(nearest(weight, scale))
    assert (lost(levels) <= plain * (1 + 1e-4)).all()
    assert lost(levels).sum() < 0.5 * plain.sum()


# -- which layers


def reasons(model, samples, encoding=ANY):
    plan = int8.plan(model, Int8Config(), samples)
    found = fp8.choose(GraphIndex(model), plan, encoding)
    assert {*found.layers, *found.left} == set(plan.layers)
    return found


def test_layers_without_kernels_stay(graph_builder, batches):
    g = graph_builder((32, 10, 10))
    y = g.conv("x", "good", 32)
    y = g.conv(y, "deep", 32, groups=32)
    y = g.conv(y, "wide", 32, 7)
    y = g.conv(y, "narrow", 16)
    model = g.model(g.gemm(g.pool_and_flatten(y), "head", 16, 10))
    found = reasons(model, batches((32, 10, 10), 4, 4), NVIDIA_FP8)
    assert found.layers == ("good",)
    assert found.left == {
        "deep": "a grouped convolution",
        "wide": "a kernel of more than 32 values",
        "narrow": "fewer than 17 channels",
        "head": "fewer than 16 channels",
    }


def test_a_layer_whose_range_nobody_knows_stays(graphs, plans):
    plan = replace(plans["gemms"], ranges={})
    found = fp8.choose(GraphIndex(graphs["gemms"]), plan, ANY)
    assert set(found.left.values()) == {"its input has no calibrated range"}
    made, _ = fp8.apply(graphs["gemms"], plan, ANY)
    assert {n.op_type for n in made.graph.node} == {n.op_type for n in graphs["gemms"].graph.node}


def test_what_int8_skips_is_no_matter_of_fp8(graphs, samples):
    plan = int8.plan(graphs["gemms"], Int8Config(skip=("fc2",)), samples)
    made, found = fp8.apply(graphs["gemms"], plan, ANY)
    assert set(found.layers) == {"fc1", "fc3"}
    assert {t.name: t.data_type for t in made.graph.initializer}["fc2.weight"] == TensorProto.FLOAT


# -- the graph


def test_layers_read_pairs_and_nobody_else_does(graphs, plans):
    for name, model in graphs.items():
        made, found = fp8.apply(model, plans[name], ANY)
        onnx.checker.check_model(made, full_check=True)
        makers = {out: n for n in made.graph.node for out in n.output}
        constants = {t.name: t for t in made.graph.initializer}
        inside = 0
        for node in made.graph.node:
            read = [makers[i] for i in node.input if i in makers and makers[i].op_type == "DequantizeLinear"]
            if not read:
                continue
            inside += 1
            assert node.op_type in ("Conv", "Gemm", "MatMul"), name
            activation, weight = read
            assert makers[activation.input[0]].op_type == "QuantizeLinear"
            assert constants[weight.input[0]].data_type == TensorProto.FLOAT8E4M3FN
            assert list(constants[weight.input[1]].dims) == []
            assert all(constants[i].data_type == TensorProto.FLOAT for i in node.input[2:])
        assert inside >= len(found.layers), name
        zeros = [constants[n.input[2]] for n in made.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
        assert {t.data_type for t in zeros} == {TensorProto.FLOAT8E4M3FN}
        quantized = [n.input[0] for n in made.graph.node if n.op_type == "QuantizeLinear"]
        assert len(quantized) == len(set(quantized)), "one pair for a tensor, whoever reads it"


def test_a_weight_that_two_layers_share_is_stored_once(graphs, plans):
    made, _ = fp8.apply(graphs["shared"], plans["shared"], ANY)
    stored = [t.name for t in made.graph.initializer if t.data_type == TensorProto.FLOAT8E4M3FN and t.dims]
    assert sorted(map(layer_name, stored)) == ["fc", "stem", "twice"]


def test_the_graph_that_is_given_stays_as_it_is(graphs, plans, samples):
    before = graphs["tokens"].SerializeToString(deterministic=True)
    fp8.apply(graphs["tokens"], plans["tokens"], ANY, samples)
    assert graphs["tokens"].SerializeToString(deterministic=True) == before


def test_tensors_of_another_plan_are_refused(graphs, plans, refused):
    with refused(BundleError, "do not match the int8 plan", hint="compress"):
        fp8.apply(graphs["gemms"], replace(plans["gemms"], tensors=plans["plain"].tensors), ANY)


# -- answers


def test_one_layer_is_off_by_no_more_than_rounding_both_sides_can_be(graph_builder):
    """Each number is off by 1/16 of itself, or half of the least step: so is a sum of their products."""
    g = graph_builder((64,))
    g.channels["x"] = 64
    model = g.model(g.gemm("x", "fc", 64, 20, bias=False))
    x = np.random.default_rng(0).normal(size=(32, 64)).astype(np.float32)
    plan = int8.plan(model, Int8Config(), [x])
    made, _ = fp8.apply(model, plan, ANY)
    weight = np.abs(numpy_helper.to_array(model.graph.initializer[0]))
    scales = [float(numpy_helper.to_array(t)) for t in made.graph.initializer if t.name.endswith("_scale")]
    least = max(scales) * 2.0**-10
    off_x, off_w = np.abs(x) / 16 + least, weight / 16 + least
    bound = off_x @ weight.T + np.abs(x) @ off_w.T + off_x @ off_w.T
    error = np.abs(run(made, x) - run(model, x))
    assert (error <= bound + 1e-5).all()
    # Two errors that are even within a step, of 2^-3 of a power of two: 29 dB, give or take where values lie in it.
    assert 27 < sqnr(run(made, x), run(model, x)) < 33


@pytest.mark.parametrize("name", ["residual", "projection", "tokens", "gates", "shared"])
def test_answers_of_small_networks_are_near(name, graphs, plans, samples):
    """A few layers of 29 dB each, and samples win some back. Measured: 26.9 and more, and 2.0 and more on top."""
    x = np.concatenate(samples)
    made, _ = fp8.apply(graphs[name], plans[name], ANY)
    fitted, _ = fp8.apply(graphs[name], plans[name], ANY, samples)
    wanted = run(graphs[name], x)
    plain, better = sqnr(run(made, x), wanted), sqnr(run(fitted, x), wanted)
    assert plain > 24
    assert better > plain + 1


def attention(g, size=32, heads=4):
    """One block of a transformer on (batch, 10, size), whose first channels reach far: they are smoothed."""
    gain = np.ones(size, np.float32)
    gain[:3] = 10

    def linear(x, name, inner, out):
        bias = g.constant(f"{name}.bias", g.rng.normal(size=out).astype(np.float32) / 10)
        return g.node("Add", [g.matmul(x, name, inner, out), bias])

    def split(x, *order):
        shape = g.constant(f"{x}.shape", np.array([0, 0, heads, size // heads], np.int64))
        return g.node("Transpose", [g.node("Reshape", [x, shape])], perm=list(order))

    def norm(x, name):
        zero = g.constant(f"{name}.bias", np.zeros(size, np.float32))
        return g.node("LayerNormalization", [x, g.constant(f"{name}.weight", gain.copy()), zero])

    y = norm("x", "before")
    q, k, v = (linear(y, name, size, size) for name in "qkv")
    scores = g.node("MatMul", [split(q, 0, 2, 1, 3), split(k, 0, 2, 3, 1)])
    scores = g.node("Mul", [scores, g.constant("small", np.float32(0.02))])
    mixed = g.node("MatMul", [g.node("Softmax", [scores]), split(v, 0, 2, 1, 3)])
    back = g.node("Transpose", [mixed], perm=[0, 2, 1, 3])
    y = g.node("Reshape", [back, g.constant("flat", np.array([0, 0, size], np.int64))])
    y = g.node("Add", ["x", linear(y, "out", size, size)])
    h = g.node("Gelu", [linear(norm(y, "behind"), "up", size, 4 * size)])
    return g.model(g.node("Add", [y, linear(h, "down", 4 * size, size)]), 3)


def test_a_transformer_block_keeps_its_answers(graph_builder, batches):
    """Products of activations and all additions stay in floats. Measured: 22.7 dB, and 25.6 with samples."""
    g = graph_builder((10, 32))
    model = attention(g)
    samples = batches((10, 32))
    plan = int8.plan(model, Int8Config(), samples)
    assert any(name.endswith(int8.DIVISOR) for name in plan.tensors), "some channels are smoothed"
    made, found = fp8.apply(model, plan, NVIDIA_FP8)
    fitted, _ = fp8.apply(model, plan, NVIDIA_FP8, samples)
    assert (found.layers, found.left) == (("q", "k", "v", "out", "up", "down"), {})
    x = np.concatenate(batches((10, 32), seed=1))
    wanted = run(model, x)
    assert sqnr(run(made, x), wanted) > 20
    assert sqnr(run(fitted, x), wanted) > sqnr(run(made, x), wanted) + 1


def test_samples_are_worth_a_lot_where_inputs_go_together(graph_builder):
    """A layer that reads eight numbers in 64 ways: the errors of the ways make up for each other."""
    r = np.random.default_rng(0)
    g = graph_builder((64,))
    g.channels["x"] = 64
    model = g.model(g.gemm("x", "fc", 64, 20))
    mixed = (r.normal(size=(400, 8)) @ r.normal(size=(8, 64)) + 1).astype(np.float32)
    plan = int8.plan(model, Int8Config(), [mixed[:200]])
    plain, _ = fp8.apply(model, plan, ANY)
    fitted, _ = fp8.apply(model, plan, ANY, [mixed[:200]])
    wanted = run(model, mixed[200:])
    assert sqnr(run(fitted, mixed[200:]), wanted) > sqnr(run(plain, mixed[200:]), wanted) + 2
