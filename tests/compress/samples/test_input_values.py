from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.compress.samples.input_values import USUAL, pixel_range, table_rows


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
    assert table_rows(graph([node("Gather", "t", "x")], {"t": table}, **ids), "x") == 37
    assert table_rows(graph([node("Gather", "t", "x", axis=1)], {"t": table}, **ids), "x") == 4
    cast = [node("Cast", "x", out="i", to=TensorProto.INT32), node("Gather", "t", "i")]
    assert table_rows(graph(cast, {"t": table}, **ids), "x") == 37
    two = [node("Gather", "t", "x", out="a"), node("Gather", "s", "x", out="b"), node("Add", "a", "b")]
    assert table_rows(graph(two, {"t": table, "s": table[:9]}, **ids), "x") == 9
    assert table_rows(graph([node("Cast", "x", to=1)], {}, **ids), "x") is None
