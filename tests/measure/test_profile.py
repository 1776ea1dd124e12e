"""Profiles of graphs whose layers, kernels and order are known."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from pocketzoo.core.errors import DataError, UnknownNameError
from pocketzoo.core.typed import from_plain, to_plain
from pocketzoo.measure.profile import Node, Profile, profile, torch_layers, total
from pocketzoo.reports.charts.graph_drawing import place, visible
from pocketzoo.reports.profile_page import headline, save_page
from pocketzoo.zoo.bundles.bundle import Bundle, updating
from pocketzoo.zoo.graphs.cost import layer_costs


@pytest.fixture(scope="module")
def floats(fitted) -> Profile:
    return profile(fitted.path, seconds=0.0)


@pytest.fixture(scope="module")
def integers(compressed) -> Profile:
    return profile(compressed.path, seconds=0.0, torch=False)


def layers_of(bundle: Bundle, target: str = "") -> list[str]:
    return [cost.layer for cost in layer_costs(bundle.graph(target))]


def test_every_layer_with_weights_has_a_node_and_every_node_a_time(fitted, floats):
    found = {node.layer for node in floats.nodes if node.op in ("Conv", "FusedConv", "Gemm")}
    assert found == set(layers_of(fitted))
    assert all(node.ms >= 0 for node in floats.nodes)
    assert {node.kind for node in floats.nodes} == {"float"}
    assert (floats.target, floats.left_in_float) == ("", ())
    # The one is the thread's time, the other passes; were not both in milliseconds, they would be a thousand apart.
    assert 1 / 100 < floats.ms / total(floats.nodes) < 100


def test_torch_has_every_layer_too(fitted, floats):
    assert set(layers_of(fitted)) <= set(floats.torch_layers)
    assert floats.torch_ms is not None
    assert 1 / 100 < floats.torch_ms / sum(floats.torch_layers.values()) < 100


def test_a_layer_that_pads_by_another_is_one_layer():
    import torch
    from torch import nn

    class Padded(nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(3, 4, 3)
            self.pad = nn.ZeroPad2d(1)

    class Token(nn.Sequential):
        """It has a weight of its own, and layers with weights."""

        def __init__(self) -> None:
            super().__init__(nn.Sequential(Padded(), nn.ReLU()), nn.Linear(4, 2))
            self.token = nn.Parameter(torch.zeros(4))

    assert torch_layers(nn.Sequential(Token(), nn.Softmax(1))) == ["0.0.0", "0.0.1", "0.1", "1"]


def test_an_int8_graph_runs_in_integers(compressed, integers):
    assert integers.target == "cpu"
    kinds = {node.layer: node.kind for node in integers.nodes if node.layer}
    assert set(layers_of(compressed, "cpu")) <= set(kinds)
    assert set(kinds.values()) == {"int8"}
    assert integers.left_in_float == ()
    assert "conversion" in {node.kind for node in integers.nodes}
    assert (integers.torch_ms, integers.torch_layers) == (None, {})


def test_an_encoding_that_this_runtime_unpacks_is_said_to_run_in_float(compressed):
    found = profile(compressed.path, target="tensorrt-rtx", seconds=0.0, torch=False)
    integer = {node.layer for node in found.nodes if node.kind == "int8"}
    expected = [layer for layer in layers_of(compressed, "tensorrt-rtx") if layer not in integer]
    assert [each.layer for each in found.left_in_float] == expected != []
    assert all("int8 weights are dequantized" in each.why for each in found.left_in_float)
    assert all(each.ms > 0 for each in found.left_in_float)


@pytest.mark.slow
def test_what_the_step_left_in_float_is_told_with_its_reason(fitted, tmp_path):
    from pocketzoo.compress.configs import Int8Config
    from pocketzoo.compress.pipeline.compress_model import compress

    path = tmp_path / "some"
    bundle = compress(
        fitted.path, path, data="digits", steps=[Int8Config(skip=("head.linear",))], samples=8, keep_slower=True
    )
    (left,) = profile(path, seconds=0.0, torch=False).left_in_float
    assert (left.layer, left.why) == ("head.linear", "the plan has no ranges for it")
    with updating(bundle) as draft:
        (step,) = bundle.manifest.steps
        told = replace(step, report=replace(step.report, float_layers={"head.linear": "it cost too much"}))
        draft.manifest = replace(bundle.manifest, steps=(told,))
    (left,) = profile(path, seconds=0.0, torch=False).left_in_float
    assert left.why == "it cost too much"


def test_shares_add_up(integers):
    for groups in (integers.by_layer(), integers.by_operator()):
        spent = [total(nodes) for nodes in groups.values()]
        assert sum(spent) == pytest.approx(total(integers.nodes))
        assert spent == sorted(spent, reverse=True)
    assert "[QLinearAdd]" in integers.by_layer()


def test_a_node_reads_what_ran_before_it_and_all_lead_to_the_end(floats):
    nodes = floats.nodes
    assert all(each < i for i, node in enumerate(nodes) for each in node.reads)
    reached, waiting = set(), [len(nodes) - 1]
    while waiting:
        reached.add(at := waiting.pop())
        waiting += nodes[at].reads
    assert reached == set(range(len(nodes)))


def test_a_profile_is_json_and_back(integers):
    assert from_plain(Profile, json.loads(json.dumps(to_plain(integers)))) == integers


def test_what_cannot_be_profiled_is_refused(fitted, refused):
    with refused(UnknownNameError):
        profile(fitted.path, target="cpv")
    with refused(DataError, "has one length", hint="--length"):
        profile(fitted.path, length=8)


# -- the drawing


def node(*reads: int, op: str = "Conv", ms: float = 1.0) -> Node:
    return Node(
        name="n", op=op, layer="", kind="conversion" if op == "DequantizeLinear" else "float", ms=ms, reads=reads
    )


CHAIN = [node(), node(0), node(1)]
DIAMOND = [node(), node(0), node(0), node(1, 2)]
NESTED = [node(), node(0), node(1), node(1), node(2, 3), node(0, 4), node(5)]


@pytest.mark.parametrize("nodes", [CHAIN, DIAMOND, NESTED])
def test_no_node_lies_in_a_lane_in_which_another_result_waits(nodes):
    placed = place(nodes)
    for i, p in enumerate(placed):
        last = max((k for k, other in enumerate(placed) if i in other.reads), default=i)
        assert all(placed[k].lane != p.lane for k in range(i + 1, last))


def test_a_chain_is_one_lane_and_a_branch_another():
    assert [p.lane for p in place(CHAIN)] == [0, 0, 0]
    assert sorted({p.lane for p in place(DIAMOND)}) == [0, 1]
    assert place(DIAMOND)[-1].lane in (0, 1)


def test_unpacked_weights_count_where_they_are_read():
    nodes = [node(op="DequantizeLinear", ms=0.5), node(op="QuantizeLinear"), node(0, 1), node(0, 2)]
    shown = visible(nodes)
    assert [n.op for n in shown] == ["QuantizeLinear", "Conv", "Conv"]
    assert [n.ms for n in shown] == [1.0, 1.25, 1.25]
    assert [n.reads for n in shown] == [(), (0,), (1,)]


def test_the_page_has_every_node_and_runs_nothing(integers, tmp_path):
    hostile = replace(integers, bundle="<script>", nodes=(replace(integers.nodes[0], name="<b>"), *integers.nodes[1:]))
    page = save_page(hostile, tmp_path / "p.html").read_text("utf8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page.count('<g class="node">') == 2 * len(visible(hostile.nodes))  # for wide screens and for narrow ones
    assert len(re.findall(r"<tr><th scope=\"row\">", page)) == len(hostile.by_layer()) + len(hostile.by_operator())
    assert headline(hostile).endswith(next(iter(hostile.by_layer())))
