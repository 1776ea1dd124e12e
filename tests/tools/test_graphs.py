"""Generated graphs: each seed its own, all valid; a small shard of them right, and checks that notice what is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "benchmarks")]

import graph_campaign  # noqa: E402
import graph_checks  # noqa: E402
import page_graphs  # noqa: E402
from graph_generator import EVERY_LAYER, generate  # noqa: E402
from graph_idioms import IDIOMS  # noqa: E402

from pocketzoo.compress.quantization import int8  # noqa: E402
from pocketzoo.compress.quantization.qdq import Int8Writer  # noqa: E402

# Of graphs that a shard found: parts without values, Upsample and Pad of an older opset, the places of maxima, a tensor
# that is always zero, rows that are one sample together, a batch that its file fixes inside, masks of minus infinity
# that onnxruntime makes a bias of or that an output has before its softmax, weights of zero with a bias;
# an output whose shape another node reads, which onnxruntime quantized to a type of its own; and two weights of one
# layer's name, one of which a Loop reads as well.
FOUND = (
    901000001, 901000323, 901000211, 902000726, 902000941, 903000355, 901000023, 911000269, 911000305, 911000698,
    912000036, 913001301, 301000241, 301000611, 302002783, 302003496, 302002260, 301006720, 302005453,
    301005012, 302005802, 303000152, 304000834,
)  # fmt: skip


@pytest.fixture
def checker(tmp_path, monkeypatch):
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    return graph_checks.Checker(tmp_path)


def test_a_seed_is_a_graph_and_all_are_valid():
    made = [generate(seed) for seed in range(150)]
    for graph in made:
        onnx.checker.check_model(graph.model, full_check=True)
    assert [generate(seed).model.SerializeToString() for seed in range(20)] == [
        graph.model.SerializeToString() for graph in made[:20]
    ]
    assert len({graph.model.SerializeToString() for graph in made}) == len(made)


def test_they_have_every_layer_in_many_opsets_and_roles():
    made = [generate(seed) for seed in range(1200)]
    assert {block for graph in made for block in graph.blocks} >= {*EVERY_LAYER, *IDIOMS, "Gather"}
    assert {graph.model.opset_import[0].version for graph in made} == set(range(7, 26))
    assert min(graph.model.ir_version for graph in made) == 3
    assert {len(graph.model.graph.input) > 1 for graph in made} == {True, False}
    assert any(graph.model.functions for graph in made)


@pytest.mark.parametrize("seed", [*range(30), *FOUND])
def test_a_small_shard_is_right(seed, checker):
    checked = checker.check(generate(seed))
    assert not checked.findings
    assert checked.tried


def alone(operator: str) -> graph_checks.Generated:
    """The first graph of one operator, in an opset that is not raised."""
    made = map(generate, range(1000))
    return next(g for g in made if g.alone == operator and g.model.opset_import[0].version >= 13)


@pytest.mark.parametrize("operator", ["Conv", "Gemm", "MatMul"])
def test_weights_that_are_an_eighth_too_small_are_found(operator, checker, monkeypatch):
    def spoiled(model, plan, target):
        encoded = apply(model, plan, target)
        for tensor in encoded.graph.initializer:
            value = numpy_helper.to_array(tensor)
            if value.dtype == np.int8 and value.ndim > 1:
                tensor.CopyFrom(numpy_helper.from_array(value - value // 8, tensor.name))
        return encoded

    apply = int8.apply
    assert not checker.check(alone(operator)).findings
    monkeypatch.setattr(int8, "apply", spoiled)
    assert any("noise" in finding or "bound" in finding for finding in checker.check(alone(operator)).findings)


def test_a_whole_run_claims_what_is_counted(checker):
    seed = next(n for n in range(99, 5000, 100) if generate(n).blocks and not generate(n).model.functions)
    checked = checker.check(generate(seed))
    assert not checked.findings
    assert {"compressed", "nothing to compress", "not run by onnxruntime"} & set(checked.tried)


def test_a_traceback_is_a_finding(checker, monkeypatch):
    def fails(*arguments):
        raise KeyError("w")

    monkeypatch.setattr(Int8Writer, "layer", fails)
    assert any("traceback: KeyError" in finding for finding in checker.check(alone("Conv")).findings)


def test_a_graph_that_ends_the_process_is_a_finding_and_the_shard_goes_on(tmp_path, monkeypatch):
    (tmp_path / "graph_checks.py").write_text(
        "import contextlib, os, types\n"
        "quiet, FEW = contextlib.nullcontext, 4\n"
        "class Checker:\n"
        "    def __init__(self, folder): pass\n"
        "    def check(self, graph):\n"
        "        if graph.seed % 1_000_000 == 1: os.abort()\n"
        "        return types.SimpleNamespace(tried={'imported': 1}, findings=[])\n",
        "utf8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    shard = graph_campaign.run(5, 60, tmp_path, most=4)
    assert shard.findings == ["seed 5000001: the process ended with -6"]
    assert shard.tried == {"graphs": 4, "imported": 3}


def test_the_page_is_what_the_file_says():
    result = json.loads(graph_campaign.RESULTS.read_text("utf8"))
    assert (ROOT / "docs" / "graphs.md").read_text("utf8") == page_graphs.render(result)


def test_shards_of_one_commit_add_up_on_the_page():
    shard = {
        "commit": "a", "kind": "graphs", "seed": 1, "seconds": 90.0, "tried": {"graphs": 1200, "imported": 1199},
        "findings": ["seed 7: `x`"],
    }  # fmt: skip
    page = page_graphs.render({"shards": [{**shard, "commit": "b"}, shard, {**shard, "seed": 2, "findings": []}]})
    assert "2 shards, 3 minutes, 2,400 graphs, 1 findings." in page
    assert "| imported | 2,398 |" in page
    assert "- `seed 7: 'x'`" in page
    assert "| b | 1 | 1,200 | 1 |" in page
