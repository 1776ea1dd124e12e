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


def test_what_was_chosen_once():
    assert (smooth.FEEDBACK, smooth.GAIN, smooth.POWERS) == (0.3, 2.0, (0.25, 0.5, 0.75, 0.85, 0.95, 1.0))
    np.testing.assert_allclose(smooth.BALANCES, [2.0 ** (i / 4) for i in range(-24, 25)])


def test_dead_channels_count_as_a_ten_thousandth_of_the_widest():
    """With the rounding of weights out of the way the divisors are the reaches, and the floor where there are none."""
    for low, high in (([0.0, 0.0, -4.0], [2.0, 0.0, 20.0]), ([-20.0, 0.0, -4.0], [2.0, 0.0, 4.0])):
        channels = ChannelRanges(np.array(low), np.array(high), np.zeros(3))
        s, _ = channel_scales(channels, np.ones((3, 2)))
        floored = np.maximum(high, 2e-3), np.minimum(low, -2e-3)

        def reading(full: np.ndarray, ends: tuple[np.ndarray, np.ndarray] = floored) -> float:
            return ((ends[0] / full).max() - (ends[1] / full).min()) ** 2 * (full**2).sum()

        full = [np.maximum(floored[0], -floored[1] * 2.0 ** (i / 4)) for i in range(-24, 25)]
        best = min((min(full, key=reading) ** p for p in (0.25, 0.5, 0.75, 0.85, 0.95, 1.0)), key=reading)
        np.testing.assert_allclose(s, best / np.exp(np.log(best).mean()), rtol=1e-5)


def test_a_tensor_of_zeros_is_left_as_it_is():
    s, gain = channel_scales(ChannelRanges(np.zeros(3), np.zeros(3), np.zeros(3)), np.ones((3, 2)))
    np.testing.assert_allclose(s, np.ones(3))
    assert gain == pytest.approx(1.0)
    s, gain = channel_scales(ChannelRanges(-np.ones(3), np.ones(3), np.ones(3)), np.zeros((3, 2)))
    np.testing.assert_allclose(s, np.ones(3))
    assert gain == 0.0  # no weights, no error


def chain(graph_builder) -> onnx.ModelProto:
    """x -> a -> Gelu -> b and c of the same tensor -> sum."""
    g = graph_builder((4, SIZE), seed=4)
    g.channels["x"] = SIZE
    y = g.node("Gelu", [g.matmul("x", "a", SIZE, SIZE)])
    b, c = g.matmul(y, "b", SIZE, SIZE), g.matmul(y, "c", SIZE, SIZE)
    return g.model(g.node("Add", [b, c]), 3)


def test_groups_are_of_the_layers_that_are_named_in_the_order_of_the_graph(graph_builder):
    model = chain(graph_builder)
    index = GraphIndex(model)
    hidden = model.graph.node[2].input[0]
    both = smooth.shared_inputs(index, ["c.weight", "b.weight", "a.weight"])
    assert both == [
        smooth.SharedInput("x", ("a.weight",)),
        smooth.SharedInput(hidden, ("b.weight", "c.weight")),
    ]
    assert smooth.shared_inputs(index, ["c.weight"]) == [smooth.SharedInput(hidden, ("c.weight",))]
    assert smooth.shared_inputs(index, []) == []


def test_only_matrices_and_what_is_computed_are_smoothed(graph_builder):
    """A batch of matrices has no input channels in its first axis, and a constant is no activation."""
    g = graph_builder((4, SIZE))
    g.channels["x"] = SIZE
    g.channels["fixed"] = SIZE
    batch = g.constant("batch", np.ones((1, SIZE, SIZE), np.float32))
    g.constant("fixed", np.ones((1, 4, SIZE), np.float32))
    y = g.node("MatMul", ["x", batch])
    z = g.matmul("fixed", "inner", SIZE, SIZE)
    last = g.matmul(g.node("Add", [y, z]), "last", SIZE, SIZE)
    index = GraphIndex(g.model(last, 3))
    found = smooth.shared_inputs(index, ["batch", "inner.weight", "last.weight"])
    assert [group.weights for group in found] == [("last.weight",)]


