"""Names and attributes of nodes."""

from __future__ import annotations

import pytest
from onnx import helper

from pocketzoo.zoo.graphs.node import attribute, layer_name, node_name


def node(op, inputs=("x", "w"), output="y", name="", **attributes):
    return helper.make_node(op, inputs, [output], name, **attributes)


def test_a_node_is_called_by_its_name_or_what_it_makes():
    assert [node_name(n) for n in (node("Relu", ("x",), name="r"), node("Relu", ("x",)))] == ["r", "y"]


def test_an_attribute_is_its_value_or_what_it_is_where_it_is_left_out():
    conv = node("Conv", strides=[2, 3], group=2)
    assert [attribute(conv, n, d) for n, d in (("strides", [1]), ("group", 1), ("pads", [0]))] == [[2, 3], 2, [0]]


@pytest.mark.parametrize(
    ("weight", "layer"),
    [
        ("conv.weight", "conv"),
        ("conv.weight_quantized", "conv"),
        ("backbone.stage1.0.conv1.weight", "backbone.stage1.0.conv1"),
        ("val_7", "val_7"),
        ("weight", "weight"),
    ],
)
def test_the_name_of_a_layer(weight, layer):
    assert layer_name(weight) == layer
