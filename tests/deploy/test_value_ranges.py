"""What samples show of tensors: against numpy, in branches and loops too."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.deploy.half_precision_export import compare_outputs, half
from pocketzoo.deploy.value_ranges import seen_values
from pocketzoo.plugins.targets import pocketzoo_targets

RTX = next(t for t in pocketzoo_targets() if t.name == "tensorrt-rtx")
FLOAT = TensorProto.FLOAT
N = helper.make_node


def value(name, shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes, extra=(), opset=17, **constants):
    stored = [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()]
    graph = helper.make_graph(nodes, "g", [value("x", ["batch", 4]), *extra], [value("y", [None, None])], stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(made)
    return made


def branch(nodes, out):
    return helper.make_graph(nodes, out, [], [value(out, [None, None])])


X = np.array([[1, -3, 0.5, 2], [0, 1e-3, -1, 0.25]], np.float32)


def test_magnitude_size_and_rounding_are_those_of_numpy():
    graph = model([N("Mul", ["x", "c"], ["a"]), N("Relu", ["a"], ["y"])], c=np.float32(1.1))
    seen = seen_values(graph, [{"x": X}], "fp16")
    a = X * np.float32(1.1)
    error = (a - a.astype(np.float16).astype(np.float32)).astype(np.float64)
    assert seen["a"].largest == pytest.approx(3.3)
    assert seen["a"].size == 4  # of one sample
    ratio = np.square(a.astype(np.float64)).sum() / np.square(error).sum()
    assert seen["a"].rounding == pytest.approx(10 * np.log10(ratio))
    assert seen["x"].largest == 3.0
    assert seen["y"].largest == pytest.approx(2.2)


def test_what_is_infinite_counts_for_nothing():
    graph = model([N("Log", ["z"], ["l"]), N("Max", ["l", "x"], ["y"])], z=np.zeros(4, np.float32))
    seen = seen_values(graph, [{"x": X}], "fp16")
    assert seen["l"].largest == 0.0
    assert seen["y"].largest == 3.0  # of -3, which is more than none


def asked(opset=17):
    """An If by an input; both branches call theirs alike."""
    own = [
        branch([N("Mul", ["x", c], ["inner"]), N(op, ["inner"], [f"o{op}"])], f"o{op}")
        for op, c in (("Neg", "big"), ("Abs", "small"))
    ]
    return model(
        [N("If", ["given"], ["y"], then_branch=own[0], else_branch=own[1])], [value("given", [], TensorProto.BOOL)],
        opset=opset, big=np.float32(1e5), small=np.float32(2),
    )  # fmt: skip


@pytest.mark.parametrize("given", [True, False])
def test_the_branch_that_ran_is_seen_and_of_the_other_nothing_is_known(given):
    seen = seen_values(asked(), [{"x": X, "given": np.array(given)}], "fp16")
    found = {name: each.largest for name, each in seen.items() if name.startswith("inner")}
    assert list(found.values()) == [pytest.approx(3e5 if given else 6.0)]


def loop(opset):
    """x doubled four times."""
    body = helper.make_graph(
        [N("Mul", ["h", "two"], ["h_out"]), N("Identity", ["go"], ["go_out"])], "body",
        [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("h", ["batch", 4])],
        [value("go_out", [], TensorProto.BOOL), value("h_out", ["batch", 4])],
    )  # fmt: skip
    return model(
        [N("Loop", ["turns", "yes", "x"], ["y"], body=body)], opset=opset,
        turns=np.array(4), yes=np.array(True), two=np.float32(2),
    )  # fmt: skip


@pytest.mark.parametrize("opset", [17, 18])
def test_every_turn_of_a_loop_is_seen(opset):
    seen = seen_values(loop(opset), [{"x": X[:1]}, {"x": X[1:]}], "fp16")
    assert seen["h_out"].largest == 48.0
    assert seen["h"].largest == 24.0
    assert seen["h_out"].size == 4


@pytest.mark.parametrize("given", [True, False])
def test_branches_become_halves_where_they_were_seen(given):
    graph, samples = asked(), [{"x": X, "given": np.array(given)}]
    plan, made = half(graph, RTX, "fp16", samples)
    onnx.checker.check_model(made, full_check=True)
    assert set(plan.nodes_of_floats) == {"inner", "oAbs"} | set()  # the constant of the other is beyond 16 bits
    assert len(plan.in_float32) == 2
    ratios = compare_outputs(graph, made, samples)
    assert ratios is not None
    assert min(ratios.values()) > 60


def test_bodies_of_loops_become_halves():
    graph = loop(17)
    plan, made = half(graph, RTX, "fp16", [{"x": X}])
    assert plan.nodes_of_floats == ("h_out",)
    assert plan.in_float32 == {}
    body = next(node for node in made.graph.node if node.op_type == "Loop").attribute[0].g
    assert [node.op_type for node in body.node] == ["Cast", "Mul", "Cast", "Identity"]
    ratios = compare_outputs(graph, made, [{"x": X}])
    assert ratios is not None
    assert min(ratios.values()) > 60


def test_a_logarithm_of_what_is_rounded_is_kept_in_32_bits():
    """1 + x is 1 for an x of 1e-4 in 16 bits, whose logarithm is 0."""
    graph = model([N("Mul", ["x", "c"], ["m"]), N("Add", ["m", "one"], ["a"]), N("Log", ["a"], ["y"])],
                  c=np.float32(1e-4), one=np.float32(1))  # fmt: skip
    samples = [{"x": np.abs(X)}]
    plan, made = half(graph, RTX, "fp16", samples)
    assert "of the error" in " ".join(plan.in_float32.values())
    ratios = compare_outputs(graph, made, samples)
    assert ratios is not None
    assert ratios["y"] > 40