@pytest.mark.parametrize(
    ("gains", "planned_for"),
    [
        ((2.0, 1.0), set()),
        ((2.01, 1.0), {"x"}),
        ((1.0, 1.01), {"free"}),
        ((0.5, 3.0), {"free"}),
        ((5.0, 5.0), {"x", "free"}),
    ],
)
def test_a_multiplication_pays_from_twice_and_what_costs_none_from_any_gain(
    gains, planned_for, graph_builder, monkeypatch
):
    g = graph_builder((4, SIZE), seed=4)
    g.channels["x"] = SIZE
    scale = g.constant("scale", np.ones(SIZE, np.float32))
    y = g.node("LayerNormalization", [g.node("Gelu", [g.matmul("x", "a", SIZE, SIZE)]), scale], axis=-1)
    b, c = g.matmul(y, "b", SIZE, SIZE), g.matmul(y, "c", SIZE, SIZE)
    model = g.model(g.node("Add", [b, c]), 3)
    read = []

    def scales_of(channels, weight):
        read.append((channels, weight))
        return np.full(SIZE, len(read), np.float32), gains[len(read) - 1]

    monkeypatch.setattr(smooth, "channel_scales", scales_of)
    found = smooth.plan(model, weights(model), {"x": "of x", y: "of y"})
    assert {"free" if name == y else name for name in found} == planned_for
    assert [channels for channels, _ in read] == ["of x", "of y"]
    known = constants(model)
    np.testing.assert_array_equal(read[0][1], known["a.weight"])
    np.testing.assert_array_equal(read[1][1], np.concatenate([known["b.weight"], known["c.weight"]], 1))
    assert all(s.tolist() == [float(1 + (name == y))] * SIZE for name, s in found.items())


def test_a_multiplication_is_shared_and_what_is_not_named_is_left(graph_builder):
    """Of two tensors the second alone; both of its layers read the product, which stands in front of the first."""
    model = chain(graph_builder)
    hidden = model.graph.node[2].input[0]
    s = np.linspace(0.5, 3.0, SIZE).astype(np.float32)
    smoothed = smooth.apply(model, {hidden: s})
    onnx.checker.check_model(smoothed, full_check=True)
    assert [n.op_type for n in smoothed.graph.node] == ["MatMul", "Gelu", "Mul", "MatMul", "MatMul", "Add"]
    mul = smoothed.graph.node[2]
    assert list(mul.input) == [hidden, f"{hidden}_unscale"]
    assert [n.input[0] for n in smoothed.graph.node[3:5]] == list(mul.output) * 2 == [f"{hidden}_smooth"] * 2
    old, new = constants(model), constants(smoothed)
    np.testing.assert_array_equal(new["a.weight"], old["a.weight"])
    np.testing.assert_allclose(new[f"{hidden}_unscale"], 1 / s, rtol=1e-6)
    for name in ("b.weight", "c.weight"):
        np.testing.assert_allclose(new[name], old[name] * s[:, None], rtol=1e-6)
        assert new[name].dtype == np.float32
    x = np.random.default_rng(0).normal(size=(2, 4, SIZE)).astype(np.float32)
    np.testing.assert_allclose(run(smoothed, x), run(model, x), rtol=1e-4, atol=1e-5)


def edited(model: onnx.ModelProto, edit) -> onnx.ModelProto:
    other = onnx.ModelProto()
    other.CopyFrom(model)
    edit(other.graph)
    return other


def node_of(graph: onnx.GraphProto, op: str, number: int) -> onnx.NodeProto:
    return [n for n in graph.node if n.op_type == op][number]


def read_again(name_of):
    """Something else reads the tensor as well, and what it makes is an output."""

    def edit(graph: onnx.GraphProto) -> None:
        graph.node.append(helper.make_node("Identity", [name_of(graph)], ["again"]))
        graph.output.append(helper.make_empty_tensor_value_info("again"))

    return edit


def given_out(name_of):
    def edit(graph: onnx.GraphProto) -> None:
        graph.output.append(helper.make_empty_tensor_value_info(name_of(graph)))

    return edit


def mixed(graph):
    return node_of(graph, "Transpose", 3)


VALUE = 2  # of the projections, in the order query, key, value
PLACES = {
    "what the layer reads": lambda g: node_of(g, "Reshape", 3).output[0],
    "the joined heads": lambda g: mixed(g).output[0],
    "what attention gives": lambda g: mixed(g).input[0],
    "the heads of the values": lambda g: node_of(g, "Transpose", VALUE).output[0],
    "the values in heads": lambda g: node_of(g, "Reshape", VALUE).output[0],
    "the values": lambda g: node_of(g, "Add", VALUE).output[0],
    "the values without bias": lambda g: node_of(g, "Add", VALUE).input[0],
    "the bias of the values": lambda g: "value.bias",
}


