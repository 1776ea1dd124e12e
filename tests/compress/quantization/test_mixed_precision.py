from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.quantization import int8
from pocketzoo.compress.quantization.mixed_precision import LEAST, FloatEffect, _first, float_effects, search
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner


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
        less = int8.without(graphs[name], whole, [layer])
        wanted = int8.plan(graphs[name], replace(config, skip=(layer,)), samples)
        assert (less.layers, less.ranges) == (wanted.layers, wanted.ranges)
        one, other = (
            int8.apply(graphs[name], plan, cpu).SerializeToString(deterministic=True) for plan in (less, wanted)
        )
        assert one == other


def test_the_spoilt_layer_is_worth_most(plain, samples, cpu, tmp_path):
    plan = int8.plan(plain, Int8Config(), samples)
    found = float_effects(plain, plan, samples, cpu, tmp_path)
    assert {e.layer for e in found} == set(plan.layers)
    assert max(found, key=lambda e: e.gained).layer == "b"
    assert [e.worth for e in found] == sorted((e.worth for e in found), reverse=True)
    assert "ms" in str(found[0])


def test_what_does_not_run_here_is_costed_by_its_work(plain, samples, nvidia, tmp_path):
    found = float_effects(plain, int8.plan(plain, Int8Config(), samples), samples, nvidia, tmp_path)
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

        found = search(plain, plan, samples, cpu, enough, tmp_path)
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

    found = search(plain, plan, samples, cpu, enough, tmp_path)
    assert [e.layer for e in found[1]] == [last]
    assert set(found[0].layers) == set(plan.layers) - {last}


def test_leaving_the_worst_layer_in_float_reaches_the_sqnr(plain, samples, cpu, tmp_path):
    plan = int8.plan(plain, Int8Config(), samples)
    onnx.save(plain, tmp_path / "float.onnx")
    x = np.concatenate(samples)

    def sqnr(graph):
        with OnnxRunner(tmp_path / "float.onnx") as a, OnnxRunner(graph) as b:
            wanted, given = a.logits(x), b.logits(x)
        return 10 * np.log10(np.square(wanted).sum() / np.square(wanted - given).sum())

    int8_graph = tmp_path / "int8.onnx"
    onnx.save(int8.apply(plain, plan, cpu), int8_graph)
    goal = sqnr(int8_graph) + 6
    found = search(plain, plan, samples, cpu, lambda graph: sqnr(graph) >= goal, tmp_path)
    assert found is not None
    assert "b" not in found[0].layers
    onnx.save(int8.apply(plain, found[0], cpu), int8_graph)
    assert sqnr(int8_graph) >= goal


def test_what_is_lost_is_the_share_that_a_layer_in_float_takes_longer(plain, samples, cpu, tmp_path, monkeypatch):
    plan = int8.plan(plain, Int8Config(), samples)
    times = {"int8.onnx": 2.0, "one.onnx": 3.0}
    monkeypatch.setattr(
        "pocketzoo.compress.quantization.mixed_precision.median_milliseconds",
        lambda graphs, x, seconds: [times[graph.name] for graph in graphs],
    )
    found = float_effects(plain, plan, samples, cpu, tmp_path)
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
def test_the_first_samples_are_taken_and_no_more_are_read(sizes, count, taken, read):
    """Those that follow may be images still to be decoded, or without an end."""
    given, opened = np.arange(sum(sizes) * 2, dtype=np.float32).reshape(-1, 2), []

    def batches():
        for batch in np.split(given, np.cumsum(sizes)[:-1]) if sizes else ():
            opened.append(len(batch))
            yield batch

    rows = _first(batches(), count)
    assert [row.shape for row in rows] == [(1, 2)] * taken
    np.testing.assert_array_equal(np.concatenate([np.empty((0, 2)), *rows]), given[:taken])
    assert len(opened) == read
