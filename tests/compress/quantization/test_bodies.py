"""int8 inside branches and bodies: planned on what they read when they run, and put back with names of their own."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.quantization import fp8, int8
from pocketzoo.compress.quantization.bodies import Calls, bodies_of
from pocketzoo.plugins.plan_descriptions import describe_int8
from pocketzoo.plugins.targets import pocketzoo_targets
from pocketzoo.zoo.backends.onnxruntime.session import open_session
from pocketzoo.zoo.catalog.specs import Fp8Encoding
from pocketzoo.zoo.graphs.layer_precisions import float_layers, placed_layers

TARGETS = {target.name: target for target in pocketzoo_targets()}
SIZE, STEPS = 12, 5


def info(name: str, shape: object = None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def weight(name: str, seed: int, *shape: int) -> onnx.TensorProto:
    values = np.random.default_rng(seed).normal(size=shape or (SIZE, SIZE)) / SIZE**0.5
    return numpy_helper.from_array(values.astype(np.float32), name)


def constant(name: str, value: object) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value), name)


def model_of(nodes, initializers) -> onnx.ModelProto:
    ends = [info("x", ["n", SIZE])], [info("y", ["n", SIZE])]
    graph = helper.make_graph(nodes, "g", *ends, list(initializers))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made


def layer(name: str, x: str, out: str) -> onnx.NodeProto:
    return helper.make_node("MatMul", [x, name], [out])


# Whether the first value of the first row is above zero.
IS_POSITIVE = [
    helper.make_node("Slice", ["x", "begin", "end"], ["one"]),
    helper.make_node("Squeeze", ["one"], ["value"]),
    helper.make_node("Greater", ["value", "zero"], ["c"]),
]
BOUNDS = [constant("begin", np.array([0, 0])), constant("end", np.array([1, 1])), constant("zero", np.float32(0))]


def branches(*, own: bool = True, other: onnx.GraphProto | None = None) -> onnx.ModelProto:
    """Two branches with a layer each; the weights are their own, in a node, or those of the graph around them."""
    held = helper.make_node("Constant", [], ["b"], value=weight("b", 2))
    yes = helper.make_graph([layer("a", "x", "u")], "yes", [], [info("u")], [weight("a", 1)] if own else [])
    no = other or helper.make_graph([held, layer("b", "x", "v")], "no", [], [info("v")])
    chosen = helper.make_node("If", ["c"], ["y"], then_branch=yes, else_branch=no)
    return model_of([*IS_POSITIVE, chosen], BOUNDS if own else [*BOUNDS, weight("a", 1)])


def nested() -> onnx.ModelProto:
    """A branch whose layer's output is what a branch inside it reads."""
    deep = helper.make_graph([layer("d", "h", "w")], "deep", [], [info("w")], [weight("d", 3)])
    flat = helper.make_graph([helper.make_node("Neg", ["h"], ["z"])], "flat", [], [info("z")])
    inside = helper.make_node("If", ["big"], ["v"], then_branch=deep, else_branch=flat)
    nodes = [helper.make_node("Less", ["value", "limit"], ["big"]), layer("e", "x", "h"), inside]
    inner = helper.make_graph(nodes, "inner", [], [info("v")], [weight("e", 4), constant("limit", np.float32(-0.5))])
    yes = helper.make_graph([layer("a", "x", "u")], "yes", [], [info("u")], [weight("a", 1)])
    return model_of([*IS_POSITIVE, helper.make_node("If", ["c"], ["y"], then_branch=yes, else_branch=inner)], BOUNDS)


STATE = [info("i", [], TensorProto.INT64), info("go", [], TensorProto.BOOL), info("state")]
ON = helper.make_node("Identity", ["go"], ["on"])