# An initializer that is an output as well is no value that is computed.
SEEN = [
    (place, edit)
    for place in PLACES
    for edit in (read_again, given_out)
    if (place[:8], edit) != ("the bias", given_out)
]


@pytest.mark.parametrize(("place", "edit"), SEEN)
def test_a_value_that_something_else_sees_keeps_its_scale(place, edit, block, x):
    model = edited(block, edit(PLACES[place]))
    divided = smooth.apply(model, divisors(model))
    assert sum(n.op_type == "Mul" for n in divided.graph.node) == 3
    known = constants(divided)
    np.testing.assert_array_equal(known["value.bias"], constants(model)["value.bias"])
    for name in (o.name for o in model.graph.output):
        one, other = (
            onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(
                [name], {"x": x}
            )
            for m in (divided, model)
        )
        np.testing.assert_allclose(one[0], other[0], rtol=1e-4, atol=1e-5)


def swap_softmax(graph):
    node_of(graph, "Softmax", 0).op_type = "Relu"
    del node_of(graph, "Relu", 0).attribute[:]


def scale_values(graph):
    """Something stands between the heads and the product."""
    place = next(i for i, n in enumerate(graph.node) if n.op_type == "Softmax")
    product = node_of(graph, "MatMul", 4)
    graph.node.insert(place, helper.make_node("Neg", [product.input[1]], ["negated"]))
    node_of(graph, "MatMul", 4).input[1] = "negated"


def two_biases(graph):
    """Of what the values are a sum of neither is a constant of their width."""
    add = node_of(graph, "Add", VALUE)
    graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "one"))
    add.input[1] = "one"


@pytest.mark.parametrize("edit", [swap_softmax, scale_values, two_biases])
def test_attention_of_another_make_gets_the_multiplication(edit, block, x):
    model = edited(block, edit)
    divided = smooth.apply(model, divisors(model))
    assert sum(n.op_type == "Mul" for n in divided.graph.node) == 3
    np.testing.assert_allclose(run(divided, x), run(model, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("turned", [False, True])
def test_values_without_a_bias_or_with_it_on_the_left_take_their_scale(turned, block, x):
    def edit(graph):
        add = node_of(graph, "Add", VALUE)
        if turned:
            add.input[:] = [add.input[1], add.input[0]]
        else:
            node_of(graph, "Reshape", VALUE).input[0] = add.input[0]
            graph.node.remove(add)

    model = edited(block, edit)
    divided = smooth.apply(model, divisors(model))
    assert sum(n.op_type == "Mul" for n in divided.graph.node) == 2
    np.testing.assert_allclose(run(divided, x), run(model, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("place", ["norm.weight", "norm.bias"])
def test_a_normalization_that_shares_a_constant_keeps_it(place, block, x):
    model = edited(block, read_again(lambda _: place))
    divided = smooth.apply(model, divisors(model))
    assert sum(n.op_type == "Mul" for n in divided.graph.node) == 3
    np.testing.assert_allclose(run(divided, x), run(model, x), rtol=1e-4, atol=1e-5)


def test_statistics_are_of_every_row_and_every_tensor():
    seen = ChannelStatistics()
    seen.add("a", np.array([[[1.0, -2.0], [3.0, 4.0]]], np.float32))
    seen.add("b", np.array([5.0], np.float32)[None])
    seen.add("a", np.array([[0.5, -5.0]], np.float32))
    found = seen.channels()
    assert list(found) == ["a", "b"]
    assert (found["a"].low.tolist(), found["a"].high.tolist()) == ([0.5, -5.0], [3.0, 4.0])
    np.testing.assert_allclose(found["a"].square, [(1 + 9 + 0.25) / 3, (4 + 16 + 25) / 3])
    assert (found["b"].low.tolist(), found["b"].high.tolist(), found["b"].square.tolist()) == ([5.0], [5.0], [25.0])
    assert {v.dtype for each in found.values() for v in (each.low, each.high, each.square)} == {np.dtype(np.float64)}


def test_what_is_not_finite_is_refused_whole(refused):
    for bad in (np.nan, np.inf, -np.inf):
        with refused(DataError) as caught:
            ChannelStatistics().add("a", np.array([[1.0, bad]], np.float32))
        assert caught.value.message == "calibration: the activation 'a' is not finite"
        assert caught.value.hint == "check the samples, and the weights of the model, for NaN or infinity"
