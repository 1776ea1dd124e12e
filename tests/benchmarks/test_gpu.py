"""What the GPU benchmark does without a GPU: it refuses in two lines; its arithmetic, models and graphs are right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def bench() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        import gpu
        import gpu_models
        import gpu_roofline

        yield type("Modules", (), {"gpu": gpu, "models": gpu_models, "roofline": gpu_roofline})
        for name in ("gpu", "gpu_models", "gpu_roofline", "record"):
            sys.modules.pop(name, None)


ROOFLINE = {"operations_per_s": {"fp32": 50e12, "fp16": 900e12}, "bytes_per_s": 2e12}
MODEL = {"operations": 1e9, "weights": 1_000_000, "sample_values": 1000}


def row(**changed: Any) -> dict[str, Any]:
    facts = {"way": "torch", "precision": "fp32", "batch": 1, "sqnr": 120.0, "ms": 0.04, "low": 0.03, "high": 0.05}
    return {**facts, **changed}


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would run")
@pytest.mark.parametrize("words", [[], ["--short", "nowhere"]], ids=["all", "short"])
def test_without_a_gpu_it_says_so_in_two_lines(words):
    done = subprocess.run([sys.executable, FOLDER / "gpu.py", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    what, hint = done.stderr.splitlines()
    assert what.startswith("error: ")
    assert "no CUDA device" in what
    assert hint.startswith("hint: ")
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("operations", "traffic", "seconds"), [(100.0, 1.0, 10.0), (1.0, 100.0, 20.0), (50.0, 25.0, 5.0)]
)
def test_the_slower_of_computing_and_moving_is_the_roof(bench, operations, traffic, seconds):
    assert bench.roofline.attainable(operations, traffic, rate=10.0, bandwidth=5.0) == seconds


def test_the_share_is_of_what_the_batch_needs(bench):
    """A GFLOP at 50 T/s takes 20 us, 4.004 MB at 2 TB/s take 2; a hundred samples read the weights once."""
    assert bench.roofline.share(row(), MODEL, ROOFLINE) == pytest.approx(0.5)
    assert bench.roofline.share(row(batch=100, ms=4.0), MODEL, ROOFLINE) == pytest.approx(0.5)
    small = {**MODEL, "operations": 1e6}
    assert bench.roofline.share(row(ms=0.002002), small, ROOFLINE) == pytest.approx(1.0)
    assert bench.roofline.share(row(precision="int8"), MODEL, ROOFLINE) is None


def test_the_table_has_what_ran_and_says_why_the_rest_did_not(bench):
    missing = {"way": "tensorrt", "precision": "int8", "batch": 1, "why": "No module named 'tensorrt'"}
    half = row(precision="fp16", way="torch replayed", ms=0.02, sqnr=None)
    text = bench.roofline.render({"roofline": ROOFLINE, "models": {"tiny": {**MODEL, "rows": [row(), half, missing]}}})
    lines = text.splitlines()
    assert "| fp32 | 50.0 T/s |" in lines
    assert "| copy | 2,000 GB/s |" in lines
    assert any("| 0.040 (0.030 to 0.050) | 1.0x | 25,000 | 50% |" in line for line in lines)
    assert any("| torch replayed | fp16 | - |" in line and "| 2.0x |" in line for line in lines)
    assert "- tiny, tensorrt, int8, batch 1: No module named 'tensorrt'" in lines


@pytest.fixture(scope="module")
def subject(bench) -> Any:
    return bench.models.Subject("tinynet")


@pytest.mark.slow
def test_costs_are_those_of_the_zoo(bench, subject, registry):
    from pocketzoo.zoo.models.open_model import open_model

    manifest = open_model("tinynet", registry=registry).manifest
    cost = subject.cost()
    assert cost["operations"] == 2 * manifest.macs
    assert cost["weights"] == manifest.parameters
    assert cost["sample_values"] == 28 * 28 + 10


def test_without_the_zoo_the_structure_is_the_same(bench, subject):
    bare = bench.models._bare("tinynet")
    assert sum(p.numel() for p in bare.parameters()) == sum(p.numel() for p in subject.module.parameters())
    assert bare(subject.batch(2)).shape == subject.module(subject.batch(2)).shape
    with pytest.raises(ImportError, match="efficientnet"):
        bench.models._bare("efficientnet-lite0")


@pytest.fixture(scope="module")
def layers() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.ReLU(), torch.nn.Linear(96, 32)).requires_grad_(False)


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_linear_layers_in_int8_give_nearly_the_same(bench, layers, rows):
    x = torch.randn(rows, 3, 64, generator=torch.Generator().manual_seed(rows))
    for kind in (torch.float32, torch.float16):
        out = bench.models.with_int8(layers).to(kind)(x.to(kind))
        assert (out.shape, out.dtype) == ((rows, 3, 32), kind)
        assert bench.models.sqnr(out, layers(x)) > 30
    assert all(isinstance(m, torch.nn.Linear | torch.nn.ReLU) for m in layers)  # a copy was changed


def test_two_of_every_four_weights_stay_the_largest(bench, layers):
    pruned = bench.models.two_of_four(layers)
    before, after = layers[0].weight.reshape(96, -1, 4), pruned[0].weight.reshape(96, -1, 4)
    assert (after.count_nonzero(-1) == 2).all()
    assert torch.equal(after.abs().sum(-1), before.abs().topk(2, -1).values.sum(-1))
    assert torch.equal(pruned[2].weight, layers[2].weight)  # 96 inputs are no multiple of 64


def test_where_no_layer_suits_there_is_no_such_row(bench, subject):
    for make in (bench.models.with_int8, bench.models.two_of_four):
        with pytest.raises(ValueError, match="no linear layer"):
            make(subject.module)


def test_sqnr_is_that_of_known_noise(bench):
    reference = torch.ones(100)
    assert bench.models.sqnr(reference * 1.01, reference) == pytest.approx(40.0, abs=0.01)
    assert bench.models.sqnr(reference, reference) == float("inf")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "fp8", "int8"])
def test_graphs_in_every_precision_give_what_torch_gives(bench, subject, precision, tmp_path):
    import onnxruntime

    x = subject.batch(16)
    with torch.no_grad():
        path = bench.gpu._graph(subject, precision, tmp_path, x)
    given = x.numpy().astype(np.float16 if precision == "fp16" else np.float32)
    how = onnxruntime.SessionOptions()
    if precision == "fp8":  # which its rewriting takes for integers
        how.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), how, providers=["CPUExecutionProvider"])
    out = torch.from_numpy(session.run(["y"], {"x": given})[0])
    assert bench.models.sqnr(out, subject.module(x)) >= bench.gpu.LEAST[precision]


def test_every_row_that_could_run_is_of_a_known_precision(bench, subject):
    ways = bench.gpu._ways(subject)
    assert {precision for _, precision, _, _ in ways} == set(bench.gpu.LEAST) == set(bench.roofline.WIDTH)
    assert len({(way, precision) for way, precision, _, _ in ways}) == len(ways)


def test_arguments(bench, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--models", "tinynet", "--out", "x.json"])
    options = bench.gpu._arguments()
    assert (options.models, options.batch, options.out) == ("tinynet", "1,32,256", Path("x.json"))


def test_json_that_was_recorded_is_what_the_page_renders(bench):
    path = FOLDER / "results" / "gpu.json"
    if not path.exists():
        pytest.skip("no GPU was measured yet")
    assert bench.roofline.render(json.loads(path.read_text("utf8")))


def test_of_the_short_run_all_but_the_run_needs_no_gpu(tmp_path, monkeypatch):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed, and the short run builds engines")
    import onnx
    from onnx import helper, numpy_helper

    monkeypatch.syspath_prepend(FOLDER)
    import gpu_short

    random = np.random.default_rng(0)
    weight = numpy_helper.from_array(random.normal(size=(32, 10)).astype(np.float32), "w")
    ends = [helper.make_tensor_value_info(n, 1, ["batch", size]) for n, size in (("x", 32), ("y", 10))]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "theirs.onnx")
    samples = {"x": random.normal(size=(16, 32)).astype(np.float32)}
    built = gpu_short.build(tmp_path / "theirs.onnx", samples, tmp_path)
    assert set(built.engines) == set(gpu_short.PRECISIONS)
    engine = built.engines["fp16"]
    assert isinstance(engine, Path)
    assert engine.stat().st_size > 1000
    rows = gpu_short.measure(built, samples, 0.0)
    assert [row["way"] for row in rows] == ["tensorrt_rtx"] * 3 + ["onnxruntime CUDA", "torch.compile"]
    if not torch.cuda.is_available():
        assert all(row["why"] for row in rows)
    same = [{"y": np.arange(4.0)}]
    assert gpu_short.ratios([{"y": np.arange(4.0) + 0.1}], same) == {"y": pytest.approx(10 * np.log10(14 / 0.04))}