def looped() -> onnx.ModelProto:
    """y becomes tanh(y W + x V), a number of times."""
    nodes = [
        layer("w", "state", "p"),
        layer("v", "x", "q"),
        helper.make_node("Cast", ["i"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Where", ["go", "number", "number"], ["count"]),
        helper.make_node("Sub", ["p", "count"], ["late"]),
        helper.make_node("Add", ["late", "count"], ["same"]),
        helper.make_node("Add", ["same", "q"], ["r"]),
        helper.make_node("Tanh", ["r"], ["next"]),
        ON,
    ]
    body = helper.make_graph(nodes, "body", STATE, [info("on", [], TensorProto.BOOL), info("next")], [weight("w", 5)])
    loop = helper.make_node("Loop", ["times", "", "x"], ["y"], body=body)
    return model_of([loop], [constant("times", np.array(STEPS)), weight("v", 6)])


def scanned() -> onnx.ModelProto:
    """y becomes tanh(y W + t) for each row t of a table; each is given back."""
    nodes = [
        layer("w", "state", "p"),
        helper.make_node("Add", ["p", "row"], ["r"]),
        helper.make_node("Tanh", ["r"], ["next"]),
        helper.make_node("Identity", ["next"], ["each"]),
    ]
    body = helper.make_graph(
        nodes, "body", [info("state"), info("row")], [info("next"), info("each")], [weight("w", 7)]
    )
    options = {"num_scan_inputs": 1, "scan_output_axes": [0]}
    scan = helper.make_node("Scan", ["x", "table"], ["y", "all"], body=body, **options)
    return model_of([scan], [weight("table", 8, STEPS, SIZE)])


KINDS = {
    "branches": (branches, {"a", "b"}),
    "weights around": (lambda: branches(own=False), {"a", "b"}),
    "nested": (nested, {"a", "e", "d"}),
    "loop": (looped, {"w", "v"}),
    "scan": (scanned, {"w"}),
}


def samples(seed: int = 0, count: int = 48) -> list[dict[str, np.ndarray]]:
    x = np.random.default_rng(seed).normal(size=(count, SIZE)).astype(np.float32)
    return [{"x": row[None]} for row in x]


def run(model: onnx.ModelProto, feeds) -> np.ndarray:
    session = open_session(model)
    return np.concatenate([session.run(["y"], feed)[0] for feed in feeds])


@pytest.mark.parametrize("activations", ["static", "dynamic"])
@pytest.mark.parametrize("target", ["cpu", "tensorrt-rtx"])
@pytest.mark.parametrize("kind", KINDS)
def test_layers_inside_are_in_int8_and_near(kind, target, activations):
    make, names = KINDS[kind]
    model = make()
    plan = int8.plan(model, Int8Config(activations=activations), samples())
    assert {decision.layer for decision in describe_int8(plan) if decision.precision} == names
    assert not [decision for decision in describe_int8(plan) if decision.why]
    made = int8.apply(model, plan, TARGETS[target])
    assert set(float_layers(model)) == names
    assert float_layers(made) == []
    assert len(list(placed_layers(made))) == len(list(placed_layers(model)))
    wanted, given = (run(each, samples(1)) for each in (model, made))
    assert 10 * np.log10((wanted**2).sum() / ((wanted - given) ** 2).sum()) > 25
    # Layers that are excluded are as they were, one by one and all together.
    for layers in ({min(names)}, names):
        back = int8.apply(model, int8.exclude(plan, layers), TARGETS[target])
        assert set(float_layers(back)) == layers
    np.testing.assert_allclose(run(back, samples(1)), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_is_called_with_what_the_formula_says(kind):
    """By hand: which branch runs, and the state at each pass."""
    model = KINDS[kind][0]()
    feeds = samples(2, 6)
    rows = [feed["x"] for feed in feeds]
    for body in bodies_of(model):
        seen = list(Calls(body, model, feeds))
        stored = {t.name: numpy_helper.to_array(t) for t in (*body.model.graph.initializer, *model.graph.initializer)}
        if body.node.op_type == "If":
            expected = [row for row in rows if (row[0, 0] > 0) == (body.attribute == "then_branch")]
            assert len(seen) == len(expected) > 0
            for call, row in zip(seen, expected, strict=True):
                np.testing.assert_array_equal(call["x"], row)
            continue
        states = []
        for row in rows:
            state = row
            for step in range(STEPS):
                states.append(state)
                added = row @ stored["v"] if kind == "loop" else stored["table"][step]
                state = np.tanh(state @ stored["w"] + added)
        np.testing.assert_allclose([call["state"] for call in seen], states, rtol=1e-5, atol=1e-5)


def test_a_branch_that_no_sample_reaches_is_left_by_name():
    model = branches()
    never = [{"x": np.abs(feed["x"])} for feed in samples()]
    plan = int8.plan(model, Int8Config(), never)
    assert plan.left == {"b": "it is inside a node of If: no calibration sample reaches it"}
    assert float_layers(int8.apply(model, plan, TARGETS["cpu"])) == ["b"]


def test_what_grows_from_pass_to_pass_is_left_by_name():
    grow = helper.make_node("Concat", ["state", "x"], ["next"], axis=0)
    outputs = [info("on", [], TensorProto.BOOL), info("next")]
    body = helper.make_graph([grow, layer("w", "x", "z"), ON], "body", STATE, outputs, [weight("w", 5)])
    loop = helper.make_node("Loop", ["times", "", "x"], ["all"], body=body)
    first = helper.make_node("Slice", ["all", "begin", "end"], ["y"])
    bounds = [constant("begin", np.array([0])), constant("end", np.array([1])), constant("times", np.array(STEPS))]
    plan = int8.plan(model_of([loop, first], bounds), Int8Config(), samples())
    assert plan.left == {"w": "it is inside a node of Loop: what it reads each time cannot be seen"}
    assert not plan.bodies


def test_new_names_are_nobody_elses():
    """Both branches call their weight alike, and the graph around them has what a body's new names would be."""
    twin = helper.make_graph([layer("a", "x", "w")], "no", [], [info("w")], [weight("a", 9)])
    model = branches(other=twin)
    taken = [constant(f"a_{part}", np.float32(0)) for part in ("quantized", "scale", "zero", "dequantized")]
    model.graph.initializer.extend(taken)
    model.graph.node.append(helper.make_node("Sum", [t.name for t in taken], ["others"]))
    plan = int8.plan(model, Int8Config(), samples())
    made = int8.apply(model, plan, TARGETS["tensorrt-rtx"])
    onnx.checker.check_model(made, full_check=True)
    wanted, given = (run(each, samples(1)) for each in (model, made))
    assert 10 * np.log10((wanted**2).sum() / ((wanted - given) ** 2).sum()) > 25
    assert int8.apply(model, plan, TARGETS["tensorrt-rtx"]) == made


def test_fp8_leaves_what_is_inside_by_name():
    model = nested()
    model.graph.node[-1].output[0] = "chosen"
    model.graph.node.append(layer("outer", "chosen", "y"))
    model.graph.initializer.append(weight("outer", 11))
    plan = int8.plan(model, Int8Config(), samples())
    made, chosen = fp8.apply(model, plan, Fp8Encoding(conv_channels=1, matmul_channels=1, kernel=9))
    inside = "it is inside a node, whose body stays in floats"
    assert {name for name, why in chosen.left.items() if why == inside} == {"a", "d", "e"}
    assert set(float_layers(made)) == {"a", "d", "e"}
