"""Models with several outputs: each is measured, named, and held to what was asked."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.pipeline import graph_step
from pocketzoo.compress.pipeline.compress_model import compress
from pocketzoo.compress.quantization import int8
from pocketzoo.core.errors import DataError, RejectedError, UnknownNameError
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.bundles.manifest import MANIFEST
from pocketzoo.zoo.catalog.dataset import Dataset
from pocketzoo.zoo.data.batches import from_arrays

RNG = np.random.default_rng(3)


@pytest.fixture(scope="module")
def two_headed(tmp_path_factory) -> object:
    """Scores of a large channel and a map of the small ones beside it, which share a range in int8."""
    info = helper.make_tensor_value_info
    stem = RNG.normal(0, 0.3, (6, 3, 3, 3))
    stem[2] *= 3000
    project = RNG.normal(0, 0.3, (2, 6, 1, 1))
    project[:, 2] = 0
    constants = {"stem": stem, "classes": RNG.normal(0, 0.3, (6, 4)), "project": project}
    nodes = [
        helper.make_node("Conv", ["image", "stem"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "classes"], ["scores"]),
        helper.make_node("Conv", ["b", "project"], ["mask"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [info("image", TensorProto.FLOAT, ["n", 3, 12, 12])],
        [info("scores", TensorProto.FLOAT, ["n", 4]), info("mask", TensorProto.FLOAT, ["n", 2, 12, 12])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    path = tmp_path_factory.mktemp("two") / "two.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(autouse=True)
def unmixed(monkeypatch):
    """Plans as they are before sensitive layers are left in float, which keeps these models above the floor."""
    monkeypatch.setattr(int8, "sensitive_layers", lambda *given: {})


@pytest.fixture(scope="module")
def images() -> Dataset:
    x = RNG.normal(size=(80, 3, 12, 12)).astype(np.float32)
    return from_arrays("images", (), x, None, 0)


def recount(before, after, x) -> dict[str, float]:
    """SQNR of each output by the textbook."""
    with OnnxRunner(before) as a, OnnxRunner(after) as b:
        wanted, given = a.infer({"image": x}), b.infer({"image": x})
    return {
        name: 10 * np.log10((out.astype(float) ** 2).sum() / ((out.astype(float) - given[name]) ** 2).sum())
        for name, out in wanted.items()
    }


@pytest.mark.usefixtures("untimed")
def test_an_output_that_is_lost_is_named_and_nothing_is_written(two_headed, images, tmp_path, refused, monkeypatch):
    given = {"data": images, "steps": [Int8Config()], "samples": 32, "keep_slower": True}
    with monkeypatch.context() as patch:  # as for a step that can leave no layer in float
        patch.setattr(graph_step, "above_floor", lambda *given: None)
        with refused(RejectedError, "the SQNR of output 'mask'", hint="--accept") as caught:
            compress(two_headed, tmp_path / "out", **given)
        assert caught.value.message.endswith("dB, below 10 dB, whichever layers are left in float")
    assert list(tmp_path.iterdir()) == []
    bundle = compress(two_headed, tmp_path / "out", accept=True, **given)
    row = bundle.manifest.measurements[-1]
    x = np.stack(list(images.split("test").samples))
    counted = recount(bundle.graph(""), bundle.graph("cpu"), x)
    assert row.outputs == {name: pytest.approx(value, abs=0.01) for name, value in counted.items()}
    assert row.sqnr == min(row.outputs.values()) == row.outputs["mask"] < 10 < row.outputs["scores"]
    assert row.agreement is None  # nobody said what these numbers are
    report = bundle.manifest.steps[-1].report
    assert report.sqnr == report.outputs["mask"] < 10 < report.outputs["scores"]
    assert report.agreement is None


@pytest.mark.usefixtures("untimed")
def test_a_least_sqnr_is_held_by_every_output(two_headed, images, tmp_path):
    given = {"data": images, "steps": [Int8Config()], "samples": 32, "keep_slower": True}
    bundle = compress(two_headed, tmp_path / "out", min_sqnr=25.0, **given)
    x = np.stack(list(images.split("val").samples))
    assert min(recount(bundle.graph(""), bundle.graph("cpu"), x).values()) >= 25.0
    kept = set(bundle.manifest.steps[-1].report.float_layers)
    assert kept
    assert kept < {"stem", "classes", "project"}
    # What was made on the way is not shipped.
    assert {p.name for p in bundle.path.iterdir()} == {*bundle.manifest.files, MANIFEST}
    assert sum(name.endswith(".onnx") for name in bundle.manifest.files) == 2


def test_a_metric_that_is_not_known_cannot_be_held_to_a_budget(two_headed, images, tmp_path, refused):
    given = {"data": images, "steps": [Int8Config()], "samples": 8}
    with refused(DataError, "no metric is known", hint="--min-sqnr"):
        compress(two_headed, tmp_path / "out", max_drop=0.01, **given)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("untimed")
def test_the_table_and_the_report_name_every_output(run, two_headed, images, tmp_path):
    from pocketzoo.reports.report import report

    np.savez(tmp_path / "x.npz", x=np.concatenate([images.split(s).samples for s in ("train", "val", "test")]))
    out = tmp_path / "out"
    options = ["--int8", "--data", tmp_path / "x.npz", "--samples", 16, "--keep-slower", "--accept"]
    result = run("compress", two_headed, "-o", out, *options)
    assert result.exit_code == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    head = lines.index(["scores", "mask"])
    found = {" ".join(line[:-2]): line[-2:] for line in lines[head + 1 :] if line[:1] == ["out"]}
    assert found["out float32"] == ["-", "-"]
    scores, mask = map(float, found["out int8 for cpu"])
    assert mask < 10 < scores
    page = report([out], tmp_path / "r.html").read_text()
    assert "scores<" in page
    assert "mask<" in page


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize("targets", [("cpu",), ("cpu", "tensorrt")])
def test_the_layers_that_spoil_an_output_are_left_in_float_and_named(two_headed, images, tmp_path, run, targets):
    """With those layers in float, and no other, every output keeps the floor by a recount, for each target."""
    given = {"data": images, "samples": 32, "keep_slower": True, "targets": targets}
    bundle = compress(two_headed, tmp_path / "out", steps=[Int8Config()], **given)
    assert not bundle.manifest.rejected
    step = bundle.manifest.steps[-1]
    assert "project" in step.report.float_layers
    assert not {"stem", "classes", "project"} <= set(step.report.float_layers)
    assert step.report.float_why.startswith("the SQNR of output 'mask' is ")
    x = np.stack(list(images.split("val").samples))
    for target in targets:
        found = recount(bundle.graph(""), bundle.graph(target), x)
        assert min(found.values()) >= 10.0
        assert step.report.in_float[target]["project"].startswith("left for accuracy (+")
    assert step.report.sqnr == pytest.approx(min(recount(bundle.graph(""), bundle.graph("cpu"), x).values()), abs=0.06)
    assert {p.name for p in bundle.path.iterdir()} == {*bundle.manifest.files, MANIFEST}
    skipped = Int8Config(skip=tuple(step.report.float_layers))
    by_name = compress(two_headed, tmp_path / "skipped", steps=[skipped], **given)
    assert min(recount(by_name.graph(""), by_name.graph("cpu"), x).values()) >= 10.0


@pytest.mark.usefixtures("untimed")
def test_the_table_says_which_layers_are_left_and_what_they_were_left_for(two_headed, images, tmp_path, run):
    np.savez(tmp_path / "x.npz", x=np.concatenate([images.split(s).samples for s in ("train", "val", "test")]))
    options = ["--int8", "--data", tmp_path / "x.npz", "--samples", 32, "--keep-slower"]
    result = run("compress", two_headed, "-o", tmp_path / "out", *options)
    assert result.exit_code == 0, result.stderr
    assert re.search(r"left in float: \d of 3 layers; with all in int8 the SQNR of output 'mask' is ", result.stdout)


@pytest.mark.usefixtures("untimed")
def test_layers_in_float_that_make_a_graph_larger_are_no_way_out(two_headed, images, tmp_path, refused):
    """The file of so small a model is larger with what int8 needs besides: what is said is both."""
    given = {"data": images, "samples": 32}
    with refused(RejectedError, "the SQNR of output 'mask' is ", hint="--keep-slower") as caught:
        compress(two_headed, tmp_path / "out", steps=[Int8Config()], **given)
    assert re.search(r"dB, below 10 dB; with .*project .* left in float larger: \d+", caught.value.message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("untimed")
def test_only_the_outputs_that_are_named_are_held_to_anything(two_headed, images, tmp_path, refused):
    given = {"data": images, "steps": [Int8Config()], "samples": 32, "keep_slower": True}
    bundle = compress(two_headed, tmp_path / "out", outputs=["scores"], min_sqnr=20.0, **given)
    row, report = bundle.manifest.measurements[-1], bundle.manifest.steps[-1].report
    assert row.held == report.held == ("scores",)
    assert row.sqnr == row.outputs["scores"] > 20
    assert row.outputs["mask"] < 10
    assert report.sqnr == report.outputs["scores"]
    assert not report.float_layers
    bundle = compress(two_headed, tmp_path / "mask", outputs=["mask"], **given)
    assert "project" in bundle.manifest.steps[-1].report.float_layers
    with refused(UnknownNameError, "the model has no output 'boxes'", hint="its outputs: scores, mask"):
        compress(two_headed, tmp_path / "more", outputs=["scores", "boxes"], **given)


@pytest.mark.usefixtures("untimed")
def test_the_worst_of_the_named_outputs_is_what_bench_shows(run, two_headed, tmp_path):
    np.savez(tmp_path / "x.npz", x=RNG.normal(size=(40, 3, 12, 12)).astype(np.float32))
    options = ["--int8", "--data", tmp_path / "x.npz", "--samples", 16, "--keep-slower", "--output", "scores"]
    result = run("compress", two_headed, "-o", tmp_path / "out", *options)
    assert result.exit_code == 0, result.stderr
    assert "the table above has the worst of scores" in result.stdout
    timed = ["--data", tmp_path / "x.npz", "--seconds", 0, "--no-memory", "--json"]
    rows = json.loads(run("bench", tmp_path / "out", *timed, "--output", "scores").stdout)
    assert rows[-1]["sqnr"] == rows[-1]["outputs"]["scores"] > rows[-1]["outputs"]["mask"]
    rows = json.loads(run("bench", tmp_path / "out", *timed).stdout)
    assert rows[-1]["sqnr"] == rows[-1]["outputs"]["mask"]
    result = run("bench", tmp_path / "out", *timed, "--output", "boxes")
    assert result.exit_code == 1
    assert "the model has no output 'boxes'" in result.stderr
    card = (tmp_path / "out" / "README.md").read_text()
    assert "scores: SQNR" in card
    assert "mask: SQNR" in card


@pytest.mark.usefixtures("untimed")
def test_whole_numbers_are_measured_by_what_differs(two_headed, images, tmp_path):
    """The place of the largest of the mask's values, which int8 spoils: the fraction that differs is counted."""
    model = onnx.load(two_headed)
    model.graph.node.append(helper.make_node("ArgMax", ["mask"], ["where"], axis=1, keepdims=0))
    model.graph.output[1].CopyFrom(helper.make_tensor_value_info("where", TensorProto.INT64, ["n", 12, 12]))
    path = tmp_path / "where.onnx"
    onnx.save(model, path)
    given = {"data": images, "steps": [Int8Config()], "samples": 32, "keep_slower": True}
    mixed = compress(path, tmp_path / "mixed", **given).manifest.steps[-1].report
    assert re.search(r"of the values of output 'where' differ, more than 10%", mixed.float_why)
    assert mixed.differing["where"] <= 0.1
    bundle = compress(path, tmp_path / "out", accept=True, **given)
    x = np.stack(list(images.split("test").samples))
    with OnnxRunner(bundle.graph("")) as a, OnnxRunner(bundle.graph("cpu")) as b:
        counted = (a.infer({"image": x})["where"] != b.infer({"image": x})["where"]).mean()
    row = bundle.manifest.measurements[-1]
    assert row.differing == {"where": pytest.approx(counted)}
    assert row.outputs["where"] == pytest.approx(-10 * np.log10(counted))


