"""Multiply-accumulates: of each operator against a count that is made otherwise, and of whole graphs by hand.

On a graph of ones an output of a product is how many products it adds, so that the sum of the outputs is the count.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from pocketzoo.zoo.backends.onnxruntime.observed import observe
from pocketzoo.zoo.backends.onnxruntime.session import open_session
from pocketzoo.zoo.graphs.cost import layer_costs, parameters_of
from pocketzoo.zoo.graphs.operator_macs import Dims, UnknownSizesError, computes, macs

F, I64 = TensorProto.FLOAT, TensorProto.INT64
X = {"x": np.zeros((1, 3, 32, 32), np.float32)}


def value(name: str, shape: list | None, kind: int = F):
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes: list, shape: list, kind: int = F, out: int = F, domains: tuple = (), **constants) -> ModelProto:
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", [value("x", shape, kind)], [value("y", None, out)], stored)
    opsets = [helper.make_opsetid("", 20), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def total(graph: ModelProto, example: dict | None = None) -> int:
    return sum(cost.macs for cost in layer_costs(graph, example, observe))


def ones_of(node, *operands: np.ndarray) -> np.ndarray:
    names = [f"i{i}" for i in range(len(operands))]
    node.input[:] = names
    inputs = [value(n, x.shape, helper.np_dtype_to_tensor_dtype(x.dtype)) for n, x in zip(names, operands, strict=True)]
    graph = helper.make_graph([node], "g", inputs, [ValueInfoProto(name="y")])
    session = open_session(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))
    return session.run(None, dict(zip(names, operands, strict=True)))[0]


def ones(*shape: int, kind: type = np.float32) -> np.ndarray:
    return np.ones(shape, kind)


def made(op: str, **attributes):
    return helper.make_node(op, ["x"], ["y"], **attributes)


PRODUCTS = [
    (made("Conv"), (2, 4, 9, 9), (6, 4, 3, 3)),
    (made("Conv", group=4), (1, 4, 9, 9), (8, 1, 3, 3)),
    (made("Conv", group=2, strides=[2, 1], dilations=[1, 2]), (1, 4, 9, 9), (6, 2, 3, 3)),
    (made("Conv", strides=[3]), (1, 2, 20), (4, 2, 5)),
    (made("Conv"), (1, 2, 5, 6, 7), (3, 2, 2, 3, 2)),
    (made("ConvTranspose"), (2, 3, 4, 5), (3, 6, 2, 2)),
    (made("ConvTranspose", group=3, strides=[2, 3]), (1, 3, 4, 5), (3, 2, 3, 3)),
    (made("ConvTranspose", dilations=[2, 2]), (1, 3, 4, 5), (3, 6, 3, 3)),
    (made("ConvTranspose", strides=[2]), (1, 3, 7), (3, 4, 4)),
    (made("MatMul"), (7, 5), (5, 3)),
    (made("MatMul"), (2, 1, 4, 5), (3, 5, 6)),
    (made("MatMul"), (5,), (2, 5, 6)),
    (made("MatMul"), (3, 4, 5), (5,)),
    (made("MatMul"), (5,), (5,)),
    (made("Gemm"), (7, 5), (5, 3)),
    (made("Gemm", transA=1), (5, 7), (5, 3)),
    (made("Gemm", transA=1, transB=1), (5, 7), (3, 5)),
    (made("Einsum", equation="bti,ij->btj"), (2, 3, 4), (4, 5)),
    (made("Einsum", equation="bhqd,bhkd->bhqk"), (2, 3, 4, 5), (2, 3, 6, 5)),
    (made("Einsum", equation="...ij,...jk"), (2, 3, 4), (1, 4, 5)),
    (made("Einsum", equation="ij,kj->ki"), (3, 4), (5, 4)),
    (made("Einsum", equation="i , i ->"), (6,), (6,)),
    (made("Einsum", equation="bij,bj->bi"), (2, 3, 4), (2, 4)),
]


@pytest.mark.parametrize(("node", "left", "right"), PRODUCTS, ids=[f"{n.op_type} {a} {b}" for n, a, b in PRODUCTS])
def test_a_product_of_ones_is_how_many_it_adds(node, left, right):
    out = ones_of(node, ones(*left), ones(*right))
    assert macs(node, Dims([left, right], [out.shape])) == int(out.sum())


@pytest.mark.parametrize("op", ["ConvInteger", "MatMulInteger"])
def test_integers_multiply_as_often(op):
    left, right = ((1, 3, 6, 6), (4, 3, 3, 3)) if op == "ConvInteger" else ((2, 3, 6), (6, 4))
    node = made(op)
    out = ones_of(node, ones(*left, kind=np.uint8), ones(*right, kind=np.uint8))
    assert macs(node, Dims([left, right], [out.shape])) == int(out.sum())


@pytest.mark.parametrize(("op", "weight"), [("QLinearConv", (4, 3, 3, 3)), ("QLinearMatMul", (6, 4))])
def test_of_quantized_operators_scales_are_no_weights(op, weight):
    shape = (1, 3, 6, 6)
    scale, zero = np.float32(1).reshape(()), np.zeros((), np.uint8)
    names = ["x", "s", "z", "w", "s", "z", "s", "z"]
    graph = model(
        [helper.make_node(op, names, ["y"])], list(shape), TensorProto.UINT8, TensorProto.UINT8,
        s=scale, z=zero, w=np.ones(weight, np.uint8),
    )  # fmt: skip
    (cost,) = layer_costs(graph, {"x": np.zeros(shape, np.uint8)}, observe)
    out = ReferenceEvaluator(graph).run(None, {"x": np.ones(shape, np.uint8)})[0]
    assert out.max() < 255
    assert (cost.layer, cost.parameters, cost.precision, cost.macs) == ("w", math.prod(weight), "int8", int(out.sum()))


class Counted:
    """A number that counts how often it is multiplied."""

    times = 0

    def __mul__(self, other):
        Counted.times += 1
        return self

    def __add__(self, other):
        return self

    __radd__ = __add__


def numbers(*shape: int) -> np.ndarray:
    array = np.empty(shape, object)
    array[...] = Counted()
    return array


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("layout", [0, 1])
def test_recurrent_layers_step_by_step(op, gates, directions, layout):
    steps, batch, size, hidden = 5, 1, 3, 4
    Counted.times = 0
    for _ in range(directions):
        w, r, h = numbers(size, gates * hidden), numbers(hidden, gates * hidden), numbers(batch, hidden)
        for _ in range(steps):
            h = (numbers(batch, size) @ w + h @ r)[:, :hidden]
    shape = [batch, steps, size] if layout else [steps, batch, size]
    node = helper.make_node(
        op, ["x", "w", "r", "b"], ["y"], hidden_size=hidden, layout=layout,
        direction="bidirectional" if directions == 2 else "forward",
    )  # fmt: skip
    (cost,) = layer_costs(
        model([node], shape, w=ones(directions, gates * hidden, size), r=ones(directions, gates * hidden, hidden),
              b=ones(directions, 2 * gates * hidden)),
    )  # fmt: skip
    assert cost.macs == Counted.times
    assert (cost.layer, cost.parameters) == ("w", directions * gates * hidden * (size + hidden + 2))


@pytest.mark.parametrize("heads_first", [True, False])
def test_attention_is_its_scores_and_sums(heads_first):
    batch, heads, queries, keys, size, width = 2, 3, 4, 5, 6, 7
    Counted.times = 0
    for _ in range(batch * heads):
        scores = numbers(queries, size) @ numbers(size, keys)
        scores @ numbers(keys, width)
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"], q_num_heads=heads, kv_num_heads=heads)
    if heads_first:
        dims = [(batch, heads, queries, size), (batch, heads, keys, size), (batch, heads, keys, width)]
    else:
        dims = [(batch, queries, heads * size), (batch, keys, heads * size), (batch, keys, heads * width)]
    assert macs(node, Dims(dims, [None])) == Counted.times


@pytest.mark.parametrize(
    ("equation", "shapes", "wanted"),
    [
        ("ij->ji", [(3, 4)], 0),  # nothing is multiplied
        ("i,i->i", [(3,), (3,)], 0),  # each element alone, as Mul does
        ("bti,ij->b", [(2, 3, 4), (4, 5)], 2 * 4),  # what one alone has is summed before
        ("ab,bc,cd->ad", [(2, 3), (3, 4), (4, 5)], 2 * 3 * 4 + 2 * 4 * 5),  # from the left
        ("ii,ij->j", [(3, 3), (3, 4)], 12),
    ],
)
def test_contractions_by_hand(equation, shapes, wanted):
    assert macs(helper.make_node("Einsum", ["x"], ["y"], equation=equation), Dims(shapes, [None])) == wanted


@pytest.mark.parametrize(
    ("op", "attributes", "dims", "wanted"),
    [
        ("FusedMatMul", {"transA": 1}, [(2, 4, 3), (4, 5)], 2 * 3 * 4 * 5),
        ("FusedConv", {}, [(1, 3, 6, 6), (4, 3, 3, 3)], 4 * 16 * 27),
        ("MatMulNBits", {"K": 64, "N": 8}, [(1, 5, 64), (8, 1, 32)], 5 * 64 * 8),
        ("DynamicQuantizeMatMul", {}, [(2, 6), (6, 4)], 48),
        ("Attention", {"num_heads": 2}, [(1, 5, 8), (8, 24)], 5 * 8 * 24 + 5 * 5 * 16),
        ("MultiHeadAttention", {"num_heads": 2}, [(1, 5, 8), (1, 7, 8), (1, 7, 8)], 5 * 7 * 16),
    ],
)
def test_operators_of_onnxruntime(op, attributes, dims, wanted):
    node = helper.make_node(op, ["x"], ["y"], domain="com.microsoft", **attributes)
    out = {"FusedMatMul": (2, 3, 5), "FusedConv": (1, 4, 4, 4), "DynamicQuantizeMatMul": (2, 4)}.get(op)
    assert macs(node, Dims(dims, [out])) == wanted


def test_what_nobody_knows_is_named():
    other = helper.make_node("Secret", ["x"], ["y"], domain="elsewhere")
    assert computes(other)
    (cost,) = layer_costs(model([other], [1, 4], domains=("elsewhere",)))
    assert cost.macs == 0
    assert cost.note == "not counted: what a Secret of elsewhere computes is not known"
    assert not computes(helper.make_node("Relu", ["x"], ["y"]))
    with pytest.raises(UnknownSizesError):
        macs(helper.make_node("MatMul", ["x", "y"], ["z"]), Dims([None, (2, 3)], [None]))


# -- sizes


CONV = [
    helper.make_node("Conv", ["x", "w", "b"], ["a"], pads=[1, 1, 1, 1]),
    helper.make_node("GlobalAveragePool", ["a"], ["p"]),
    helper.make_node("Flatten", ["p"], ["f"]),
    helper.make_node("Gemm", ["f", "v"], ["y"], transB=1),
]
CONSTANTS = {"w": ones(8, 3, 3, 3), "b": ones(8), "v": ones(10, 8)}


@pytest.mark.parametrize("shape", [["batch", 3, 32, 32], ["n", 3, "h", "w_"], [-1, 3, -1, -1], ["n", 3, 32, "w"]])
def test_free_axes_are_as_long_as_the_sample(shape):
    assert total(model(CONV, shape, **CONSTANTS), X) == 27 * 8 * 1024 + 80


def test_a_free_axis_of_unknown_length_is_said_and_does_not_count_as_one():
    first, last = layer_costs(model(CONV, ["n", 3, "h", "w_"], **CONSTANTS))
    assert (first.macs, first.note) == (0, "not counted: its sizes are not known")
    assert first.parameters == 8 * 27 + 8
    assert (last.macs, last.note) == (80, "")


def test_sizes_that_hang_on_values_are_those_of_a_run():
    """Every other row is taken by a mask, whose length no inference knows."""
    nodes = [
        helper.make_node("Compress", ["x", "mask"], ["half"], axis=1),
        helper.make_node("NonZero", ["mask"], ["i"]),
        helper.make_node("MatMul", ["half", "w"], ["y"]),
    ]
    graph = model(nodes, ["batch", 8, 5], mask=np.array([True, False] * 4), w=ones(5, 3))
    (cost,) = layer_costs(graph, {"x": np.zeros((1, 8, 5), np.float32)}, observe)
    assert (cost.macs, cost.note) == (4 * 15, "")


def test_of_a_sequence_of_calls_one_counts():
    graph = model([helper.make_node("MatMul", ["x", "w"], ["y"])], ["batch", 5], w=ones(5, 3))
    assert total(graph, {"x": np.zeros((1, 9, 5), np.float32)}) == 15


# -- graphs inside nodes


def branch(name: str, out: str, weight: str, *constants) -> object:
    node = helper.make_node("MatMul", ["x", weight], [out])
    return helper.make_graph([node], name, [], [value(out, None)], list(constants))


def test_of_if_the_larger_branch_counts_and_both_have_their_parameters():
    small = numpy_helper.from_array(ones(5, 2), "small")
    node = helper.make_node(
        "If", ["c"], ["y"], "choice", then_branch=branch("t", "a", "w"), else_branch=branch("e", "b", "small", small)
    )
    rows = {cost.layer: cost for cost in layer_costs(model([node], ["batch", 5], c=np.array(True), w=ones(5, 4)))}
    assert (rows["w"].macs, rows["w"].parameters, rows["w"].note) == (20, 20, "")
    assert (rows["small"].macs, rows["small"].parameters) == (0, 10)
    assert rows["small"].note == "another branch of choice computes more, and is counted"


def loop(trips: str, **constants) -> ModelProto:
    body = helper.make_graph(
        [helper.make_node("MatMul", ["h", "w"], ["g"]), helper.make_node("Identity", ["c"], ["d"])],
        "body",
        [value("i", [], I64), value("c", [], TensorProto.BOOL), value("h", None)],
        [value("d", [], TensorProto.BOOL), value("g", None)],
    )
    node = helper.make_node("Loop", [trips, "", "x"], ["y"], "again", body=body)
    return model([helper.make_node("Size", ["w"], ["size"]), node], ["batch", 4], w=ones(4, 4), **constants)


@pytest.mark.parametrize(("trips", "times"), [("n", 6), ("size", 16)])  # a constant, and one that a run shows
def test_a_loop_counts_as_often_as_it_runs(trips, times):
    (cost,) = layer_costs(loop(trips, n=np.array(6)), {"x": np.zeros((1, 4), np.float32)}, observe)
    assert (cost.layer, cost.macs, cost.parameters, cost.note) == ("w", times * 16, 16, "")


def test_a_loop_whose_passes_are_not_known_counts_once_and_says_so():
    (cost,) = layer_costs(loop("n", n=np.array(2**40)))
    assert cost.macs == 16
    assert cost.note == "counted for one pass of again: how many it makes is not known"


def test_a_scan_counts_each_step():
    body = helper.make_graph(
        [helper.make_node("MatMul", ["s", "w"], ["m"]), helper.make_node("Identity", ["m"], ["o"])],
        "body",
        [value("s", None)],
        [value("o", None)],
    )
    node = helper.make_node("Scan", ["x"], ["y"], body=body, num_scan_inputs=1, scan_input_axes=[1])
    graph = model([node], ["batch", 7, 5], w=ones(5, 3))
    assert total(graph, {"x": np.zeros((1, 7, 5), np.float32)}) == 7 * 15


# -- parameters


def test_a_weight_that_two_nodes_read_counts_once_and_multiplies_twice():
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["a"], transB=1),
        helper.make_node("Gemm", ["a", "w"], ["y"]),
    ]
    costs = layer_costs(model(nodes, ["batch", 6], w=ones(4, 6)))
    assert [(c.layer, c.parameters, c.macs) for c in costs] == [("w", 24, 24), ("w", 0, 24)]


def test_weights_of_constant_nodes_and_of_what_is_computed_from_constants():
    nodes = [
        helper.make_node("Constant", [], ["v"], value=numpy_helper.from_array(ones(4, 6), "v")),
        helper.make_node("Mul", ["v", "g"], ["w"]),
        helper.make_node("Gemm", ["x", "w"], ["y"], transB=1),
    ]
    (cost,) = layer_costs(model(nodes, ["batch", 6], g=ones(4, 1)))
    assert (cost.layer, cost.parameters, cost.macs) == ("v", 28, 24)


def test_parameters_are_all_that_is_stored_but_scales_and_shapes():
    then, other = (branch(name, name, "w", numpy_helper.from_array(ones(5, 2), name)) for name in "ab")
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"]),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    stored = {"q": np.ones((5, 3), np.int8), "s": np.float32(1), "z": np.int8(0), "c": np.array(True)}
    graph = model(nodes, ["batch", 5], h=np.ones(7, np.float16), axes=np.array([1, 2]), **stored)
    assert parameters_of(graph) == 15 + 7 + 10 + 10


def test_a_constant_in_each_branch_may_have_one_name():
    same = [numpy_helper.from_array(ones(5, n), "inner") for n in (2, 3)]
    then, other = (branch(name, name, "inner", each) for name, each in zip("ab", same, strict=True))
    node = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    costs = layer_costs(model([node], ["batch", 5], c=np.array(True)))
    assert sorted((cost.parameters, cost.macs) for cost in costs) == [(10, 0), (15, 15)]
