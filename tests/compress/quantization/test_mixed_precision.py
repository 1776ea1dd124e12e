from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import onnx
import pytest
from feeds import only
from onnx import helper, numpy_helper

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.plans import Int8Plan
from pocketzoo.compress.quantization import int8, mixed_precision
from pocketzoo.compress.quantization.calibration import one_by_one
from pocketzoo.compress.quantization.mixed_precision import (
    LEAST,
    FloatEffect,
    _each,
    float_effects,
    neighbors,
    search,
)
from pocketzoo.core.arrays import first
from pocketzoo.plugins.compressors import pocketzoo_compressors
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner

INT8 = next(each for each in pocketzoo_compressors() if each.name == "int8")


@pytest.fixture
def samples(batches):
    return batches((3, 10, 10), 16)


def spoilt(model: onnx.ModelProto, layer: str) -> onnx.ModelProto:
    """A layer that int8 cannot hold: in each channel one weight dwarfs the others, and meets inputs that are zero."""
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    for tensor in twin.graph.initializer:
        if tensor.name == f"{layer}.weight":
            weight = numpy_helper.to_array(tensor).copy()
            weight[:, 0] = 0
            weight[:, 0, 0, 0] = 300 * np.abs(weight).max()
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    return twin


@pytest.fixture
def plain(graphs):
    """Three convolutions, the second spoilt; channel 0 of what it reads is always zero."""
    model = spoilt(graphs["plain"], "b")
    for tensor in model.graph.initializer:
        if tensor.name in ("a.weight", "a.bias"):
            value = numpy_helper.to_array(tensor).copy()
            value[0] = 0
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return model


@pytest.mark.parametrize("name", ["residual", "depthwise", "concat", "tokens", "gates"])
def test_a_plan_without_a_layer_is_the_plan_that_skips_it(name, graphs, samples, cpu):
    # What is smoothed, and what errs less as it comes, hangs on all layers together.
    config = Int8Config(ranges="minmax", smooth=False, activations="static")
    whole = int8.plan(graphs[name], config, samples)
    for layer in whole.layers:
        less = int8.exclude(whole, [layer])
        wanted = int8.plan(graphs[name], replace(config, skip=(layer,)), samples)
        assert (less.layers, less.excluded) == (wanted.layers, (layer,))
        assert int8.with_needed_ranges(graphs[name], less).ranges == wanted.ranges
        one, other = (
            int8.apply(graphs[name], plan, cpu).SerializeToString(deterministic=True) for plan in (less, wanted)
        )
        assert one == other


def test_the_spoilt_layer_is_worth_most(plain, samples, cpu, tmp_path):
    plan = int8.plan(plain, Int8Config(), samples)
    found = float_effects(INT8, plain, plan, samples, cpu, tmp_path)
    assert {e.layer for e in found} == set(plan.layers)
    assert max(found, key=lambda e: e.gained).layer == "b"
    assert [e.worth for e in found] == sorted((e.worth for e in found), reverse=True)
    assert "ms" in str(found[0])


def test_what_does_not_run_here_is_costed_by_its_work(plain, samples, nvidia, tmp_path):
    found = float_effects(INT8, plain, int8.plan(plain, Int8Config(), samples), samples, nvidia, tmp_path)
    assert sum(e.lost for e in found) == pytest.approx(1.0)
    assert all(e.milliseconds is None for e in found)


def test_the_fewest_layers_in_order_that_are_enough(plain, samples, cpu, tmp_path, monkeypatch):
    """``search`` against trying every number of layers."""
    plan = int8.plan(plain, Int8Config(), samples)
    order = [FloatEffect(layer=name, gained=1.0, lost=0.0) for name in plan.layers]
    monkeypatch.setattr("pocketzoo.compress.quantization.mixed_precision.float_effects", lambda *_: order)
    for needed in range(len(order) + 2):
        tried = []

        def enough(graph, needed=needed, tried=tried):
            constants = onnx.load(graph).graph.initializer
            tried.append(sum(t.name.endswith("weight") for t in constants))  # the others are called ..._quantized
            return tried[-1] >= needed

        found = search(INT8, plain, plan, samples, cpu, enough, tmp_path)
        if needed > len(order):
            assert found is None
        else:
            assert [e.layer for e in found[1]] == list(plan.layers[:needed])
            assert found[0].layers == plan.layers[needed:]
        assert len(tried) <= 3 * len(order)
    assert list(tmp_path.iterdir()) == []


