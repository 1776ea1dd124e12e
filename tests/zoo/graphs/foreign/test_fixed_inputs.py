from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pocketzoo.core.errors import DataError, UnknownNameError, UnsupportedModelError
from pocketzoo.zoo.backends.onnxruntime.session import open_session
from pocketzoo.zoo.graphs.foreign.fixed_inputs import fix_inputs
from pocketzoo.zoo.graphs.foreign.metadata import OnnxMetadata
from pocketzoo.zoo.models.import_onnx import open_graph


def scaled(kind: int, shape: list[int | str], to: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """x times another input, ``by``."""
    nodes = [helper.make_node("Cast", ["by"], ["b"], to=to), helper.make_node("Mul", ["x", "b"], ["y"])]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3]),
        helper.make_tensor_value_info("by", kind, shape),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("kind", "shape", "given", "expected"),
    [
        (TensorProto.INT64, [], 3, 3),
        (TensorProto.FLOAT, [], 0.5, 0.5),
        (TensorProto.BOOL, [], True, 1),
        (TensorProto.FLOAT16, [1], 2.5, 2.5),
        (TensorProto.INT32, [3], (1, 2, 3), [1, 2, 3]),
        (TensorProto.UINT8, [1, 3], 7, 7),
        (TensorProto.FLOAT, ["k"], (1.0, 2.0, 4.0), [1, 2, 4]),
    ],
    ids=str,
)
def test_an_input_that_is_given_once_is_a_constant(kind, shape, given, expected):
    model = scaled(kind, shape)
    fix_inputs(model, {"by": given}, "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["x"]
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(open_session(model).run(["y"], {"x": x})[0], x * np.array(expected, np.float32))


@pytest.mark.parametrize(
    ("kind", "shape", "values", "error", "says"),
    [
        (TensorProto.INT64, [], {"bye": 1}, UnknownNameError, "no input 'bye'"),
        (TensorProto.INT64, [], {"by": 0.5}, DataError, "0.5 is not what the input 'by'"),
        (TensorProto.UINT8, [], {"by": 256}, DataError, "256 is not what the input 'by'"),
        (TensorProto.FLOAT, [3], {"by": (1.0, 2.0)}, DataError, "is 3, and 2 are given"),
        (TensorProto.FLOAT, ["a", 3], {"by": 1.0}, DataError, "is ? x 3, and 1 are given"),
    ],
    ids=str,
)
def test_values_that_an_input_does_not_hold_are_named(kind, shape, values, error, says, refused):
    with refused(error, "m.onnx", says):
        fix_inputs(scaled(kind, shape), values, "m.onnx")


def test_what_hangs_on_such_an_input_is_folded(tmp_path):
    """A branch that the value chooses is the graph's own then."""
    branches = {
        name: helper.make_graph(
            [helper.make_node(op, ["x"], [name])], name, [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        )
        for name, op in (("a", "Relu"), ("b", "Abs"))
    }  # fmt: skip
    nodes = [
        helper.make_node("Constant", [], ["rate"], value_int=16000),
        helper.make_node("Equal", ["sr", "rate"], ["wide"]),
        helper.make_node("If", ["wide"], ["y"], then_branch=branches["a"], else_branch=branches["b"]),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3]),
        helper.make_tensor_value_info("sr", TensorProto.INT64, []),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(model, tmp_path / "m.onnx")
    for rate, op in ((16000, "Relu"), (8000, "Abs")):
        bundle = open_graph(tmp_path / "m.onnx", OnnxMetadata(values={"sr": rate}))
        graph = onnx.load(bundle.graph("")).graph
        assert [node.op_type for node in graph.node] == [op]
        assert [value.name for value in graph.input] == ["x"]


@pytest.mark.parametrize("values", [{}, {"by": 2}])
@pytest.mark.parametrize("kind", [99, 0])
def test_numbers_of_no_type_are_refused(kind, values, tmp_path, refused):
    onnx.save(scaled(kind, []), path := tmp_path / "m.onnx")
    with refused(UnsupportedModelError, "'by' has numbers of type"):
        open_graph(path, OnnxMetadata(values=values))
