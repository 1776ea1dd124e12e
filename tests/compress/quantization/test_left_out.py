"""Whether ranges cut off hold on samples that reach further: planted ones, that all of a graph's answers hang on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.plans import Int8Plan
from pocketzoo.compress.quantization import int8
from pocketzoo.compress.quantization.calibration import observe
from pocketzoo.compress.quantization.left_out import LEAST, PART, beside_few, furthest_of, left_out
from pocketzoo.compress.quantization.plan_trial import Trial
from pocketzoo.plugins.targets import pocketzoo_targets
from pocketzoo.zoo.tasks.agreement import sqnr

CPU = next(target for target in pocketzoo_targets() if target.name == "cpu")
SAMPLES, PLACES = 40, 4096


def graph(*, largest: bool = True) -> onnx.ModelProto:
    """Eight channels that hardly mix: the largest value of each, or all of them."""
    generator = np.random.default_rng(0)
    weight = (np.eye(8) + 0.01 * generator.normal(size=(8, 8))).astype(np.float32)
    last = helper.make_node("GlobalMaxPool", ["c"], ["y"]) if largest else helper.make_node("Neg", ["c"], ["y"])
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), last]
    info = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes,
        "g",
        [info("x", TensorProto.FLOAT, ["n", 8, PLACES])],
        [info("y", TensorProto.FLOAT, ["n", 8, 1 if largest else PLACES])],
        [numpy_helper.from_array(weight[..., None], "w")],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def noise(count: int, seed: int, *peaks: float) -> np.ndarray:
    """Samples of values near zero; the last ones have one value that is as large as said in each channel."""
    values = np.random.default_rng(seed).normal(size=(count, 8, PLACES)).astype(np.float32)
    for i, peak in enumerate(peaks):
        values[count - 1 - i, :, 7] = peak
    return values


def kept(plan: int8.Int8Plan, samples: np.ndarray) -> float:
    made = int8.apply(graph(), plan, CPU)
    outputs = [
        onnxruntime.InferenceSession(each.SerializeToString()).run(None, {"x": samples})[0] for each in (made, graph())
    ]
    return sqnr(*outputs)


def test_what_samples_that_reach_far_are_told_by_is_not_cut_off():
    """One value in 4,096 is worth no wider steps by the error of all; and it is all that comes out."""
    calibration = noise(SAMPLES, 1, *np.linspace(20, 60, 20))
    plan = int8.plan(graph(), Int8Config(), [calibration])
    assert plan.ranges["x"].high == calibration.max()
    unseen = noise(8, 2, *np.full(8, 50.0))
    cut = int8.plan(graph(), Int8Config(ranges="mse"), [calibration])
    assert cut.ranges["x"].high < 50.0
    assert kept(cut, unseen) < 10.0
    assert kept(plan, unseen) > 30.0


@pytest.mark.parametrize("peak", [0.0, 6.0], ids=["none reaches further", "what is cut off is little"])
def test_ranges_stay_where_samples_that_reach_furthest_do_well(peak):
    calibration, model = noise(SAMPLES, 1, *np.full(20, peak)), graph(largest=False)
    plan = int8.plan(model, Int8Config(), [calibration])
    assert plan.ranges == int8.plan(model, Int8Config(), [calibration], refine=False).ranges
    assert plan.ranges["x"].high < calibration.max()


def test_a_rule_that_is_asked_for_is_followed():
    calibration = noise(SAMPLES, 1, *np.linspace(20, 60, 20))
    plan = int8.plan(graph(), Int8Config(ranges="mse"), [calibration])
    assert plan.ranges["x"].high < calibration.max()


def chosen(samples: np.ndarray, **config):
    seen = observe(graph(), ["x"], [samples[:5], samples[5:]])
    return left_out(graph(), [samples[:5], samples[5:]], seen, Int8Config(**config), lambda histograms, _: {
        name: histogram.range(Int8Config(ranges="minmax")) for name, histogram in histograms.items()
    })  # fmt: skip


def test_the_samples_that_reach_furthest_are_left_out_wherever_they_are():
    samples = noise(20, 3)
    for place, peak in ((2, 90.0), (11, 70.0), (17, 80.0), (5, 60.0)):
        samples[place, 0, 0] = peak
    found = chosen(samples)
    assert [each["x"].max() for each in found.furthest] == [90.0, 60.0, 70.0, 80.0]
    rest = np.delete(samples, (2, 5, 11, 17), 0)
    assert found.whole["x"].high == pytest.approx(rest.max())
    assert all(len(each["x"]) == 1 and (each["x"] == rest).all((1, 2)).any() for each in found.others)
    assert 2 <= len(found.others) <= 8


def test_few_samples_leave_none_out():
    assert chosen(noise(PART * LEAST - 1, 4)) is None
    assert chosen(noise(PART * LEAST, 4)) is not None
    assert chosen(noise(40, 4), ranges="minmax") is None


FAR = np.array([5.0, 1.0, 4.0, 1.0, 3.0, 1.0, 2.0, 1.0, 6.0, 1.0, 1.0, 1.0])


@pytest.mark.parametrize(
    ("ids", "gone"),
    [
        (None, [8, 0, 2]),
        (np.arange(12), [8, 0, 2]),  # each its own
        (np.zeros(12, int), [8, 0, 2]),  # one source has nothing that could be left out
        (np.repeat(np.arange(6), 2), [8, 9, 0, 1]),  # of 8 and 9 the mean is 3.5, of 0 and 1 it is 3, of 2 and 3 2.5
        (np.tile(np.arange(4), 3), [8, 0, 4]),
        (np.repeat(np.arange(2), 6), [0, 2, 4, 1, 3, 5]),  # the first reaches further in the mean
        (np.array([0] * 11 + [1]), [8, 0, 2]),  # one source has nearly all
        (np.zeros(5, int), [8, 0, 2]),  # of other samples
    ],
)
def test_whole_sources_are_left_out_where_they_are_known(ids, gone):
    found = furthest_of(FAR, ids, 3)
    assert found == gone
    if ids is not None and len(ids) == 12 and len(found) != 3:
        assert not set(ids[found]) & set(np.delete(ids, found))


def test_ranges_are_judged_on_samples_that_they_do_not_know():
    """The range of those left out is ten times as far: what was made of all of them looks as if it held."""
    samples = noise(40, 5)
    samples[::8] *= 10
    seen = observe(graph(), ["x"], [samples])
    found = left_out(graph(), [samples], seen, Int8Config(), lambda histograms, config: {
        name: histogram.range(config) for name, histogram in histograms.items()
    })  # fmt: skip
    plan = int8.plan(graph(), Int8Config(), [samples], refine=False)
    encode = partial(int8.apply, target=CPU)
    unknown = found.error(graph(), plan, encode, whole=True)
    known = sum(Trial(graph(), found.furthest, encode).noise(plan).values())
    assert unknown > 100 * known


@dataclass
class Sourced:
    x: np.ndarray
    groups: np.ndarray | None

    def __iter__(self):
        return ({"x": self.x[start : start + 8]} for start in range(0, len(self.x), 8))


@pytest.mark.parametrize(
    ("sources", "helps", "added"), [(2, True, 24), (2, False, 0), (3, True, 24), (4, True, 0), (1, True, 0)]
)
def test_shapes_are_put_beside_images_of_few_sources_where_a_source_left_out_says_so(sources, helps, added):
    samples = Sourced(np.random.default_rng(0).normal(size=(24, 3, 8, 8)).astype(np.float32), np.arange(24) % sources)
    counts = []

    def plan(calibrating):
        seen = {source for batch in [calibrating] for source in batch.groups}
        counts.append(len(calibrating.groups))
        more = any(source < 0 for source in seen)
        # In whole numbers all is lost, in float nothing is: that of the two which is to win has no layers in int8.
        return EMPTY if more == helps else replace(EMPTY, layers=("w",))

    def encode(model, plan):
        return broken(model) if plan.layers else model

    found, choice = beside_few(images_graph(), samples, plan, encode)
    assert sum(len(batch["x"]) for batch in found) == 24 + added
    if sources in (1, 4):
        assert choice is None
        assert not counts
    else:
        assert (choice.made, choice.used) == (24, helps)
        assert counts[1] == 2 * counts[0]


EMPTY = Int8Plan()


def images_graph() -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    made = helper.make_graph(
        [helper.make_node("Mul", ["x", "two"], ["y"])], "g", [info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [info("y", TensorProto.FLOAT, ["n", 3, 8, 8])], [numpy_helper.from_array(np.float32(2), "two")],
    )  # fmt: skip
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def broken(model: onnx.ModelProto) -> onnx.ModelProto:
    other = onnx.ModelProto()
    other.CopyFrom(model)
    other.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float32(1), "two"))
    return other