def test_layers_that_are_not_needed_after_all_are_given_back(plain, samples, cpu, tmp_path, monkeypatch):
    """The last in the order is needed, and those before it are not: only one stays in float."""
    plan = int8.plan(plain, Int8Config(), samples)
    order = [FloatEffect(layer=name, gained=g, lost=0.0) for g, name in enumerate(reversed(plan.layers), -1)]
    monkeypatch.setattr("pocketzoo.compress.quantization.mixed_precision.float_effects", lambda *_: order)
    last = sorted(order, key=lambda e: e.gained <= 0)[-1].layer

    def enough(graph):
        return f"{last}.weight" in {t.name for t in onnx.load(graph).graph.initializer}

    found = search(INT8, plain, plan, samples, cpu, enough, tmp_path)
    assert [e.layer for e in found[1]] == [last]
    assert set(found[0].layers) == set(plan.layers) - {last}


def test_leaving_the_worst_layer_in_float_reaches_the_sqnr(plain, samples, cpu, tmp_path):
    plan = int8.plan(plain, Int8Config(), samples)
    onnx.save(plain, tmp_path / "float.onnx")
    x = np.concatenate(samples)

    def sqnr(graph):
        with OnnxRunner(tmp_path / "float.onnx") as a, OnnxRunner(graph) as b:
            wanted, given = only(a, x), only(b, x)
        return 10 * np.log10(np.square(wanted).sum() / np.square(wanted - given).sum())

    int8_graph = tmp_path / "int8.onnx"
    onnx.save(int8.apply(plain, plan, cpu), int8_graph)
    goal = sqnr(int8_graph) + 6
    found = search(INT8, plain, plan, samples, cpu, lambda graph: sqnr(graph) >= goal, tmp_path)
    assert found is not None
    assert "b" not in found[0].layers
    onnx.save(int8.apply(plain, found[0], cpu), int8_graph)
    assert sqnr(int8_graph) >= goal


def test_what_is_lost_is_the_share_that_a_layer_in_float_takes_longer(plain, samples, cpu, tmp_path, monkeypatch):
    plan = int8.plan(plain, Int8Config(), samples)
    times = {"full.onnx": 2.0, "one.onnx": 3.0}
    monkeypatch.setattr(
        "pocketzoo.compress.quantization.mixed_precision.median_milliseconds",
        lambda graphs, x, seconds: [times[graph.name] for graph in graphs],
    )
    found = float_effects(INT8, plain, plan, samples, cpu, tmp_path)
    assert [(e.lost, e.milliseconds) for e in found] == [(0.5, 1.0)] * len(plan.layers)
    assert [e.worth for e in found] == [e.gained / 0.5 for e in found]


def test_worth_is_what_is_gained_for_what_can_be_told_from_chance():
    assert FloatEffect(layer="a", gained=3.0, lost=0.5).worth == 6.0
    assert (
        FloatEffect(layer="a", gained=3.0, lost=-0.1).worth
        == FloatEffect(layer="a", gained=3.0, lost=0.0).worth
        == 3.0 / LEAST
    )
    assert str(FloatEffect(layer="a", gained=3.0, lost=0.25)) == "+3.00 dB for 25.0% of the MACs"
    assert str(FloatEffect(layer="a", gained=-1.0, lost=0.25, milliseconds=0.5)) == "-1.00 dB for +0.500 ms"


