from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.zoo.graphs.float_precision import computing_kinds, float_precision
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.rewriting.single_precision import in_float32

TYPES = {
    "float32": (np.float32, TensorProto.FLOAT),
    "float16": (np.float16, TensorProto.FLOAT16),
    "bfloat16": (ml_dtypes.bfloat16, TensorProto.BFLOAT16),
    "float64": (np.float64, TensorProto.DOUBLE),
}
X = np.random.default_rng(0).integers(-4, 5, (3, 2, 6, 6)).astype(np.float32)


def eighths(*shape: int, seed: int) -> np.ndarray:
    """Numbers that all types hold as they are."""
    return np.random.default_rng(seed).integers(-8, 9, shape) / 8


def network(kind: str, *, outside: str = "") -> onnx.ModelProto:
    """Convolution, normalization, a branch that reads what is around it, and constants of each form."""
    dtype, code = TYPES[kind]
    end = TYPES[outside or kind][1]
    stored = {
        "w": eighths(4, 2, 3, 3, seed=1), "scale": eighths(4, seed=2), "shift": eighths(4, seed=3),
        "mean": eighths(4, seed=4), "variance": np.array([0.25, 1.0, 2.25, 4.0]), "fc": eighths(4, 5, seed=5),
    }  # fmt: skip
    half = numpy_helper.from_array(np.asarray(0.5, dtype), "half")
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(op, ["pooled", "half"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, code, None)],
        )
        for name, op in (("then", "Add"), ("else", "Sub"))
    }
    nodes = [
        helper.make_node("Cast", ["x"], ["inside"], to=code),
        helper.make_node("Constant", [], ["half"], value=half),
        helper.make_node("Conv", ["inside", "w"], ["a"]),
        helper.make_node("BatchNormalization", ["a", "scale", "shift", "mean", "variance"], ["b"], epsilon=0.0),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["pooled"]),
        helper.make_node("If", ["yes"], ["branch"], **branches),
        helper.make_node("MatMul", ["branch", "fc"], ["product"]),
        helper.make_node("Cast", ["product"], ["y"], to=end),
    ]
    constants = [numpy_helper.from_array(np.asarray(value).astype(dtype), name) for name, value in stored.items()]
    constants.append(numpy_helper.from_array(np.array(True), "yes"))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", end, ["n", 2, 6, 6])],
        [helper.make_tensor_value_info("y", end, ["n", 5])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_it_computes_what_the_same_graph_of_float32_does(kind):
    wide = in_float32(network(kind, outside="float32"))
    onnx.checker.check_model(wide, full_check=True)
    assert computing_kinds(wide) == {TensorProto.FLOAT}
    assert set(GraphIndex(wide).types.values()) <= {TensorProto.FLOAT, TensorProto.BOOL}
    np.testing.assert_allclose(run(wide, X), run(network("float32"), X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "numpys"), [("float16", np.float16), ("float64", np.float64)])
def test_inputs_and_outputs_keep_their_types(kind, numpys):
    wide = in_float32(network(kind))
    onnx.checker.check_model(wide, full_check=True)
    y = run(wide, X.astype(numpys))
    assert y.dtype == numpys
    np.testing.assert_allclose(y.astype(np.float64), run(network("float32"), X), rtol=2e-3, atol=1e-2)


def test_ends_can_be_in_float32_as_well():
    wide = in_float32(network("bfloat16"), ends=True)
    np.testing.assert_allclose(run(wide, X), run(network("float32"), X), rtol=1e-5, atol=1e-5)


def test_a_graph_whose_layers_are_in_float32_stays_itself():
    model = network("float32")
    assert in_float32(model) is model


def test_the_input_graph_is_not_changed():
    model = network("float16")
    before = model.SerializeToString()
    in_float32(model)
    assert model.SerializeToString() == before


@pytest.mark.parametrize("kind", TYPES)
def test_the_precision_is_what_layers_compute_in(kind):
    assert float_precision(network(kind)) == kind
    assert float_precision(network(kind, outside="float32")) == kind


def test_half_precision_that_only_stores_weights_is_not_computed_in():
    nodes = [helper.make_node("Cast", ["w"], ["wide"], to=1), helper.make_node("MatMul", ["x", "wide"], ["y"])]
    ends = [[helper.make_tensor_value_info(name, 1, ["n", 4])] for name in "xy"]
    stored = [numpy_helper.from_array(np.eye(4, dtype=np.float16), "w")]
    model = helper.make_model(helper.make_graph(nodes, "g", *ends, stored))
    assert float_precision(model) == "float32"
    assert in_float32(model) is model


def test_a_tensor_that_is_an_input_and_an_output_and_one_that_nothing_computes():
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Identity", ["k"], ["constant"])]
    half = TensorProto.FLOAT16
    outputs = [
        helper.make_tensor_value_info(n, half, s) for n, s in (("y", ["n", 4]), ("x", ["n", 4]), ("constant", [2]))
    ]
    stored = [
        numpy_helper.from_array(np.eye(4, dtype=np.float16), "w"),
        numpy_helper.from_array(np.ones(2, np.float16), "k"),
    ]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", half, ["n", 4])], outputs, stored)
    wide = in_float32(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    onnx.checker.check_model(wide, full_check=True)
    x = np.arange(8, dtype=np.float16).reshape(2, 4)
    session = onnxruntime.InferenceSession(wide.SerializeToString(), providers=["CPUExecutionProvider"])
    y, same, constant = session.run(None, {"x": x})
    assert (y == x).all()
    assert (same == x).all()
    assert (constant == 1).all()
    assert {each.dtype for each in (y, same, constant)} == {np.dtype(np.float16)}


def test_numbers_beyond_float32_become_its_largest_and_infinity_stays():
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Max", ["m", "least"], ["y"])]
    ends = [[helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["n", 1])] for name in "xy"]
    stored = [numpy_helper.from_array(np.ones((1, 1)), "w"), numpy_helper.from_array(np.array([-1e300]), "least")]
    model = helper.make_model(
        helper.make_graph(nodes, "g", *ends, stored), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    least = numpy_helper.to_array(next(t for t in in_float32(model).graph.initializer if t.name == "least"))
    assert least == -np.finfo(np.float32).max
    stored[1].CopyFrom(numpy_helper.from_array(np.array([-np.inf]), "least"))
    model.graph.initializer[1].CopyFrom(stored[1])
    assert numpy_helper.to_array(next(t for t in in_float32(model).graph.initializer if t.name == "least")) == -np.inf


@pytest.mark.parametrize("spoil", ["read by two", "an output", "computed"])
def test_a_normalization_stays_where_the_convolution_is_not_its_alone(spoil):
    model = network("float16", outside="float32")
    if spoil == "read by two":
        model.graph.node.append(helper.make_node("Relu", ["a"], ["more"]))
        model.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT16, ["n", 4, 4, 4]))
    elif spoil == "an output":
        model.graph.output.append(helper.make_tensor_value_info("a", TensorProto.FLOAT16, ["n", 4, 4, 4]))
    else:
        norm = next(node for node in model.graph.node if node.op_type == "BatchNormalization")
        scale = helper.make_node("Neg", [norm.input[1]], ["negative"])
        norm.input[1] = "negative"
        model.graph.node.insert(0, scale)
    wide = in_float32(model)
    assert [node.op_type for node in wide.graph.node].count("BatchNormalization") == 1
    onnx.checker.check_model(wide, full_check=True)
    assert "BatchNormalization" not in [node.op_type for node in in_float32(network("float16")).graph.node]
