"""Layer normalization in many nodes, written as one."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.deploy.half_precision_export import compare_outputs, half, joined
from pocketzoo.plugins.targets import pocketzoo_targets
from pocketzoo.zoo.graphs.rewriting.half_writer import simulated
from pocketzoo.zoo.graphs.rewriting.joined_norms import has_norms, join_norms

RTX = next(t for t in pocketzoo_targets() if t.name == "tensorrt-rtx")
RANDOM = np.random.default_rng(0)
SHAPE = (2, 6, 5)


def node(op, inputs, output, **attributes):
    return helper.make_node(op, inputs, [output], output, **attributes)


def laid(name, axes, keeps):
    """A mean whose axes are gone gets them back, as TensorFlow's exporter does it."""
    return [] if keeps else [node("Unsqueeze", [name, "axes"], f"{name}_laid")]


def mean_of(name, out, axes, keeps, sums):
    """The mean along axes in one node, or as a sum that is multiplied."""
    if not sums:
        return [node("ReduceMean", [name], out, axes=list(axes), keepdims=int(keeps))]
    return [node("ReduceSum", [name, "axes"], f"{out}_sum", keepdims=int(keeps)),
            node("Mul", [f"{out}_sum", "share"], out)]  # fmt: skip


def norm(axes, *, keeps=True, sums=False, fast=False, root="Div", scale=True, shift=True, **changed):
    """The nodes of a normalization, and what they read."""
    end = "" if keeps else "_laid"
    nodes = [*mean_of("x", "mean", axes, keeps, sums), *laid("mean", axes, keeps)]
    nodes.append(node("Sub", ["x", f"mean{end}"], "centered"))
    if fast:
        nodes += [node("Mul", ["x", "x"], "squared"), *mean_of("squared", "squares", axes, keeps, sums),
                  node("Mul", ["mean", "mean"], "square"), node("Sub", ["squares", "square"], "difference"),
                  node("Max", ["zero", "difference"], "variance")]  # fmt: skip
    else:
        nodes += [node("Pow", ["centered", "two"], "squared"), *mean_of("squared", "variance", axes, keeps, sums)]
    nodes += [*laid("variance", axes, keeps), node("Add", [f"variance{end}", "epsilon"], "total")]
    nodes.append(node("Sqrt", ["total"], "deviation"))
    if root == "Div":
        nodes.append(node("Div", ["centered", "deviation"], "normal"))
    else:
        nodes.append(node("Reciprocal", ["deviation"], "inverse"))
        if root == "Mul":
            nodes.append(node("Mul", ["inverse", "centered"], "normal"))
        else:  # the scale first
            nodes += [node("Mul", ["inverse", "scale"], "factor"), node("Mul", ["centered", "factor"], "normal")]
    last = "normal"
    if scale and root != "scaled":
        nodes.append(node("Mul", [last, "scale"], "scaled"))
        last = "scaled"
    if shift:
        nodes.append(node("Add", ["shift", last], "shifted"))
        last = "shifted"
    nodes.append(node("Relu", [last], "y"))
    own = [SHAPE[i] if i in axes else 1 for i in range(3)]
    constants = {
        "axes": np.array(axes), "share": np.float32(1 / np.prod([SHAPE[i] for i in axes])), "two": np.float32(2),
        "epsilon": np.float32(0.01), "zero": np.float32(0), "scale": RANDOM.uniform(0.5, 2, own).astype(np.float32),
        "shift": RANDOM.normal(size=own).astype(np.float32),
    } | changed  # fmt: skip
    return nodes, constants


def graph(nodes, constants, outputs=("y",), shape=("n", *SHAPE[1:])):
    read = {name for each in nodes for name in each.input}
    stored = [numpy_helper.from_array(array, name) for name, array in constants.items() if name in read]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    out = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    made = helper.make_graph(nodes, "g", [x], out, stored)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def same(model, made):
    onnx.checker.check_model(made, full_check=True)
    x = RANDOM.normal(0.5, 2, SHAPE).astype(np.float32)
    for ours, theirs in zip(*(
        onnxruntime.InferenceSession(each.SerializeToString()).run(None, {"x": x}) for each in (made, model)
    ), strict=True):  # fmt: skip
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def copied(model):
    made = onnx.ModelProto()
    made.CopyFrom(model)
    return made