@pytest.fixture(scope="module")
def two() -> onnx.ModelProto:
    """A graph with two outputs: what it reads, and the negative of that."""
    x, *outputs = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 1]) for name in "xab")
    nodes = [helper.make_node("Identity", ["x"], ["a"]), helper.make_node("Neg", ["x"], ["b"])]
    graph = helper.make_graph(nodes, "g", [x], outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("sizes", "count", "taken", "read"),
    [
        ((4, 4, 4), 16, 12, 3),
        ((4, 4, 4), 12, 12, 3),
        ((4, 4, 4), 8, 8, 2),
        ((4, 4, 4), 5, 5, 2),
        ((9, 1), 1, 1, 1),
        ((0, 3), 2, 2, 2),
        ((), 3, 0, 0),
    ],
)
def test_the_first_samples_are_taken_and_no_more_are_read(sizes, count, taken, read, two):
    """Those that follow may be images still to be decoded, or without an end."""
    given, opened = np.arange(sum(sizes) * 2, dtype=np.float32).reshape(-1, 2), []

    def batches():
        for batch in np.split(given, np.cumsum(sizes)[:-1]) if sizes else ():
            opened.append(len(batch))
            yield batch

    rows = [first(row) for row in islice(one_by_one(two, batches()), count)]
    assert [row.shape for row in rows] == [(1, 2)] * taken
    np.testing.assert_array_equal(np.concatenate([np.empty((0, 2)), *rows]), given[:taken])
    assert len(opened) == read


def test_what_is_measured_is_bounded():
    assert (mixed_precision.GIVEN_BACK, mixed_precision.SAMPLES) == (16, 16)
    assert (mixed_precision.SECONDS, mixed_precision.LEAST) == (0.06, 0.002)


class Watched:
    """A progress that notes what it follows."""

    def __init__(self) -> None:
        self.tracked: list[tuple[str, int | None]] = []

    def track(self, items, label, total=None):
        self.tracked.append((label, total))
        yield from items

    def say(self, text: str) -> None:
        raise AssertionError(text)


@pytest.mark.parametrize(
    ("noise", "left", "gained"),
    [
        (1.0, 0.1, 10.0),
        (0.5, 1.0, -3.0103),
        (0.25, 0.25, 0.0),
        (np.inf, 0.5, np.inf),
        (0.5, 0.0, np.inf),
        (0.5, np.inf, 0.0),
        (0.0, 0.5, 0.0),
        (0.0, 0.0, 0.0),
        (np.inf, np.inf, 0.0),
    ],
)
def test_what_is_gained_is_the_fall_of_the_noise_in_db(
    noise, left, gained, plain, samples, nvidia, tmp_path, monkeypatch
):
    plan, told = int8.plan(plain, Int8Config(), samples), Watched()
    given = {"full.onnx": noise, "one.onnx": left}
    monkeypatch.setattr(mixed_precision, "_noise", lambda graph, xs, outputs, held: given[graph.name])
    found = float_effects(INT8, plain, plan, samples, nvidia, tmp_path, told)
    assert [e.gained for e in found] == [pytest.approx(gained, abs=1e-4)] * len(plan.layers)
    assert told.tracked == [("int8: effect of each layer", len(plan.layers))]
    assert list(tmp_path.iterdir()) == []


