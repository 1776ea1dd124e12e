from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.quantization import int8
from pocketzoo.compress.quantization.precision.faster_in_float import (
    LEAST_GAIN,
    MOST_WEIGHTS,
    LayerTimes,
    _runs,
    choose,
    tune,
)
from pocketzoo.measure.layer_times import CpuTimer, timer_of
from pocketzoo.plugins.compressors import pocketzoo_compressors
from pocketzoo.plugins.targets import pocketzoo_targets
from pocketzoo.zoo.graphs.layer_precisions import float_layers

INT8 = next(each for each in pocketzoo_compressors() if each.name == "int8")
TARGETS = {target.name: target for target in pocketzoo_targets()}
CPU, NVIDIA = TARGETS["cpu"], TARGETS["tensorrt"]
ROUNDS = 20


@dataclass
class Device:
    """A machine that runs layers one after the other, in known times; each change of precision takes ``change`` ms."""

    layers: list[LayerTimes]
    change: float = 0.0
    rest: float = 0.0
    noise: float = 0.0  # of the times, as a fraction
    seed: int = 0
    graphs: int = 0  # that were timed

    def latency(self, floats: frozenset[str]) -> float:
        kinds = [True, *(each.layer in floats for each in self.layers), True]  # what comes and goes are floats
        own = sum(each.float32 if each.layer in floats else each.int8 for each in self.layers)
        return self.rest + own + self.change * int(np.abs(np.diff(np.array(kinds, int))).sum())

    def time(self, candidates):
        self.graphs += len(candidates)
        generator = np.random.default_rng([self.seed, self.graphs])
        slow = 1 + self.noise * generator.exponential(size=(ROUNDS, 1))  # of a round, for all in it alike
        own = 1 + self.noise / 4 * generator.normal(size=(ROUNDS, len(candidates)))
        return list((np.array([self.latency(floats) for floats in candidates]) * slow * own).T)


def of(*times: tuple[float, float], weights: int = 1) -> list[LayerTimes]:
    """Layers of these milliseconds in int8 and in float, and one that has most of the weights."""
    layers = [LayerTimes(layer=f"l{i}", int8=a, float32=b, weights=weights) for i, (a, b) in enumerate(times)]
    return [*layers, LayerTimes(layer="last", int8=0.3, float32=0.9, weights=1000)]


STEPS = [(0.3, 0.1), (0.1, 0.3)] * 6  # every second one is faster in float


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("layers", "change", "expected"),
    [
        (of((0.9, 0.3), (0.1, 0.3)), 0.01, {"l0"}),
        (of((0.9, 0.3), (0.3, 0.2), (0.1, 0.3)), 0.01, {"l0", "l1"}),
        (of((0.9, 0.3), (0.1, 0.12), (0.1, 0.3)), 0.01, {"l0"}),
        (of((0.1, 0.3), (0.5, 0.1), (0.2, 0.22), (0.5, 0.1), (0.1, 0.3)), 0.05, {"l1", "l2", "l3"}),
        (of(*STEPS), 0.01, {f"l{i}" for i in range(0, 12, 2)}),
        (of((0.1, 0.3), (0.3, 0.2), (0.1, 0.3)), 0.2, set()),  # two changes take more than it gains
        (of((0.1, 0.3), (0.2, 0.3)), 0.01, set()),
        (of((0.40, 0.38), (0.1, 0.3)), 0.0, set()),  # 20 us
        (of((2.06, 2.0), (3.0, 5.0)), 0.0, set()),  # 60 us, and 1%
    ],
)
def test_runs_that_are_faster_in_float_with_their_borders_are_found(layers, change, expected, seed):
    device = Device(layers, change=change, noise=0.02, seed=seed)
    assert choose(layers, device.time) == expected


def test_layers_with_many_weights_stay_in_int8():
    layers = of((0.9, 0.3), (0.1, 0.3), weights=10)
    heavy = [replace(layers[0], weights=200), *layers[1:]]
    assert choose(layers, Device(layers).time) == {"l0"}
    assert not choose(heavy, Device(heavy).time)


TIMES = st.floats(0.01, 2.0)


@given(st.lists(st.tuples(TIMES, TIMES), min_size=1, max_size=10), st.floats(0, 0.3), st.integers(0, 1000))
def test_what_is_chosen_is_faster_and_small(times, change, seed):
    layers = of(*times, weights=30)
    device = Device(layers, change=change, rest=0.1, noise=0.02, seed=seed)
    chosen = choose(layers, device.time)
    if chosen:
        assert device.latency(chosen) < (1 - LEAST_GAIN / 2) * device.latency(frozenset())
        assert sum(each.weights for each in layers if each.layer in chosen) <= MOST_WEIGHTS * sum(
            each.weights for each in layers
        )
    assert device.graphs <= 40