FORMS = [
    {}, {"scale": False}, {"shift": False}, {"scale": False, "shift": False}, {"keeps": False}, {"sums": True},
    {"sums": True, "keeps": False}, {"fast": True}, {"fast": True, "keeps": False, "sums": True}, {"root": "Mul"},
    {"root": "scaled"}, {"root": "scaled", "fast": True, "keeps": False, "sums": True},
]  # fmt: skip


@pytest.mark.parametrize("axes", [(2,), (1,), (1, 2)])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_each_way_to_write_a_norm_becomes_one_node(axes, form):
    model = graph(*norm(axes, **form))
    assert has_norms(model)
    made = copied(model)
    assert join_norms(made)
    turned = ["Transpose", "LayerNormalization", "Transpose"] if axes == (1,) else ["LayerNormalization"]
    assert [each.op_type for each in made.graph.node] == [*turned, "Relu"]
    same(model, made)
    assert not has_norms(made)
    assert not join_norms(made)


def test_what_others_read_of_a_norm_stays():
    model = graph(*norm((2,)), outputs=("y", "variance", "normal"))
    made = copied(model)
    assert join_norms(made)
    same(model, made)
    assert "Sqrt" not in [each.op_type for each in made.graph.node]


def swapped(nodes, old, new):
    return [new if each.output[0] == old else each for each in nodes]


@pytest.mark.parametrize(
    "change",
    [
        {"epsilon": np.float32(-0.01)}, {"epsilon": np.float32(0)}, {"two": np.float32(3)},
        {"sums": True, "share": np.float32(0.3)},
        {"fast": True, "zero": np.float32(0.5)},
    ], ids=str,
)  # fmt: skip
def test_what_is_no_norm_stays_as_it_is(change):
    model = graph(*norm((2,), **change))
    assert not has_norms(model)


def test_a_variance_of_another_tensor_or_along_other_axes_is_none():
    nodes, constants = norm((2,))
    for old, new in {
        "mean": node("ReduceMean", ["x"], "mean", axes=[1], keepdims=1),
        "variance": node("ReduceMean", ["squared"], "variance", axes=[1], keepdims=1),
        "squared": node("Pow", ["x", "two"], "squared"),
        "normal": node("Div", ["deviation", "centered"], "normal"),
        "centered": node("Sub", ["mean", "x"], "centered"),
    }.items():
        model = graph(swapped(nodes, old, new), constants)
        assert not has_norms(model), old
    nodes, constants = norm((2,), fast=True)
    assert not has_norms(graph(swapped(nodes, "square", node("Mul", ["mean", "squares"], "square")), constants))


def test_lengths_that_are_not_known_are_left_alone():
    nodes, constants = norm((2,))
    assert not has_norms(graph(nodes, constants, shape=("n", 6, "length")))
    nodes, constants = norm((2,), scale=False, shift=False)
    assert not has_norms(graph(nodes, constants, shape=None))


def test_a_variance_that_cancels_costs_no_nodes_in_32_bits():
    """Values around 100 with a deviation of 1: of 1e4 less 1e4, half precision has nothing left."""
    nodes, constants = norm((1,), fast=True, keeps=False, sums=True, root="scaled", epsilon=np.float32(1e-6))
    model = graph(nodes, constants)
    shown = [{"x": RANDOM.normal(20, 2, (4, *SHAPE[1:])).astype(np.float32)}]
    made = joined(model, shown)
    plan, _ = half(made, RTX, "fp16", shown)
    assert plan.computing_in_float32 == ()
    assert compare_outputs(model, simulated(made, plan), shown)["y"] >= 40
    old, _ = half(model, RTX, "fp16", shown)
    assert len(old.computing_in_float32) >= 5


def test_an_older_graph_is_raised_to_the_opset_that_has_the_norm():
    model = graph(*norm((2,)))
    model.opset_import[0].version = 15
    made = joined(model, [{"x": RANDOM.normal(size=SHAPE).astype(np.float32)}])
    assert made.opset_import[0].version == 17
    assert [each.op_type for each in made.graph.node] == ["LayerNormalization", "Relu"]
