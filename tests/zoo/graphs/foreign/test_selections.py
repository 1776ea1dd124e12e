"""Outputs whose length depends on the data, told from those whose length follows from shapes alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from detectorgraphs import ENDS, detector, images, node
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.zoo.graphs.foreign.selections import (
    Selection,
    compared_tensors,
    selections,
    unseen_layers,
    unseen_nodes,
    with_outputs,
)
from pocketzoo.zoo.graphs.index import GraphIndex

BEFORE = {
    "NonMaxSuppression": {"selected": ("NonMaxSuppression", ("boxes", "scores"), "selected")},
    "gathered": {
        "found": ("NonMaxSuppression", ("each", "scores"), "selected"),
        "sure": ("NonMaxSuppression", ("scores", "boxes"), "selected"),
        "kind": ("NonMaxSuppression", ("boxes", "scores"), "selected"),
    },
    "NonZero": {"where": ("NonZero", ("scores",), "where")},
    "Unique": {"kinds": ("Unique", ("scores",), "kinds")},
    "Compress": {"found": ("Compress", ("each", "best"), "")},
    "TopK": {"top": ("TopK", ("best",), "")},
    "two stages": {
        "head": ("NonMaxSuppression", ("each", "scores"), "selected"),
        "named": ("NonMaxSuppression", ("boxes", "scores"), "selected"),
    },
}


@pytest.mark.parametrize("end", ENDS)
def test_outputs_that_are_selected_are_compared_by_what_they_are_selected_from(end):
    model = detector(end, more=("scores",))
    found = selections(GraphIndex(model))
    assert {name: (each.by, each.before, each.chosen) for name, each in found.items()} == BEFORE[end]
    tensors = compared_tensors(GraphIndex(model), [output.name for output in model.graph.output])
    assert tensors == {**{name: of[1] for name, of in BEFORE[end].items()}, "scores": ("scores",)}
    # Each of these has one shape whatever the image is, and the outputs do not.
    session = onnxruntime.InferenceSession(
        with_outputs(model, [n for each in tensors.values() for n in each]).SerializeToString()
    )
    names = [output.name for output in session.get_outputs()]
    runs = [dict(zip(names, session.run(None, {"image": x[None]}), strict=True)) for x in images(40)]
    for name in found:
        assert len({run[name].shape for run in runs}) > 1
        assert all(len({run[inside].shape for run in runs}) == 1 for inside in tensors[name])


def test_what_no_compared_tensor_is_computed_by_is_unseen():
    after = unseen_nodes(GraphIndex(detector("two stages", more=("scores",))))
    chain = ["selected", "place", "found", "away", "back", "widened", "hidden", "hidden1", "head", "kind", "named"]
    assert after.keys() == {*chain}
    assert {*after.values()} == {"it comes after NonMaxSuppression, where nothing can be compared"}
    assert unseen_layers(GraphIndex(detector("two stages"))).keys() == {"second", "third"}
    assert unseen_layers(GraphIndex(detector("gathered"))) == {}
    # What is summed up again is compared as it is, and so is all that it is computed by.
    assert unseen_nodes(GraphIndex(of_x(KEPT["selected, and summed"], K, **NUMBERS))) == {}


def test_a_graph_that_has_its_outputs_is_not_copied():
    model = detector()
    assert with_outputs(model, ["found"]) is model
    assert [o.name for o in with_outputs(model, ["boxes", "boxes", "sure"]).graph.output][3:] == ["boxes"]
    assert len(model.graph.output) == 3


def of_x(nodes: list[onnx.NodeProto], inputs: tuple[tuple[str, int, list[object]], ...] = (), **constants: object):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*each) for each in (("x", TensorProto.FLOAT, ["n", 4, "t"]), *inputs)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


TIME = [node("Shape", "x", "s"), node("Gather", "s last", "t"), node("Unsqueeze", "t zero", "t1")]
SELECT = [node("NonZero", "m", "where"), node("Transpose", "where", "rows"), node("GatherND", "a rows", "y")]
INSIDE = helper.make_graph(SELECT[:1], "then", [], [helper.make_tensor_value_info("where", TensorProto.INT64, None)])
OTHER = helper.make_graph(
    [node("NonZero", "x", "all")], "else", [], [helper.make_tensor_value_info("all", TensorProto.INT64, None)]
)
NUMBERS = {"last": np.array(2), "zero": np.array([0]), "one": np.array([1]), "half": np.float32(0.5)}
KEPT = {
    "a slice up to a length of the input": [*TIME, node("Sigmoid", "x", "a"), node("Slice", "a zero t1 zero", "y")],
    "all that the input says": [
        node("Greater", "x half", "m"), node("Sigmoid", "x", "a"), *SELECT,
    ],
    "as long as a number that is given": [
        node("Sigmoid", "x", "a"), node("Slice", "a zero k zero", "y"),
    ],
    "selected, and summed": [
        node("Sigmoid", "x", "a"), node("Greater", "a half", "m"), *SELECT[:2], node("GatherND", "a rows", "b"),
        node("ReduceSum", "b", "y", keepdims=0),
    ],
}  # fmt: skip
SELECTED = {
    "a mask of what is computed": [node("Sigmoid", "x", "a"), node("Greater", "a half", "m"), *SELECT],
    "in a branch": [
        node("Sigmoid", "x", "a"), node("Greater", "a half", "m"), node("Greater", "k zero", "k0"),
        node("Squeeze", "k0", "if"), node("If", "if", "where", then_branch=INSIDE, else_branch=OTHER),
        *SELECT[1:],
    ],
    "as long as a mean": [
        node("Sigmoid", "x", "a"), node("ReduceMean", "a", "mean", keepdims=0), node("Cast", "mean", "k1", to=7),
        node("Unsqueeze", "k1 zero", "k2"), node("Slice", "a zero k2 zero", "y"),
    ],
    "quantized on the way": [
        node("Sigmoid", "x", "a0"), node("QuantizeLinear", "a0 scale point", "q"),
        node("DequantizeLinear", "q scale point", "a"), node("Greater", "a half", "m"), *SELECT,
    ],
}  # fmt: skip
K = (("k", TensorProto.INT64, [1]),)
POINT = {"scale": np.float32(1 / 255), "point": np.uint8(0)}


@pytest.mark.parametrize("which", KEPT)
def test_lengths_that_follow_from_shapes_or_from_what_is_given_are_kept(which):
    assert selections(GraphIndex(of_x(KEPT[which], K, **NUMBERS))) == {}


@pytest.mark.parametrize("which", SELECTED)
def test_lengths_that_follow_from_what_is_computed_are_found(which):
    (found,) = selections(GraphIndex(of_x(SELECTED[which], K, **NUMBERS, **POINT))).values()
    assert found.before == (("a", "mean") if which == "as long as a mean" else ("a",))
    assert found.by == ("Slice" if which == "as long as a mean" else "NonZero")


RANKS = {
    "values": [node("TopK", "a one", "y p", axis=1)],
    "indices": [node("TopK", "a one", "v y", axis=1)],
    "what is computed of each": [
        node("TopK", "a one", "v p", axis=1), node("Log", "v", "l"), node("Mul", "l half", "m"),
        node("Concat", "m l", "y", axis=0),
    ],
}  # fmt: skip


@pytest.mark.parametrize("which", RANKS)
def test_what_a_constant_count_picks_is_compared_before(which):
    model = of_x([node("Sigmoid", "x", "a"), *RANKS[which]], **NUMBERS)
    indices = "y" if which == "indices" else "p"
    assert selections(GraphIndex(model)) == {"y": Selection("TopK", ("a",), indices, 0, -2, fixed=True)}


@pytest.mark.parametrize(
    "after",
    [
        [node("TopK", "x one", "v p", axis=1), node("Sigmoid", "v", "y")],
        [node("Sigmoid", "x", "a"), node("TopK", "a one", "v p", axis=1), node("ReduceMean", "v", "y", keepdims=0)],
    ],
    ids=["of what is given", "summed up"],
)
def test_values_that_stay_where_they_are_are_compared_as_they_are(after):
    assert selections(GraphIndex(of_x(after, **NUMBERS))) == {}


def test_boxes_of_the_best_scores_are_compared_before_and_those_that_layers_refine_are_not():
    found = selections(GraphIndex(detector("best")))
    assert {name: (each.by, each.before, each.chosen, each.along) for name, each in found.items()} == {
        "top": ("TopK", ("score",), "at", -1),
        "at": ("TopK", ("score",), "at", -1),
        "found": ("TopK", ("each", "score"), "at", -1),
        "kind": ("TopK", ("score",), "at", -1),
    }
    refined = detector("best, refined")
    assert selections(GraphIndex(refined)).keys() == {"found"}
    assert unseen_layers(GraphIndex(refined)) == {}


def test_what_is_compared_is_called_the_same_in_any_graph():
    one = Selection("NonZero", ("a", "b"), "where", 2, 1)
    other = Selection("NonZero", ("a_dequantized", "b"), "where_8", 2, 1)
    assert list(one.tensors("y")) == list(other.tensors("y"))
    assert one.which("y") not in one.compared("y")
