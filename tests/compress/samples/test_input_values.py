from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.compress.samples.input_values import USUAL, code_count, pixel_range


def graph(nodes, constants, kind=TensorProto.FLOAT, shape=("batch", 3, 16, 16)):
    made = helper.make_graph(
        [*nodes, helper.make_node("Relu", ["last"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])


def node(operator, *inputs, out="last", **attributes):
    return helper.make_node(operator, list(inputs), [out], **attributes)


MEAN, STD = np.full((1, 3, 1, 1), 0.45, np.float32), np.full((1, 3, 1, 1), 0.22, np.float32)
ONES = np.ones(3, np.float32)


@pytest.mark.parametrize(
    ("nodes", "constants", "wanted"),
    [
        ([node("Sub", "x", "m", out="a"), node("Div", "a", "s")], {"m": MEAN, "s": STD}, (0.0, 1.0)),
        ([node("Sub", "x", "m", out="a"), node("Div", "a", "s")], {"m": MEAN * 255, "s": STD * 255}, (0.0, 255.0)),
        ([node("Mul", "s", "x", out="a"), node("Add", "a", "m")], {"m": MEAN - 1, "s": MEAN / 60}, (0.0, 255.0)),
        ([node("Mul", "x", "s")], {"s": np.float32(2)}, (0.0, 1.0)),
        ([node("Cast", "x", out="a", to=1), node("Div", "a", "s")], {"s": np.float32(64)}, (0.0, 255.0)),
        (
            [node("BatchNormalization", "x", "one", "zero", "zero", "var")],
            {"one": ONES, "zero": ONES * 0, "var": ONES * 60**2}, (0.0, 255.0),
        ),
        ([node("Identity", "x")], {}, USUAL),  # nothing is done to it: it was normalized before
        ([node("Div", "s", "x")], {"s": np.float32(255)}, USUAL),  # one over it
        ([node("Mul", "x", "x")], {}, USUAL),
        ([node("Mul", "x", "s")], {"s": np.float32(1e6)}, USUAL),  # no usual range becomes one of a network
    ],
)  # fmt: skip
def test_the_range_of_pixels_is_the_usual_one_that_the_graph_normalizes(nodes, constants, wanted):
    assert pixel_range(graph(nodes, constants), "x") == wanted


def test_ids_are_as_many_as_the_table_has_rows():
    table = np.zeros((37, 4), np.float32)
    ids = {"kind": TensorProto.INT64, "shape": ("batch", "sequence")}
    assert code_count(graph([node("Gather", "t", "x")], {"t": table}, **ids), "x") == 37
    assert code_count(graph([node("Gather", "t", "x", axis=1)], {"t": table}, **ids), "x") == 4
    cast = [node("Cast", "x", out="i", to=TensorProto.INT32), node("Gather", "t", "i")]
    assert code_count(graph(cast, {"t": table}, **ids), "x") == 37
    two = [node("Gather", "t", "x", out="a"), node("Gather", "s", "x", out="b"), node("Add", "a", "b")]
    assert code_count(graph(two, {"t": table, "s": table[:9]}, **ids), "x") == 9
    assert code_count(graph([node("Cast", "x", to=1)], {}, **ids), "x") is None


PLACES = np.arange(99, dtype=np.int32)
BYTES = {"kind": TensorProto.INT32, "shape": ("batch", 6)}


@pytest.mark.parametrize(
    ("nodes", "constants", "wanted"),
    [
        ([node("OneHot", "x", "n", "v")], {"n": np.array(7), "v": np.array([0, 1], np.float32)}, 7),
        ([node("Reshape", "x", "s", out="a"), node("Equal", "a", "n")], {"s": [0, 6, 1], "n": PLACES[:9]}, 9),
        ([node("Equal", "n", "x")], {"n": np.int32(0)}, None),  # with what pads
        ([node("Equal", "n", "x")], {"n": PLACES[1:7]}, None),
    ],
)  # fmt: skip
def test_codes_are_as_many_as_the_places_of_their_one_hot_code(nodes, constants, wanted):
    assert code_count(graph(nodes, constants, **BYTES), "x") == wanted


def test_the_order_of_axes_does_not_change_what_pixels_are():
    nodes = [node("Transpose", "x", out="a", perm=[0, 3, 1, 2]), node("Mul", "a", "s")]
    assert pixel_range(graph(nodes, {"s": np.float32(1 / 127)}, shape=("batch", 16, 16, 3)), "x") == (0.0, 255.0)
