"""Graphs in fewer nodes that compute the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.deploy.half_precision_export import half, joined
from pocketzoo.plugins.targets import pocketzoo_targets
from pocketzoo.zoo.graphs.rewriting.fewer_roundings import with_fewer_roundings

RTX = next(t for t in pocketzoo_targets() if t.name == "tensorrt-rtx")
RANDOM = np.random.default_rng(0)
CONSTANTS = {
    "w": RANDOM.normal(size=(4, 3, 3, 3)), "b": RANDOM.normal(size=4), "v": RANDOM.normal(size=(3, 1, 3, 3)),
    "number": np.array(1.7), "one": np.array([1.7]), "minus": np.array([-0.3]), "tiny": np.array([1e-4]),
    "channels": RANDOM.uniform(0.5, 2, (4, 1, 1)), "four": RANDOM.uniform(0.5, 2, (1, 4, 1, 1)),
    "columns": RANDOM.uniform(0.5, 2, 8), "batch": RANDOM.uniform(0.5, 2, (2, 1, 1, 1)),
    "more": RANDOM.uniform(0.5, 2, (1, 1, 1, 1, 1)), "zero": np.array(0.0), "0": np.array(0.0), "6": np.array(6.0),
    "3": np.array([3.0]), "2.5": np.array(2.5), "sixth": np.array(1 / 6), "[6]": np.array([6.0]), "5": np.array(5.0),
    "[[6]]": np.full((1, 1, 1, 1, 1), 6.0),
}  # fmt: skip


def node(op, inputs, output, **attributes):
    return helper.make_node(op, inputs, [output], output, **attributes)


def graph(*nodes, outputs=("y",), opset=17):
    """x of (2, 3, 8, 8) through the nodes."""
    read = {name for each in nodes for name in each.input}
    stored = [
        numpy_helper.from_array(np.asarray(array, np.float32), name)
        for name, array in CONSTANTS.items()
        if name in read
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 8, 8])
    out = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    made = helper.make_graph(list(nodes), "g", [x], out, stored)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)  # of its outputs


def same(model, joined):
    """Whether two graphs agree on what they make of x, up to float32."""
    x = RANDOM.normal(0, 3, (2, 3, 8, 8)).astype(np.float32)
    onnx.checker.check_model(joined, full_check=True)
    for ours, theirs in zip(*(
        onnxruntime.InferenceSession(each.SerializeToString()).run(None, {"x": x}) for each in (joined, model)
    ), strict=True):  # fmt: skip
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs[np.isfinite(theirs)]).max())


def operators(model):
    return [each.op_type for each in model.graph.node]


@pytest.mark.parametrize("op", ["Add", "Div", "Mul", "Sub"])
@pytest.mark.parametrize(
    ("constant", "goes"),
    [("number", True), ("one", True), ("channels", True), ("four", True), ("minus", True), ("columns", False),
     ("batch", False), ("more", False)],
)  # fmt: skip
@pytest.mark.parametrize("reads", [["x", "w"], ["x", "w", "b"]])
def test_what_scales_and_shifts_channels_goes_into_the_convolution_before_it(op, constant, goes, reads):
    model = graph(node("Conv", reads, "a", pads=[1] * 4), node(op, ["a", constant], "c"), node("Relu", ["c"], "y"))
    made = with_fewer_roundings(model)
    assert operators(made) == (["Conv", "Relu"] if goes else ["Conv", op, "Relu"])
    assert (made is model) == (not goes)
    same(model, made)


@pytest.mark.parametrize(
    ("nodes", "outputs", "left"),
    [
        # In either order, several, and where the sum is an output itself.
        ([("Mul", ["four", "a"], "c"), ("Add", ["channels", "c"], "d"), ("Mul", ["d", "number"], "y")], "y", ["Conv"]),
        ([("Sub", ["number", "a"], "y")], "y", ["Conv", "Sub"]),
        ([("Div", ["number", "a"], "y")], "y", ["Conv", "Div"]),
        ([("Mul", ["a", "zero"], "y")], "y", ["Conv", "Mul"]),
        ([("Mul", ["a", "tiny"], "y")], "y", ["Conv", "Mul"]),  # its weights would be below what 16 bits hold
        ([("Add", ["a", "number"], "y")], "ya", ["Conv", "Add"]),  # others read what the convolution makes
        ([("Add", ["a", "a"], "y")], "y", ["Conv", "Add"]),
        ([("Add", ["a", "number"], "c"), ("Mul", ["a", "c"], "y")], "y", ["Conv", "Add", "Mul"]),
    ],
)
def test_a_convolution_whose_values_others_read_stays(nodes, outputs, left):
    model = graph(node("Conv", ["x", "w", "b"], "a"), *(node(*each) for each in nodes), outputs=outputs)
    made = with_fewer_roundings(model)
    assert operators(made) == left
    same(model, made)


def test_a_weight_that_two_convolutions_read_stays_as_it_is():
    model = graph(
        node("Conv", ["x", "w"], "a"), node("Conv", ["x", "w"], "c"), node("Mul", ["a", "number"], "d"),
        node("Add", ["c", "d"], "y"),
    )  # fmt: skip
    assert with_fewer_roundings(model) is model


@pytest.mark.parametrize(
    ("nodes", "left"),
    [
        ([("Add", ["x", "3"], "a"), ("Clip", ["a", "0", "6"], "c"), ("Mul", ["x", "c"], "m"), ("Div", ["m", "6"], "y")],
         ["HardSigmoid", "Mul"]),
        ([("Add", ["3", "x"], "a"), ("Clip", ["a", "0", "6"], "c"), ("Mul", ["c", "x"], "m"),
          ("Mul", ["sixth", "m"], "y")], ["HardSigmoid", "Mul"]),
        ([("Add", ["x", "3"], "a"), ("Clip", ["a", "0", "6"], "c"), ("Div", ["c", "[6]"], "g"),
          ("Mul", ["x", "g"], "y")], ["HardSigmoid", "Mul"]),
        ([("Add", ["x", "2.5"], "a"), ("Clip", ["a", "0", "5"], "c"), ("Div", ["c", "5"], "y")], ["HardSigmoid"]),
        ([("Add", ["x", "3"], "a"), ("Clip", ["a", "0", "6"], "c"), ("Div", ["c", "5"], "y")], ["Add", "Clip", "Div"]),
        ([("Add", ["x", "3"], "a"), ("Clip", ["a", "3", "6"], "c"), ("Div", ["c", "6"], "y")], ["Add", "Clip", "Div"]),
        ([("Add", ["x", "3"], "a"), ("Clip", ["a", "0", "6"], "c"), ("Div", ["6", "c"], "y")], ["Add", "Clip", "Div"]),
        ([("Add", ["x", "3"], "a"), ("Clip", ["a", "", "6"], "c"), ("Div", ["c", "6"], "y")], ["Add", "Clip", "Div"]),
        ([("Add", ["x", "3"], "a"), ("Clip", ["a", "0", "6"], "c"), ("Div", ["c", "[[6]]"], "y")],
         ["Add", "Clip", "Div"]),  # which gives it an axis
        ([("Add", ["x", "3"], "a"), ("Clip", ["a", "0", "6"], "c"), ("Div", ["c", "6"], "g"), ("Mul", ["a", "g"], "y")],
         ["Add", "Clip", "Div", "Mul"]),
    ],
)  # fmt: skip
def test_a_sum_that_is_clipped_and_divided_is_a_hard_sigmoid(nodes, left):
    model = graph(*(node(*each) for each in nodes))
    made = with_fewer_roundings(model)
    assert operators(made) == left
    same(model, made)


@pytest.mark.parametrize(
    ("nodes", "left"),
    [
        ([("Mul", ["r", "one"], "m"), ("Conv", ["m", "w"], "y")], ["Relu", "Conv"]),
        ([("Mul", ["one", "r"], "m"), ("Add", ["m", "minus"], "s"), ("Conv", ["s", "w", "b"], "y")],
         ["Relu", "Add", "Conv"]),
        ([("Mul", ["r", "one"], "m"), ("Add", ["minus", "m"], "s"), ("Conv", ["s", "w", "b"], "c"),
          ("Conv", ["s", "v"], "d"), ("Concat", ["c", "d"], "y")], ["Relu", "Add", "Conv", "Conv", "Concat"]),
        ([("Mul", ["r", "tiny"], "m"), ("Conv", ["m", "w"], "y")], ["Relu", "Mul", "Conv"]),
        ([("Mul", ["r", "r"], "m"), ("Conv", ["m", "w"], "y")], ["Relu", "Mul", "Conv"]),
        ([("Mul", ["r", "one"], "m"), ("Add", ["m", "minus"], "s"), ("Conv", ["s", "w"], "c"), ("Sub", ["s", "x"], "d"),
          ("Concat", ["c", "d"], "y")], ["Relu", "Mul", "Add", "Conv", "Sub", "Concat"]),  # others read it too
        ([("Mul", ["r", "one"], "m"), ("Add", ["m", "m"], "s"), ("Conv", ["s", "w"], "y")],
         ["Relu", "Mul", "Add", "Conv"]),
    ],
)  # fmt: skip
def test_a_scale_before_convolutions_goes_into_their_weights(nodes, left):
    attributes = {"Conv": {"pads": [1] * 4}, "Concat": {"axis": 1}}
    own = [
        node(*each, **attributes.get(each[0], {}), **({"group": 3} if "v" in each[1] else {})) for each in nodes
    ]  # fmt: skip
    model = graph(node("Relu", ["x"], "r"), *own)
    made = with_fewer_roundings(model)
    assert operators(made) == left
    same(model, made)


def test_half_precision_rounds_less_often():
    """Ten blocks as recognizers of text have them: of the joined graph more is left, and its nodes are fewer."""
    nodes, last = list[onnx.NodeProto](), "x"
    for i in range(10):
        names = [f"{word}{i}" for word in ("conv", "scaled", "shifted", "sum", "clip", "product", "swish", "m", "s")]
        conv, scaled, shifted, total, clip, product, swish, m, s = names
        nodes += [
            node("Conv", [last, f"w{i}"], conv, pads=[1] * 4, group=3), node("Mul", [conv, "one"], scaled),
            node("Add", [scaled, "minus"], shifted), node("Add", [shifted, "3"], total),
            node("Clip", [total, "0", "6"], clip), node("Mul", [shifted, clip], product),
            node("Div", [product, "6"], swish), node("Mul", [swish, "one"], m), node("Add", [m, "minus"], s),
        ]  # fmt: skip
        last = s
    model = graph(*nodes, node("Relu", [last], "y"))
    for i in range(10):
        array = np.random.default_rng(i).normal(0, 0.3, (3, 1, 3, 3)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, f"w{i}"))
    shown = [{"x": RANDOM.normal(size=(2, 3, 8, 8)).astype(np.float32)}]
    made = joined(model, shown)
    assert len(made.graph.node) <= 10 * 4 + 2
    plan, _ = half(made, RTX, "fp16", shown)
    assert plan.in_float32 == {}
    assert operators(made).count("HardSigmoid") == 10


def test_graphs_with_quantized_layers_stay_as_they_are():
    model = graph(node("Conv", ["x", "w"], "a"), node("Mul", ["a", "one"], "c"), node("Relu", ["c"], "y"))
    model.graph.node.insert(0, node("QuantizeLinear", ["x", "number"], "q"))
    assert joined(model, []) is model
