"""Detectors that select inside the graph, measured and compressed."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx
import onnxruntime
import pytest
from detectorgraphs import ENDS, detector, images
from onnx import numpy_helper
from told import Told

from pocketzoo.deploy.export import export
from pocketzoo.deploy.half_precision_export import compare_outputs
from pocketzoo.measure.selecting_runner import with_selections
from pocketzoo.plugins.targets import TENSORRT
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.graphs.rewriting.half_precision import plan_half
from pocketzoo.zoo.graphs.rewriting.half_writer import simulated
from pocketzoo.zoo.models.import_onnx import open_graph
from pocketzoo.zoo.tasks.agreement import sqnr


@pytest.mark.parametrize("end", ENDS)
def test_a_graph_runs_with_what_its_outputs_are_selected_from(end, tmp_path):
    model = detector(end, more=("scores",))
    onnx.save(model, tmp_path / "m.onnx")
    (tmp_path / "copies").mkdir()
    own = [output.name for output in model.graph.output]
    with with_selections(OnnxRunner, tmp_path / "copies")(tmp_path / "m.onnx") as runner:
        out = runner.infer({"image": images(1)})
        assert list(out) == [tensor.name for tensor in runner.signature.outputs]
    with OnnxRunner(tmp_path / "m.onnx") as plain:
        for name, value in plain.infer({"image": images(1)}).items():
            np.testing.assert_array_equal(out[name], value)
    assert list(out)[: len(own)] == own
    assert out[f"{own[0]}, before 0"].size


def test_a_graph_that_selects_nothing_is_started_as_it_is(tmp_path):
    model = detector(more=("boxes",))
    del model.graph.output[:-1]
    onnx.save(model, tmp_path / "m.onnx")
    seen = []

    def start(path):
        seen.append(path)
        return OnnxRunner(path)

    with with_selections(start, tmp_path / "no folder")(tmp_path / "m.onnx") as runner:
        assert list(runner.infer({"image": images(1)})) == ["boxes"]
    assert seen == [tmp_path / "m.onnx"]


@pytest.mark.parametrize("batch", [1, "batch"])
def test_a_detector_that_selects_takes_one_sample_a_run(batch, tmp_path):
    onnx.save(detector("NonMaxSuppression", batch=batch), tmp_path / "m.onnx")
    bundle = open_graph(tmp_path / "m.onnx")
    assert bundle.manifest.one_by_one


def test_half_precision_is_held_to_what_outputs_are_selected_from():
    model = detector(more=("scores",))
    near = compare_outputs(model, simulated(model, plan_half(model, TENSORRT, "fp16")), [{"image": images(1)}])
    assert near.keys() == {"found", "sure", "kind", "scores"}
    assert near["kind"] == min(near.values()) >= 50
    assert near["scores"] >= near["sure"]


def test_rows_of_nearly_equal_scores_that_change_places_cost_no_decibels():
    """Weights a fiftieth off: as they are the rows are other boxes, and the best scores the same."""
    model, other = detector("best"), detector("best")
    (weight,) = (each for each in other.graph.initializer if each.name == "c")
    noise = np.random.default_rng(1).normal(size=weight.dims).astype(np.float32)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * (1 + noise / 50), "c"))
    samples = [{"image": image[None]} for image in images(40)]
    near = compare_outputs(model, other, samples)
    assert near["top"] == near["at"] == near["kind"] == near["found"] > 40
    runs = [onnxruntime.InferenceSession(each.SerializeToString()) for each in (model, other)]
    boxes = [np.stack([run.run(["found"], x)[0] for x in samples]) for run in runs]
    assert sqnr(*boxes) < 25


def test_int8_of_boxes_in_the_order_of_their_scores(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    onnx.save(detector("best"), "m.onnx")
    np.savez("d.npz", image=images(30))
    result = run("compress", "m.onnx", "--int8", "--data", "d.npz", "-o", "small", "--keep-slower")
    assert result.exit_code == 0, result.stderr
    assert "top, at, found, kind: compared before TopK, which selects the same to" in result.stdout
    report = read_bundle(tmp_path / "small").manifest.steps[-1].report
    assert report.differing == {}
    assert all(20 < ratio < 80 for ratio in report.outputs.values())
    assert all(0.5 < same <= 1 for same in report.same_selection.values())


@pytest.mark.parametrize("end", ["gathered", "best"])
def test_an_export_of_two_precisions_is_held_to_what_outputs_are_selected_from(end, tmp_path, monkeypatch):
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    onnx.save(detector(end), tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", image=images(30))
    told = Told()
    export(
        tmp_path / "m.onnx", to="onnx", target="tensorrt-rtx", precision="int8-fp16", data=tmp_path / "d.npz",
        out=tmp_path / "q.onnx", progress=told,
    )  # fmt: skip
    (said,) = (text for text in told.said if text.startswith("fp16 and what was quantized before: "))
    assert 20 < float(re.search(r"(\d+) dB from fp32", said)[1]) < 80


def test_int8_of_a_detector_is_compressed_and_measured(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    onnx.save(detector(), "m.onnx")
    np.savez("d.npz", image=images(30))
    targets = ("--target", "cpu", "--target", "tensorrt-rtx")
    result = run("compress", "m.onnx", "--int8", "--data", "d.npz", "-o", "small", "--keep-slower", *targets)
    assert result.exit_code == 0, result.stderr
    assert "found, sure, kind: compared before NonMaxSuppression, which selects the same to" in result.stdout
    report = read_bundle(tmp_path / "small").manifest.steps[-1].report
    assert report.selected_by == dict.fromkeys(("found", "sure", "kind"), "NonMaxSuppression")
    assert all(20 < ratio < 80 for ratio in report.outputs.values())
    assert all(0.5 < same <= 1 for same in report.same_selection.values())
    again = json.loads(
        run("bench", "m.onnx", "small", "--data", "d.npz", "--seconds", 0, "--batch", 2, "--json", "--no-memory").stdout
    )
    (cpu,) = (row for row in again if row["target"] == "cpu")
    assert cpu["selected_by"] == report.selected_by
    assert set(cpu["outputs"]) == {"found", "sure", "kind"}
    strict = run("compress", "m.onnx", "--int8", "--data", "d.npz", "-o", "none", "--min-sqnr", 150)
    assert strict.exit_code == 3
    assert "error: rejected" in strict.stderr


def test_a_selection_below_the_floor_is_named(tmp_path):
    from pocketzoo.compress.pipeline.acceptance import below_floor
    from pocketzoo.compress.pipeline.graph_scores import Score

    def score(sqnr: float | None) -> Score:
        told = {"y": "'scores' before NonMaxSuppression"}
        return Score(samples=2, metric=None, agreement=None, outputs={"y": sqnr}, parts=told)

    why = below_floor(score(None), score(None), score(4.0))
    assert why == "the SQNR of output 'y' ('scores' before NonMaxSuppression) is 4.0 dB, below 10 dB"