@given(st.lists(st.integers(-20, 20), max_size=12))
def test_runs_are_those_that_no_other_betters(gains):
    """The greatest sum of adjacent layers, by trying all, is the first run; others overlap with no run before them."""
    layers = of(*((2.0 + gain / 10, 2.0) for gain in gains), weights=0)
    sums = [sum(gains[a:b]) for a in range(len(gains)) for b in range(a + 1, len(gains) + 1)]
    runs = _runs(layers)
    least = 0.005 * sum(each.int8 for each in layers)
    if max(sums, default=0) / 10 > least + 1e-9:
        assert sum(each.gain for each in runs[0]) == pytest.approx(max(sums) / 10)
    names = [each.layer for run in runs for each in run]
    assert len(names) == len(set(names))
    assert all(run[0].gain > 0 and run[-1].gain > 0 for run in runs)


def test_the_same_graph_twice_is_no_gain():
    layers = of((0.1, 1.0), (0.5, 0.1), (0.1, 1.0))
    for seed in range(20):
        equal = Device(layers, change=0.2, noise=0.1, seed=seed)  # 0.4 ms for two changes, 0.4 ms gained
        assert not choose(layers, equal.time)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """Four convolutions on 12 x 12 pixels, whose constants have no names of a module."""
    generator, nodes, constants, last = np.random.default_rng(0), [], [], "x"
    for i, (inputs, outputs, group) in enumerate([(3, 8, 1), (8, 8, 8), (8, 12, 1), (12, 12, 12)]):
        weight = generator.normal(size=(outputs, inputs // group, 3, 3)).astype(np.float32)
        constants.append(numpy_helper.from_array(weight, f"onnx::Conv_{i}"))
        nodes.append(helper.make_node("Conv", [last, f"onnx::Conv_{i}"], [f"c{i}"], f"n{i}", pads=[1] * 4, group=group))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [last := f"r{i}"], f"m{i}"))
    value = [helper.make_tensor_value_info(n, 1, ["N", c, 12, 12]) for n, c in (("x", 3), (last, 12))]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def samples() -> list[np.ndarray]:
    return [np.random.default_rng(1).normal(size=(4, 3, 12, 12)).astype(np.float32)]


@pytest.fixture(scope="module")
def plan(model, samples):
    return int8.plan(model, Int8Config(), samples, refine=False)


def test_a_target_has_what_is_faster_in_float_and_others_do_not(model, plan):
    first = plan.layers[0]
    tuned = replace(plan, faster={"cpu": {first: "why"}})
    assert float_layers(int8.apply(model, tuned, CPU)) == [first]
    assert int8.apply(model, tuned, CPU) == int8.apply(model, int8.exclude(plan, [first]), CPU)
    assert int8.apply(model, tuned, NVIDIA) == int8.apply(model, plan, NVIDIA)


def test_it_is_kept_in_the_bundle_and_told(plan):
    first = plan.layers[0]
    tuned = replace(plan, faster={"cpu": {first: "why"}})
    from pocketzoo.core.typed import to_plain

    assert INT8.read_plan(to_plain(tuned), plan.tensors) == tuned
    told = {each.layer: each for each in INT8.decisions(tuned)}
    assert told[first].floats == {"cpu": "why"}
    assert "float32 for cpu" in told[first].what
    assert not any(each.floats for each in told.values() if each.layer != first)


class Timer(CpuTimer):
    """Says of layers what it was told to; graphs run here."""

    def __init__(self, float32: dict[str, float], quantized: dict[str, float]) -> None:
        self.times = [float32, quantized]

    def layers(self, graph: Path, original: Path, x):
        return self.times[graph != original]


def test_a_graph_that_int8_makes_faster_in_each_layer_is_not_timed(model, plan, samples, monkeypatch):
    timer = Timer(dict.fromkeys(plan.layers, 2.0), dict.fromkeys(plan.layers, 1.0))
    monkeypatch.setattr(timer, "open", None)  # calling it would fail
    assert tune(model, replace(plan, faster={"cpu": {"old": ""}}), {"x": samples[0][:1]}, CPU, timer).faster == {}


def test_nothing_known_of_layers_changes_nothing(model, plan, samples):
    assert tune(model, plan, {"x": samples[0][:1]}, CPU, Timer({}, {})) == plan


def test_layers_are_timed_by_their_names_in_both_graphs(model, plan, samples, tmp_path):
    onnx.save(model, tmp_path / "float.onnx")
    onnx.save(int8.apply(model, plan, CPU), tmp_path / "int8.onnx")
    for graph in ("float.onnx", "int8.onnx"):
        times = CpuTimer().layers(tmp_path / graph, tmp_path / "float.onnx", {"x": samples[0][:1]})
        assert set(times) == set(plan.layers)
        assert all(time >= 0 for time in times.values())


def test_only_targets_whose_kernels_run_here_are_timed():
    assert timer_of(CPU) is not None
    assert [timer_of(TARGETS[name]) for name in ("openvino", "cuda")] == [None, None]


def test_a_config_turns_it_off(model, plan, samples):
    config, x = Int8Config(only_faster=False), {"x": samples[0][:1]}
    assert INT8.tune(model, plan, config, x, CPU, Timer({}, {})) is plan
