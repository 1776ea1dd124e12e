"""Models with several outputs: each is measured, named, and held to what was asked."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.pipeline.compress_model import compress
from pocketzoo.core.errors import DataError, RejectedError
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
def test_an_output_that_is_lost_is_named_and_nothing_is_written(two_headed, images, tmp_path, refused):
    given = {"data": images, "steps": [Int8Config()], "samples": 32, "keep_slower": True}
    with refused(RejectedError, "the SQNR of output 'mask'", hint="--accept"):
        compress(two_headed, tmp_path / "out", **given)
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