@pytest.mark.usefixtures("untimed")
def test_an_output_that_is_not_finite_in_int8_is_mended(two_headed, images, tmp_path):
    """A layer's values near zero are zero in int8, and nothing is what is left of one over them."""
    model = onnx.load(two_headed)
    model.graph.node[-1].output[0] = "near"
    model.graph.node[-1].input.append("shift")
    model.graph.initializer.append(numpy_helper.from_array(np.full(2, 1e-3, np.float32), "shift"))
    model.graph.node.append(helper.make_node("Reciprocal", ["near"], ["mask"]))
    path = tmp_path / "over.onnx"
    onnx.save(model, path)
    given = {"data": images, "steps": [Int8Config()], "samples": 32, "keep_slower": True}
    bundle = compress(path, tmp_path / "out", **given)
    assert "is not finite" in bundle.manifest.steps[-1].report.float_why
    assert "project" in bundle.manifest.steps[-1].report.float_layers
    sqnr = bundle.manifest.steps[-1].report.outputs["mask"]
    assert sqnr is None or sqnr >= 10.0


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize("target", ["cpu", "tensorrt-rtx"])
def test_a_step_that_does_nothing_is_said_to_for_any_outputs_and_target(two_headed, images, tmp_path, refused, target):
    config = Int8Config(skip=("stem", "classes", "project"))
    with refused(RejectedError, "int8: it changed nothing: stem is left unchanged, as the recipe skips it"):
        compress(two_headed, tmp_path / "out", data=images, steps=[config], samples=16, targets=(target,))
    larger = {"data": images, "steps": [Int8Config()], "samples": 16, "accept": True, "targets": (target,)}
    with refused(RejectedError, "int8: larger:", hint="--keep-slower"):
        compress(two_headed, tmp_path / "out", **larger)
