"""Graphs that onnxruntime runs and the standard does not allow, put right where they are read."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.core.errors import TooLargeError, UnsafeFileError
from pocketzoo.zoo.graphs.foreign.standard_form import in_order, not_numbers, put_in_standard_form, random_nodes

W = np.random.default_rng(5).normal(size=(4, 4)).astype(np.float32)
X = np.random.default_rng(6).normal(size=(3, 4)).astype(np.float32)


def node(kind: str, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def value(name: str, *dims: object) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)


def model(nodes, outputs=("y",), **numbers) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "g", [value("x", "n", 4)], [value(name, "n", 4) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in {"w": W, **numbers}.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(made: onnx.ModelProto) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(made.SerializeToString(), options)
    return session.run(None, {"x": X})


CHAIN = [node("MatMul", "x w", "a"), node("Relu", "a", "b"), node("Add", "a b", "c"), node("MatMul", "c w", "y")]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_nodes_in_any_order_are_sorted(order):
    given = model([CHAIN[i] for i in order])
    expected = run(model(CHAIN))
    put_in_standard_form(given, "g.onnx")
    onnx.checker.check_model(given, full_check=True)
    assert [n.op_type for n in given.graph.node] == ["MatMul", "Relu", "Add", "MatMul"]
    assert np.array_equal(run(given)[0], expected[0])


def test_what_is_sorted_stays_as_it_is():
    first, second = node("Relu", "x", "a"), node("Abs", "x", "b")
    assert in_order([second, first]) is None
    assert in_order([first, second]) is None
    assert in_order([node("Add", "b x", "a"), node("Add", "a x", "b")]) is None  # in a circle: the checker's to say


def test_nodes_that_a_branch_reads_come_before_it():
    branches = {
        f"{kind}_branch": helper.make_graph([node(op, reads, f"{kind}_y")], kind, [], [value(f"{kind}_y", "n", 4)])
        for kind, op, reads in (("then", "Relu", "a"), ("else", "Neg", "a"))
    }
    nodes = [node("If", "c", "y", **branches), node("MatMul", "x w", "a")]
    given = model(nodes, c=np.array(True))
    put_in_standard_form(given, "g.onnx")
    onnx.checker.check_model(given, full_check=True)
    assert np.array_equal(run(given)[0], np.maximum(X @ W, 0))


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("where", ["stored", "in a node"])
def test_sparse_constants_are_stored_in_full(flat, where):
    places = np.array([1, 7, 14])
    full = np.zeros(16, np.float32)
    full[places] = [2.0, -3.0, 0.5]
    indices = places if flat else np.stack(np.unravel_index(places, (4, 4)), 1)
    parts = numpy_helper.from_array(full[places], "s"), numpy_helper.from_array(indices.astype(np.int64), "s_at")
    sparse = helper.make_sparse_tensor(*parts, [4, 4])
    given = model([node("MatMul", "x s", "y")])
    if where == "stored":
        given.graph.sparse_initializer.append(sparse)
    else:
        given.graph.node.insert(0, helper.make_node("Constant", [], ["s"], sparse_value=sparse))
    put_in_standard_form(given, "g.onnx")
    onnx.checker.check_model(given, full_check=True)
    assert not given.graph.sparse_initializer
    assert np.array_equal(run(given)[0], X @ full.reshape(4, 4))


@pytest.mark.parametrize(
    ("places", "dims", "error", "says"),
    [
        ([16], [4, 4], UnsafeFileError, "outside its shape"),
        ([-1], [4, 4], UnsafeFileError, "outside its shape"),
        ([0], [-4, 4], UnsafeFileError, "outside its shape"),
        ([0], [2**20, 2**20], TooLargeError, "values"),
    ],
)
def test_what_a_sparse_constant_cannot_be(places, dims, error, says):
    given = model([node("MatMul", "x s", "y")])
    parts = numpy_helper.from_array(np.ones(1, np.float32), "s"), numpy_helper.from_array(np.array(places), "s_at")
    given.graph.sparse_initializer.append(helper.make_sparse_tensor(*parts, dims))
    with pytest.raises(error, match=says):
        put_in_standard_form(given, "g.onnx")


def test_an_output_that_is_named_twice_is_one():
    given = model([*CHAIN[:2], node("Neg", "a", "y")], outputs=("y", "b", "y"))
    put_in_standard_form(given, "g.onnx")
    onnx.checker.check_model(given, full_check=True)
    assert [output.name for output in given.graph.output] == ["y", "b"]


def test_nodes_that_make_random_numbers_are_found():
    body = helper.make_graph([node("RandomNormalLike", "x", "r")], "b", [], [value("r", "n", 4)])
    given = model(
        [
            node("Dropout", "x rate yes", "d"), node("Dropout", "x rate no", "e"), node("Dropout", "x rate", "f"),
            node("If", "yes", "i", then_branch=body, else_branch=body), node("Bernoulli", "x", "y"),
        ],
        rate=np.float32(0.5), yes=np.array(True), no=np.array(False),
    )  # fmt: skip
    assert [(n.op_type, n.output[0]) for n in random_nodes(given)] == [
        ("Dropout", "d"), ("RandomNormalLike", "r"), ("RandomNormalLike", "r"), ("Bernoulli", "y"),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_a_stored_value_that_is_no_number_is_named(kind):
    assert not_numbers(model(CHAIN, mask=np.array([-np.inf, 0], kind))) == ""
    assert not_numbers(model(CHAIN, bad=np.array([np.nan, 0], kind))) == "bad"
