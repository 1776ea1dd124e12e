from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from pocketzoo.compress.quantization import smoothquant as smooth
from pocketzoo.compress.quantization.smoothquant import ChannelRanges, ChannelStatistics, channel_scales
from pocketzoo.core.errors import DataError
from pocketzoo.zoo.graphs.index import GraphIndex

SIZE, HEADS = 8, 2


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def weights(model: onnx.ModelProto) -> list[str]:
    known = constants(model)
    return [n.input[1] for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in known]


@pytest.fixture(scope="module")
def block(graph_builder) -> onnx.ModelProto:
    """Attention between a normalization before it and a residual sum; then a normalization that two things read."""
    g = graph_builder((5, SIZE), seed=1)
    g.channels["x"] = SIZE
    ones = lambda name: g.constant(name, g.rng.uniform(0.5, 2.0, SIZE).astype(np.float32))  # noqa: E731
    split = g.constant("split", np.array([0, 0, HEADS, SIZE // HEADS], np.int64))
    join = g.constant("join", np.array([0, 0, SIZE], np.int64))
    normal = g.node("LayerNormalization", ["x", ones("norm.weight"), ones("norm.bias")], axis=-1)
    parts = {}
    for name, perm in {"query": [0, 2, 1, 3], "key": [0, 2, 3, 1], "value": [0, 2, 1, 3]}.items():
        y = g.node("Add", [g.matmul(normal, name, SIZE, SIZE), ones(f"{name}.bias")])
        parts[name] = g.node("Transpose", [g.node("Reshape", [y, split])], perm=perm)
    mixed = g.node("Softmax", [g.node("MatMul", [parts["query"], parts["key"]])], axis=-1)
    y = g.node("Transpose", [g.node("MatMul", [mixed, parts["value"]])], perm=[0, 2, 1, 3])
    y = g.node("Add", [g.matmul(g.node("Reshape", [y, join]), "out", SIZE, SIZE), "x"])
    y = g.node("LayerNormalization", [y, ones("after.weight"), ones("after.bias")], axis=-1)
    h = g.node("Gelu", [g.matmul(y, "fc1", SIZE, 2 * SIZE)])
    return g.model(g.node("Add", [g.matmul(h, "fc2", 2 * SIZE, SIZE), y]), 3)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(2).normal(size=(3, 5, SIZE)).astype(np.float32)


def divisors(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Some for every group, far from 1."""
    rng, index = np.random.default_rng(3), GraphIndex(model)
    found = {}
    for group in smooth.shared_inputs(index, weights(model)):
        found[group.tensor] = np.exp(rng.normal(size=index.constants[group.weights[0]].dims[0])).astype(np.float32)
    return found


def test_smoothing_leaves_the_outputs_as_they_are(block, x):
    before = block.SerializeToString()
    smoothed = smooth.apply(block, divisors(block))
    onnx.checker.check_model(smoothed, full_check=True)
    np.testing.assert_allclose(run(smoothed, x), run(block, x), rtol=1e-4, atol=1e-5)
    assert block.SerializeToString() == before
    assert smooth.apply(block, {}) == block


def test_a_multiplication_stands_only_where_nothing_else_can_take_the_scale(block):
    groups = smooth.shared_inputs(GraphIndex(block), weights(block))
    assert [len(g.weights) for g in groups] == [3, 1, 1, 1]
    smoothed = smooth.apply(block, divisors(block))
    # The first normalization and the value projection take theirs; the residual sum wants the other unscaled.
    made = [n.input[0] for n in smoothed.graph.node if n.op_type == "Mul"]
    assert made == [groups[2].tensor, groups[3].tensor]
    old, new, scales = constants(block), constants(smoothed), divisors(block)
    inner = scales[groups[0].tensor], scales[groups[1].tensor]
    np.testing.assert_allclose(new["norm.bias"] * inner[0], old["norm.bias"], rtol=1e-5)
    np.testing.assert_allclose(new["value.bias"] * inner[1], old["value.bias"], rtol=1e-5)
    np.testing.assert_allclose(new["value.weight"] * inner[1], old["value.weight"] * inner[0][:, None], rtol=1e-5)
    np.testing.assert_allclose(new["out.weight"], old["out.weight"] * inner[1][:, None], rtol=1e-5)


def test_a_layer_whose_producer_is_not_ours_gets_the_multiplication(block, x):
    """Heads joined in another order: a channel's scale would come back at another place."""
    other = onnx.ModelProto()
    other.CopyFrom(block)
    perms = [n for n in other.graph.node if n.op_type == "Transpose"]
    perms[-1].attribute[0].ints[:] = [0, 2, 3, 1]
    divided = smooth.apply(other, divisors(other))
    np.testing.assert_allclose(run(divided, x), run(other, x), rtol=1e-4, atol=1e-5)
    assert len([n for n in divided.graph.node if n.op_type == "Mul"]) == 3


def test_a_weight_that_runs_twice_is_left_alone(graph_builder):
    g = graph_builder((4, SIZE))
    g.channels["x"] = SIZE
    y = g.node("Gelu", [g.matmul("x", "twice", SIZE, SIZE)])
    y = g.node("MatMul", [y, "twice.weight"], SIZE)
    model = g.model(g.node("Add", [y, y]), 3)
    assert smooth.shared_inputs(GraphIndex(model), weights(model)) == []


@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(0.0, 5.0))
def test_scales_are_finite_and_never_raise_the_expected_error_much(seed, spread):
    rng = np.random.default_rng(seed)
    reach = np.exp(spread * rng.normal(size=16))
    channels = ChannelRanges(-reach * rng.uniform(0, 1, 16), reach, np.square(reach) / 10)
    s, gain = channel_scales(channels, rng.normal(size=(16, 4)))
    assert np.isfinite(s).all()
    assert (s > 0).all()
    assert gain > 0.9
    assert np.exp(np.log(s).mean()) == pytest.approx(1.0, rel=1e-3)


def test_an_outlier_is_taken_off_the_channel_that_has_it():
    """With weights of one size and the rounding of weights out of the way, the reach of all channels becomes one."""
    reach = np.array([1.0, 1.0, 30.0, 2.0])
    channels = ChannelRanges(-reach, reach, np.zeros(4))
    s, gain = channel_scales(channels, np.ones((4, 3)))
    np.testing.assert_allclose(reach / s, (reach / s)[0], rtol=1e-5)
    # The error is proportional to reach^2 sum s^2: 30^2 * 4 before, and 1 + 1 + 30^2 + 2^2 after.
    assert gain == pytest.approx(30**2 * 4 / (1 + 1 + 30**2 + 4), rel=1e-6)


def test_dead_channels_and_dead_tensors_are_borne():
    for reach in (np.zeros(4), np.array([0.0, 1.0, 0.0, 50.0])):
        s, gain = channel_scales(ChannelRanges(-reach, reach, reach**2), np.ones((4, 3)))
        assert np.isfinite(s).all()
        assert (s > 0).all()
        assert gain >= 1 - 1e-9


def test_a_plan_holds_what_pays(block, x):
    """An outlier in one channel of the last normalization is worth a multiplication; even channels are not."""
    loud = onnx.ModelProto()
    loud.CopyFrom(block)
    for tensor in loud.graph.initializer:
        if tensor.name == "after.weight":
            value = numpy_helper.to_array(tensor).copy()
            value[3] *= 40
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    tensor = smooth.shared_inputs(GraphIndex(block), weights(block))[2].tensor
    assert tensor not in planned(block, x)
    assert planned(loud, x)[tensor].argmax() == 3


def planned(model: onnx.ModelProto, x: np.ndarray) -> dict[str, np.ndarray]:
    groups = smooth.shared_inputs(GraphIndex(model), weights(model))
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(helper.make_empty_tensor_value_info(g.tensor) for g in groups)
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    seen = ChannelStatistics()
    for row in range(len(x)):
        for group, value in zip(groups, session.run(None, {"x": x[row : row + 1]})[1:], strict=True):
            seen.add(group.tensor, value)
    return smooth.plan(model, weights(model), seen.channels())


def test_statistics_of_parts_are_those_of_the_whole(x, refused):
    parts, whole = ChannelStatistics(), ChannelStatistics()
    for row in x:
        parts.add("a", row)
    whole.add("a", x)
    for field in ("low", "high", "square"):
        np.testing.assert_allclose(getattr(parts.channels()["a"], field), getattr(whole.channels()["a"], field))
    np.testing.assert_allclose(whole.channels()["a"].square, np.square(x).mean((0, 1)), rtol=1e-5)
    x[0, 0, 0] = np.nan
    with refused(DataError, "'b' is not finite"):
        parts.add("b", x)
    x[0, 0, 0] = 0.0


def expected(s: np.ndarray, channels: ChannelRanges, w: np.ndarray) -> float:
    """What rounding costs: of what is read, and three tenths of what it is for the weights. Each loop is a sum."""
    step = (max(channels.high / s) - min(channels.low / s)) / 255
    reading = sum(step**2 / 12 * (s[j] * w[j, o]) ** 2 for j in range(len(s)) for o in range(w.shape[1]))
    energy = sum(channels.square / s**2)
    steps = [max(abs(w[j, o] * s[j]) for j in range(len(s))) / 127 for o in range(w.shape[1])]
    return float(reading + 0.3 * sum(each**2 / 12 for each in steps) * energy)


@pytest.mark.parametrize("seed", range(4))
def test_scales_are_the_best_of_those_tried_and_the_gain_is_what_they_gain(seed):
    generator = np.random.default_rng(seed)
    high = generator.lognormal(0.0, 1.5, 5)
    channels = ChannelRanges(low=-high * generator.uniform(0.1, 2.0, 5), high=high, square=high**2 / 7)
    w = generator.normal(size=(5, 3))
    scales, gain = channel_scales(channels, w)
    plain = expected(np.ones(5), channels, w)
    assert plain / expected(scales.astype(np.float64), channels, w) == pytest.approx(gain, rel=1e-5)
    assert np.exp(np.log(scales).mean()) == pytest.approx(1.0, rel=1e-5)

    def reading(s: np.ndarray) -> float:
        return ((channels.high / s).max() - (channels.low / s).min()) ** 2 * (s * s * np.square(w).sum(1)).sum()

    ends = (np.maximum(channels.high, -channels.low * 2.0 ** (i / 4)) for i in range(-24, 25))
    full = min(ends, key=reading)
    tried = [expected(full**power, channels, w) for power in (0.25, 0.5, 0.75, 0.85, 0.95, 1.0)]
    assert gain == pytest.approx(plain / min(tried), rel=1e-9)


@pytest.mark.parametrize(
    ("node", "read", "instead", "made"),
    [
        ("LayerNormalization", "after.weight", "norm.weight", 3),
        ("LayerNormalization", "after.bias", "norm.bias", 3),
        ("Add", "key.bias", "value.bias", 3),
        ("MatMul", "key.weight", "value.weight", 4),  # nor are the nodes that read a weight twice in any group
        ("LayerNormalization", "norm.weight", "", 3),  # of what is computed
        ("LayerNormalization", "norm.bias", "", 3),
    ],
)
def test_what_another_node_reads_or_computes_takes_no_scale(node, read, instead, made, block, x):
    """Neither does what stands with it: the scale is multiplied in the graph, and the outputs are the same."""
    other = onnx.ModelProto()
    other.CopyFrom(block)
    (reader,) = (n for n in other.graph.node if n.op_type == node and read in n.input)
    if not instead:
        instead = f"{read}_computed"
        other.graph.node.insert(0, helper.make_node("Identity", [read], [instead]))
    reader.input[list(reader.input).index(read)] = instead
    onnx.checker.check_model(other, full_check=True)
    divided = smooth.apply(other, divisors(other))
    np.testing.assert_allclose(run(divided, x), run(other, x), rtol=1e-4, atol=1e-5)
    assert len([n for n in divided.graph.node if n.op_type == "Mul"]) == made