def test_the_layer_alone_is_left_out_and_timed_on_one_sample(plain, samples, cpu, tmp_path, monkeypatch):
    plan = int8.plan(plain, Int8Config(), samples)
    left, timed = [], []

    def noise(graph, xs, outputs, held):
        assert [first(x).shape for x in xs] == [(1, 3, 10, 10)] * 16
        assert np.array_equal(np.concatenate([first(x) for x in xs]), np.concatenate(samples)[:16])
        assert [list(o) for o in outputs] == [[plain.graph.output[0].name]] * 16
        left.append(sorted(t.name for t in onnx.load(graph).graph.initializer if t.name.endswith(".weight")))
        return 1.0 / len(left)

    def median(graphs, x, seconds):
        timed.append(([graph.name for graph in graphs], first(x).shape, seconds))
        return 4.0, 3.0

    monkeypatch.setattr(mixed_precision, "_noise", noise)
    monkeypatch.setattr(mixed_precision, "median_milliseconds", median)
    found = float_effects(INT8, plain, plan, [*samples, *samples], cpu, tmp_path)
    assert left == [[], *([f"{layer}.weight"] for layer in plan.layers)]
    assert timed == [(["full.onnx", "one.onnx"], (1, 3, 10, 10), 0.06)] * len(plan.layers)
    assert [e.layer for e in found] == list(reversed(plan.layers))  # each leaves less noise than the one before
    assert [(e.lost, e.milliseconds) for e in found] == [(-0.25, -1.0)] * len(plan.layers)


def test_the_share_of_a_layer_in_the_work_is_that_of_its_macs(plain, samples, nvidia, tmp_path):
    from pocketzoo.zoo.graphs.cost import layer_costs

    onnx.save(plain, tmp_path / "float.onnx")
    macs = {cost.layer: cost.macs for cost in layer_costs(tmp_path / "float.onnx")}
    found = float_effects(INT8, plain, int8.plan(plain, Int8Config(), samples), samples, nvidia, tmp_path)
    assert {e.layer: e.lost for e in found} == {name: n / sum(macs.values()) for name, n in macs.items()}


@pytest.mark.parametrize(
    ("sizes", "count", "wanted", "read"),
    [
        ([3, 3, 3], 7, 7, 3),
        ([3, 3, 3], 6, 6, 2),
        ([3, 3], 7, 6, 2),
        ([8, 1], 3, 3, 1),
        ([0, 2, 1], 3, 3, 3),
        ([], 2, 0, 0),
    ],
)
def test_the_first_samples_are_taken_one_by_one_and_no_batch_is_read_after_them(sizes, count, wanted, read, two):
    opened = []

    def batches():
        for i, size in enumerate(sizes):
            opened.append(i)
            start = sum(sizes[:i])
            yield np.arange(start, start + size, dtype=np.float32)[:, None]

    found = list(islice(one_by_one(two, batches()), count))
    assert [x["x"].tolist() for x in found] == [[[float(i)]] for i in range(wanted)]
    assert len(opened) == read


def test_noise_is_summed_over_outputs_each_by_its_own_power(two, tmp_path):
    path = tmp_path / "two.onnx"
    onnx.save(two, path)
    xs = [{"x": np.array([[v]], np.float32)} for v in (1.0, 3.0)]
    wanted = [{"a": np.array([[2.0]]), "b": np.array([[-1.0]])}, {"a": np.array([[4.0]]), "b": np.array([[-2.0]])}]
    assert mixed_precision._noise(path, xs, wanted, "ab") == pytest.approx((1 + 1) / (4 + 16) + (0 + 1) / (1 + 4))
    assert mixed_precision._noise(path, [], [], "ab") == 0


def numbered(monkeypatch, tmp_path, gained, needed):
    """What ``search`` leaves in float of layers "0", "1", ... where all of ``needed`` are; and how often it asked."""
    plan = Int8Plan(layers=tuple(map(str, range(len(gained)))))
    effects = [FloatEffect(layer=str(i), gained=g, lost=0.0) for i, g in enumerate(gained)]
    monkeypatch.setattr(mixed_precision, "float_effects", lambda *_: effects)
    monkeypatch.setattr(
        mixed_precision, "write", lambda _, model, plan, target, place: place.write_text(" ".join(plan.layers))
    )
    asked = []

    def enough(graph):
        asked.append(sorted(set(map(int, plan.layers)) - set(map(int, graph.read_text().split()))))
        return set(needed) <= set(asked[-1])

    found = search(INT8, None, plan, (), None, enough, tmp_path)
    assert list(tmp_path.iterdir()) == []
    if found is not None:
        names = [e.layer for e in found[1]]
        assert found[0].layers == tuple(n for n in plan.layers if n not in names)
    return None if found is None else [int(e.layer) for e in found[1]], asked


