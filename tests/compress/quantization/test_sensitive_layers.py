"""Which layers a plan leaves in float by itself: on errors that add up exactly, and on a network that has one such."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.plans import Int8Plan
from pocketzoo.compress.quantization import int8
from pocketzoo.compress.quantization.plan_trial import Trial
from pocketzoo.compress.quantization.sensitive_layers import TRIALS, neighbors, power, sensitive_layers
from pocketzoo.plugins.targets import pocketzoo_targets
from pocketzoo.zoo.tasks.agreement import sqnr

CPU = next(target for target in pocketzoo_targets() if target.name == "cpu")


class Additive:
    """Layers whose errors add up, by output; counts how often it is asked."""

    def __init__(self, **layers: dict[str, float]) -> None:
        self.layers, self.asked = layers, 0

    def __call__(self, floats) -> dict[str, float]:
        self.asked += 1
        outputs = next(iter(self.layers.values()))
        return {o: sum(e[o] for name, e in self.layers.items() if name not in floats) for o in outputs}

    def found(self, **costs: float) -> dict[str, str]:
        return sensitive_layers({name: costs.get(name, 1.0) for name in self.layers}, self)


def many(count: int, each: float, outputs: str = "y") -> dict[str, dict[str, float]]:
    return {f"l{i}": dict.fromkeys(outputs, each) for i in range(count)}


def test_what_is_fair_stays_as_it_is_and_costs_one_trial():
    noise = Additive(**many(8, power(20.0) / 8.0001))
    assert noise.found() == {}
    assert noise.asked == 1


def test_the_one_layer_to_blame_is_left_in_float():
    noise = Additive(**many(9, power(40.0)), bad={"y": 0.2})
    found = noise.found()
    assert set(found) == {"bad"}
    assert "of the error of output 'y'" in found["bad"]


def test_every_output_counts():
    """Each is spoiled by a layer of its own; the first has a hundred times the error of the second."""
    noise = Additive(**many(9, power(40.0), "ab"), one={"a": 3.0, "b": 0.0}, two={"a": 0.0, "b": 0.03})
    assert set(noise.found()) == {"one", "two"}
    assert noise(noise.found())["b"] <= power(26.0)


def test_of_some_that_are_equally_bad_the_cheap_ones_go_first():
    noise = Additive(**many(8, power(50.0)), dear={"y": 0.0195}, cheap={"y": 0.0195}, other={"y": 0.0195})
    assert set(noise.found(dear=30.0)) == {"cheap", "other"}  # with all 26 dB would be had, for most of the time


def test_what_would_leave_most_in_float_is_not_done():
    noise = Additive(**many(10, 0.05))
    assert noise.found() == {}


@pytest.mark.parametrize("count", [1, 4])
def test_noise_where_there_is_no_signal_leaves_nothing_in_float(count):
    """Its power over that of the signal is infinite, with any layer in float that leaves another in int8."""
    assert not Additive(**many(count, float("inf"))).found()


def test_layers_that_come_after_one_another_are_tried_together_where_there_are_many():
    groups = neighbors([f"l{i}" for i in range(1000)])
    assert len(groups) <= TRIALS
    assert [name for group in groups for name in group] == [f"l{i}" for i in range(1000)]
    noise = Additive(**many(400, power(60.0)), bad={"y": 0.5})
    assert "bad" in noise.found()
    assert noise.asked < 3 * TRIALS


@pytest.mark.parametrize("wrong", [1.5, 4.0])
def test_errors_that_add_up_to_more_than_their_sum_are_measured(wrong):
    class More(Additive):
        def __call__(self, floats):
            noise = super().__call__(floats)
            return {o: value * (wrong if len(floats) < len(self.layers) - 1 else 1.0) for o, value in noise.items()}

    noise = More(**many(12, power(38.0)), bad={"y": 0.3}, half={"y": 0.001})
    found = noise.found()
    assert "bad" in found
    assert noise(found)["y"] <= power(17.0)


@pytest.mark.parametrize(("better", "expected"), [(0.6, {"l0", "l1", "l2"}), (0.95, set())])
def test_where_errors_do_not_add_up_the_best_of_what_is_measured_before_the_end_is_taken(better, expected):
    """Outputs that are as bad whichever layers are in float, until errors before them are small enough."""
    layers = [f"l{i}" for i in range(10)]

    def alone(floats) -> float | None:
        (single,) = set(layers) - set(floats) if len(floats) == len(layers) - 1 else (None,)
        return None if single is None else 0.2 if single in ("l0", "l1", "l2") else 0.001

    def outputs(floats) -> dict[str, float]:
        return {"y": alone(floats) or 0.03}

    def before(floats) -> dict[str, float]:
        return {"y": alone(floats) or 0.02 * better ** len({"l0", "l1", "l2"}.intersection(floats))}

    found = sensitive_layers(dict.fromkeys(layers, 1.0), outputs, before)
    assert set(found) == expected
    assert all("of the error of output 'y'" in why for why in found.values())


@pytest.mark.parametrize("end", ["Softmax", "Sigmoid", "Tanh"])
def test_errors_are_seen_before_what_hides_them(end):
    info, weight = helper.make_tensor_value_info, np.random.default_rng(2).normal(size=(8, 4)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["scores"]),
        helper.make_node(end, ["scores"], ["likely"]),
        helper.make_node("Reshape", ["likely", "shape"], ["y"]),
    ]
    constants = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.array([-1, 2, 2]), "shape")]
    outputs = [info("y", TensorProto.FLOAT, ["n", 2, 2])]
    graph = helper.make_graph(nodes, "g", [info("x", TensorProto.FLOAT, ["n", 8])], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = np.random.default_rng(3).normal(0, 9, (32, 8)).astype(np.float32)

    def doubled(float_model: onnx.ModelProto, plan: Int8Plan) -> onnx.ModelProto:
        copied = onnx.ModelProto()
        copied.CopyFrom(float_model)
        copied.graph.initializer[0].CopyFrom(numpy_helper.from_array(2 * weight, "w"))
        return copied

    trial = Trial(model, [{"x": x}], doubled)
    assert trial.hides is (end != "Tanh")
    assert trial.hidden == {"y": "scores" if trial.hides else "y"}
    if trial.hides:
        assert trial.noise(Int8Plan(), hidden=True)["y"] == pytest.approx(1.0)  # all of it
    assert trial.noise(Int8Plan())["y"] < 0.5


def model() -> onnx.ModelProto:
    """A layer whose input spans four decades before a logarithm, as where sound is read; then others."""
    generator = np.random.default_rng(0)
    constants = {
        "bank": np.abs(generator.normal(size=(16, 1, 1, 1))).astype(np.float32),
        "tiny": np.float32(1e-4),
        **{f"w{i}": generator.normal(0, 0.25, (16, 16, 1, 1)).astype(np.float32) for i in range(6)},
    }
    nodes = [
        helper.make_node("Conv", ["x", "bank"], ["power"]),
        helper.make_node("Abs", ["power"], ["positive"]),
        helper.make_node("Add", ["positive", "tiny"], ["above"]),
        helper.make_node("Log", ["above"], ["a0"]),
    ]
    for i in range(6):
        nodes += [helper.make_node("Conv", [f"a{i}", f"w{i}"], [f"b{i}"])]
        nodes += [helper.make_node("Relu", [f"b{i}"], [f"a{i + 1}"])] if i < 5 else []
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("b5", TensorProto.FLOAT, ["n", 16, 8, 8])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


X = (10.0 ** np.random.default_rng(1).uniform(-4, 1, (24, 1, 8, 8))).astype(np.float32)


def kept(graph: onnx.ModelProto, plan: int8.Int8Plan) -> float:
    outputs = [
        onnxruntime.InferenceSession(each.SerializeToString()).run(None, {"x": X[16:]})[0]
        for each in (int8.apply(graph, plan, CPU), graph)
    ]
    return sqnr(*outputs)


def test_a_plan_leaves_in_float_what_spoils_the_output_and_says_so():
    graph = model()
    plan = int8.plan(graph, Int8Config(), [{"x": X[:16]}])
    assert set(plan.left) == {"bank"}
    assert "error of output 'b5'" in plan.left["bank"]
    assert set(plan.layers) == {f"w{i}" for i in range(6)}
    assert "x" not in plan.ranges
    assert kept(graph, plan) > 24.0
    whole = int8.plan(graph, Int8Config(), [{"x": X[:16]}], refine=False)
    assert not whole.left
    assert kept(graph, whole) < 16.0


def test_a_budget_is_searched_for_instead():
    assert not int8.plan(model(), Int8Config(min_sqnr=12.0), [{"x": X[:16]}]).left
