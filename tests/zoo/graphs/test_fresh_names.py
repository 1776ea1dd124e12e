"""Names at every depth of a graph: what is taken, what is read from outside, and what is free."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.zoo.graphs.fresh_names import FreshNames, captured, graphs, names, read_names


def value(name, shape=None):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def constant(name):
    return numpy_helper.from_array(np.float32(1), name)


def nested(depth: int) -> onnx.NodeProto:
    """An If whose branches read "outer", constants of their own, and so on downwards."""
    inside = [helper.make_node("Add", [f"own_{depth}", f"outer_{depth}"], [f"sum_{depth}"], name=f"node_{depth}")]
    if depth:
        inside.append(nested(depth - 1))
    branch = helper.make_graph(inside, "b", [], [value(f"sum_{depth}")], [constant(f"own_{depth}")])
    other = helper.make_graph([helper.make_node("Neg", ["x"], [f"other_{depth}"])], "c", [], [value(f"other_{depth}")])
    return helper.make_node("If", ["c"], [f"if_{depth}"], then_branch=branch, else_branch=other)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_what_is_read_from_outside_is_found_at_every_depth(depth):
    node = nested(depth)
    assert captured(node) == {"x", *(f"outer_{d}" for d in range(depth + 1))} | ({"c"} if depth else set())
    graph = helper.make_graph([node], "g", [value("x")], [value(f"if_{depth}"), value("given")])
    assert read_names(graph) == captured(node) | {"c", f"if_{depth}", "given"}
    assert len(list(graphs(graph))) == 1 + 2 * (depth + 1)
    assert {f"own_{d}" for d in range(depth + 1)} | {f"node_{d}" for d in range(depth + 1)} <= names(graph)


def test_inputs_of_a_body_are_its_own():
    inputs = [helper.make_tensor_value_info("i", TensorProto.INT64, []),
              helper.make_tensor_value_info("go", TensorProto.BOOL, []), value("h")]  # fmt: skip
    nodes = [helper.make_node("Add", ["h", "k"], ["o"]), helper.make_node("Identity", ["go"], ["on"])]
    body = helper.make_graph(
        nodes, "b", inputs, [helper.make_tensor_value_info("on", TensorProto.BOOL, []), value("o")]
    )
    assert captured(helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)) == {"k"}


@pytest.mark.parametrize("kind", ["input", "output", "initializer", "value", "node", "made", "read", "inside"])
def test_a_fresh_name_is_none_that_anything_has(kind):
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [value("x")], [value("y")])
    model = helper.make_model(graph)
    if kind in ("input", "output"):
        getattr(model.graph, kind).append(value("taken"))
    elif kind == "initializer":
        model.graph.initializer.append(constant("taken"))
    elif kind == "value":
        model.graph.value_info.append(value("taken"))
    elif kind == "inside":
        body = helper.make_graph([helper.make_node("Neg", ["x"], ["taken"])], "b", [], [value("taken")])
        model.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=body, else_branch=body))
    else:
        made = {"node": (["x"], ["z"], "taken"), "made": (["x"], ["taken"], ""), "read": (["taken"], ["z"], "")}[kind]
        model.graph.node.append(helper.make_node("Neg", made[0], made[1], name=made[2]))
    fresh = FreshNames.of(model)
    assert [fresh("taken"), fresh("taken"), fresh("free"), fresh("free")] == ["taken_1", "taken_2", "free", "free_1"]
    again = FreshNames.of(model)
    assert again("taken") == "taken_1"