@pytest.mark.parametrize("last", [0, 1, 2, 3, 4, 6, 7, 8, 14, 15, 16, 19])
def test_how_many_layers_it_takes_is_found_by_doubling_then_halving(last, monkeypatch, tmp_path):
    """All up to the last are needed: 20 layers, a few more than ``GIVEN_BACK`` and no power of two."""
    found, asked = numbered(monkeypatch, tmp_path, [1.0] * 20, range(last + 1))
    assert found == list(range(last + 1))
    sizes = [len(layers) for layers in asked]
    doubled = [0, *(n for n in (1, 2, 4, 8, 16) if n // 2 <= last)]
    assert sizes[: len(doubled)] == doubled
    if last >= 16:
        assert sizes[6] == 20
        assert sizes[7] == 18
    given_back = min(last, 16)
    assert sizes[len(sizes) - given_back :] == [last] * given_back
    assert len(sizes) <= len(doubled) + 1 + 4 + 16


def test_all_layers_may_be_too_few(monkeypatch, tmp_path):
    for count in (0, 1, 2, 3, 4, 5):
        found, asked = numbered(monkeypatch, tmp_path, [1.0] * count, [count])
        assert found is None
        assert len(asked[-1]) == count


def test_those_that_gain_nothing_come_last_and_those_that_gain_least_are_given_back_first(monkeypatch, tmp_path):
    gained = [0.0, 3.0, -1.0, 2.0, 1.0, 0.5]
    assert numbered(monkeypatch, tmp_path, gained, [1])[0] == [1]
    found, asked = numbered(monkeypatch, tmp_path, gained, [2])  # in the order 1, 3, 4, 5, 0, 2
    assert found == [2]
    assert asked[-5:] == [[1, 2, 3, 4, 5], [1, 2, 3, 4], [1, 2, 3], [1, 2], [2]]
    found, _ = numbered(monkeypatch, tmp_path, gained, [1, 0])
    assert found == [1, 0]
    # Of 19 that are not needed the 16 that gain least are given back.
    found, _ = numbered(monkeypatch, tmp_path, [20.0 - i for i in range(20)], [19])
    assert found == [0, 1, 2, 19]


@pytest.mark.parametrize("count", [0, 1, 2, 127, 128, 129, 200, 500, 513, 3000, 12_001])
def test_neighbors_are_tried_together_where_layers_are_many(count):
    """Every layer is in one group, in order; alone up to 128, and trials times layers stays what it is there."""
    layers = [f"l{i}" for i in range(count)]
    groups = neighbors(layers)
    assert [layer for group in groups for layer in group] == layers
    assert len({len(group) for group in groups[:-1]}) <= 1
    assert len(groups) <= max(32, 128 * 128 // max(count, 1))
    if count <= 128:
        assert len(groups) == count
    if count > 128:
        assert len(groups) >= 16


def test_of_layers_that_were_tried_together_each_has_an_equal_part():
    effects = _each(["a", "b"], 3.0, 0.2, milliseconds=0.5)
    assert [(e.layer, e.gained, e.lost, e.milliseconds) for e in effects] == [
        ("a", 1.5, 0.1, 0.25),
        ("b", 1.5, 0.1, 0.25),
    ]
    assert [e.bytes for e in _each(["a", "b"], np.inf, 0.2, size=10)] == [5, 5]


def test_a_number_that_is_a_part_says_so():
    (alone,) = _each(["a"], 3.0, 0.5, size=12)
    assert str(alone) == "+3.00 dB for +12 bytes"
    assert {str(each) for each in _each(["a", "b", "c"], 3.0, 0.5, size=12)} == {
        "+1.00 dB for +4 bytes (a part of what 3 layers do together)"
    }
