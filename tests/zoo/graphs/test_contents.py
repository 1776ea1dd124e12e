"""Nodes and constants of a graph put in place of others."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import GraphProto, TensorProto, helper, numpy_helper

from pocketzoo.zoo.graphs.contents import drop_dead, drop_unread, held_tensor, replace_nodes, store_constants

ONE = numpy_helper.from_array(np.float32(1), "value")


def graph(*nodes: onnx.NodeProto, outputs: str = "y", stored: str = "") -> GraphProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", *outputs.split())]
    constants = [numpy_helper.from_array(np.float32(i), name) for i, name in enumerate(stored.split())]
    return helper.make_graph(nodes, "g", values[:1], values[1:], constants)


def node(op: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], **attributes)


def test_a_graph_s_own_nodes_may_be_put_in_another_order_with_new_ones_between():
    g = graph(node("Relu", "x", "a"), node("Abs", "a", "b"), node("Neg", "b", "y"))
    first, second, third = g.node
    replace_nodes(g, [third, node("Sqrt", "a", "s"), second, first])
    assert [n.op_type for n in g.node] == ["Neg", "Sqrt", "Abs", "Relu"]
    assert [list(n.output) for n in g.node] == [["y"], ["s"], ["b"], ["a"]]
    replace_nodes(g, (n for n in g.node if n.op_type != "Sqrt"))
    assert [n.op_type for n in g.node] == ["Neg", "Abs", "Relu"]


def test_constants_stay_that_somebody_reads_inside_a_node_or_as_an_output():
    inner = graph(node("Add", "x inside", "o"), outputs="o")
    g = graph(
        node("Add", "x read", "a"), node("If", "a", "b", then_branch=inner, else_branch=inner),
        outputs="b given", stored="read inside given nobody",
    )  # fmt: skip
    drop_unread(g)
    assert {t.name: float(numpy_helper.to_array(t)) for t in g.initializer} == {"read": 0, "inside": 1, "given": 2}


def test_what_a_constant_holds_is_a_tensor_of_the_standard_s_operator_alone():
    assert held_tensor(node("Constant", "", "c", value=ONE)) == ONE
    assert held_tensor(node("Constant", "", "c", value_float=1.0)) is None
    assert held_tensor(node("ConstantOfShape", "x", "c", value=ONE)) is None
    assert held_tensor(helper.make_node("Constant", [], ["c"], domain="acme", value=ONE)) is None


def test_constants_that_nodes_hold_are_stored_and_outputs_stay_nodes():
    held = [node("Constant", "", name, value=ONE) for name in ("c", "d")]
    g = graph(*held, node("Constant", "", "e", value_int=2), node("Add", "x c", "y"), outputs="y d")
    store_constants(g)
    assert [n.output[0] for n in g.node] == ["d", "e", "y"]
    assert {t.name: float(numpy_helper.to_array(t)) for t in g.initializer} == {"c": 1.0}


def test_nodes_go_that_nobody_reads_and_stay_that_a_body_reads():
    branch = helper.make_graph([node("Add", "inside w", "t")], "b", [], [helper.make_tensor_value_info("t", 1, None)])
    g = graph(
        node("Relu", "x", "inside"),
        node("Mul", "x dead_w", "dead"),
        node("Neg", "dead", "deader"),
        node("Cast", "x", "c", to=TensorProto.BOOL),
        node("If", "c", "y", then_branch=branch, else_branch=branch),
        stored="w dead_w",
    )
    drop_dead(g)
    assert [n.op_type for n in g.node] == ["Relu", "Cast", "If"]
    assert [tensor.name for tensor in g.initializer] == ["w"]


def test_a_node_stays_of_which_one_output_is_read_and_one_left_out():
    g = graph(helper.make_node("LSTM", ["x", "w", "r"], ["", "y"], hidden_size=1), node("Identity", "x", "z"))
    drop_dead(g)
    assert [list(n.output) for n in g.node] == [["", "y"]]
