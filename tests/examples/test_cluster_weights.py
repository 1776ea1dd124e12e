"""examples/cluster-weights: from the recipe's word to the report, and its codebooks held against their definition."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import examplepackages
import numpy as np
import onnx
import pytest
import smallnet
from onnx import numpy_helper
from rehearsal import rehearse

import pocketzoo
from pocketzoo.compress.configs import Int8Config
from pocketzoo.core.errors import MissingPluginError, RecipeError, UnknownNameError
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.catalog.compressor import Step

FOLDER = examplepackages.on_path("cluster-weights")
from pocketzoo_cluster_weights import ClusterConfig, ClusterPlan  # noqa: E402
from pocketzoo_cluster_weights.clustering import apply, cluster, layer_weights, plan  # noqa: E402


@pytest.fixture(scope="module")
def registry():
    return examplepackages.registry_with("cluster-weights", extra=(smallnet,))


@pytest.fixture(scope="module")
def clustered(small, registry, tmp_path_factory):
    """By its recipe, for two targets."""
    out = tmp_path_factory.mktemp("clustered") / "out"
    return pocketzoo.compress(
        small.path, out, data="digits", recipe=FOLDER / "cluster.toml", targets=("cpu", "tensorrt"), samples=16,
        keep_slower=True, registry=registry,
    )  # fmt: skip


def test_it_imports_nothing_of_pocketzoo_but_its_api():
    for path in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {n for n in names if n.split(".")[0] == "pocketzoo"} <= {"pocketzoo.api"}, path


# -- the codebooks


@pytest.mark.parametrize("count", [2, 3, 16, 256])
@pytest.mark.parametrize("seed", range(3))
def test_every_weight_has_the_nearest_value_and_every_value_is_the_mean_of_its_weights(count, seed):
    """Where k-means ends: neither half of a round changes anything."""
    weight = np.random.default_rng(seed).normal(size=(24, 6, 3, 3)).astype(np.float32)
    values, indices = cluster(weight, count)
    assert (values.dtype, indices.dtype, indices.shape) == (np.float32, np.uint8, weight.shape)
    assert np.all(np.diff(values) >= 0)
    distances = np.abs(weight.reshape(-1, 1).astype(np.float64) - values[None])
    own = np.take_along_axis(distances, indices.reshape(-1, 1).astype(int), axis=1)[:, 0]
    np.testing.assert_allclose(own, distances.min(axis=1), atol=1e-6)
    if count <= 16:  # 50 rounds are enough for these
        for i in range(count):
            if np.any(indices == i):
                assert weight[indices == i].mean() == pytest.approx(values[i], abs=2e-3)


def test_as_many_values_as_there_are_give_the_weights_back():
    weight = np.repeat(np.float32([-1.0, 0.5, 2.0]), 40).reshape(12, 10)
    values, indices = cluster(weight, 3)
    assert np.array_equal(values[indices], weight)


def test_the_graph_computes_what_its_codebooks_say(small):
    model = onnx.load(small.graph(""))
    made = plan(model, ClusterConfig(values=4))
    assert made.values
    by_hand = onnx.ModelProto()
    by_hand.CopyFrom(model)
    for tensor in by_hand.graph.initializer:
        layer = tensor.name.removesuffix(".weight")
        if layer in made.values:
            value = made.tensors[f"{layer}.codebook"][made.tensors[f"{layer}.indices"]]
            assert len(np.unique(value)) <= 4
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    x = np.random.default_rng(0).normal(size=(5, 1, 8, 8)).astype(np.float32)
    name = model.graph.input[0].name
    answers = []
    for graph in (by_hand, apply(model, made)):
        path = Path(os.environ["POCKETZOO_HOME"]) / "graph.onnx"
        onnx.save(graph, path)
        with OnnxRunner(path) as runner:
            answers.append(runner.infer({name: x}))
    for output, value in answers[0].items():
        np.testing.assert_allclose(answers[1][output], value, rtol=1e-5, atol=1e-6)


def test_names_that_the_graph_has_already_are_not_taken_twice(small):
    model = onnx.load(small.graph(""))
    weight = f"{next(iter(layer_weights(model)))}.weight"
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), f"{weight}.codebook"))
    onnx.checker.check_model(apply(model, plan(model, ClusterConfig(values=2))))


def test_what_no_layer_is_called_is_refused(small, refused):
    with refused(UnknownNameError, "no layer is called 'nowhere.*'"):
        plan(onnx.load(small.graph("")), ClusterConfig(skip=("nowhere.*",)))


@pytest.mark.parametrize("wrong", [{"values": 1}, {"values": 257}, {"max_drop": 1.0}])
def test_what_cannot_be_asked_is_refused(wrong, refused):
    with refused(RecipeError, f"{next(iter(wrong))} cannot be"):
        ClusterConfig(**wrong)


# -- in the pipeline


def test_its_step_is_recorded_with_who_took_it_and_its_tensors_by_position(clustered):
    (step,) = clustered.manifest.steps
    assert (step.compressor, step.plan_version) == ("cluster-weights", 1)
    assert step.config == {"values": 16, "skip": [], "max_drop": None}
    assert step.tensors == {"": "step-1.tensors.safetensors"}
    assert "step-1.tensors.safetensors" in clustered.manifest.files
    assert {d.layer: d.precision for d in step.decisions if not d.why} == dict.fromkeys(step.plan["values"], "codebook")
    size = step.report.bytes
    assert size.after < 0.6 * size.before
    assert {name for name, e in clustered.manifest.files.items() if e.target} == {
        "model.codebook.cpu.onnx", "model.codebook.tensorrt.onnx",
    }  # fmt: skip


def test_the_layers_have_the_precision_that_it_says(clustered):
    layers = {target: {row.layer: row for row in rows} for target, rows in clustered.manifest.layers.items()}
    (step,) = clustered.manifest.steps
    assert step.plan["values"]
    for layer in step.plan["values"]:
        before, after = layers["float"][layer], layers["cpu"][layer]
        assert (before.precision, after.precision) == ("float32", "codebook")
        assert after.parameters == before.parameters
        assert after.macs == before.macs
        assert after.bytes < 0.6 * before.bytes


def test_a_dry_run_shows_its_layers(small, registry):
    (step,) = rehearse(small.path, data="digits", recipe=FOLDER / "cluster.toml", samples=8, registry=registry)
    assert {d.layer: d.what for d in step.decisions if not d.why} == dict.fromkeys(step.plan["values"], "16 values")
    assert step.report.bytes.after < step.report.bytes.before


def test_the_report_has_its_line_and_its_precision(clustered, registry, tmp_path):
    page = pocketzoo.report([clustered.path], tmp_path / "report.html", registry=registry).read_text("utf8")
    assert "cluster-weights: 16 values" in page
    assert "in codebook" in page


def test_another_target_is_encoded_from_the_bundle_without_data(clustered, registry, tmp_path):
    out = pocketzoo.export(clustered.path, to="onnx", target="openvino", out=tmp_path / "o.onnx", registry=registry)
    names = {t.name for t in onnx.load(out).graph.initializer}
    assert any(name.endswith(".indices") for name in names)


def test_a_budget_is_searched_by_its_own_exclude_and_weaker(small, registry, tmp_path):
    """Two values ruin the model; layers are left in float, or share more values, until it is within the budget."""
    bundle = pocketzoo.compress(
        small.path, tmp_path / "out", data="digits", steps=[Step("cluster-weights", ClusterConfig(values=2))],
        max_drop=0.01, samples=16, keep_slower=True, registry=registry,
    )  # fmt: skip
    (step,) = bundle.manifest.steps
    assert step.report.metric.after >= step.report.metric.before - 0.01
    assert step.report.float_layers or step.config["values"] > 2
    assert all("bytes" in price for price in step.report.float_layers.values())
    assert {d.layer for d in step.decisions if d.why == "the budget excludes it"} == set(step.report.float_layers)


def test_its_own_budget_is_held_too(small, registry, tmp_path):
    config = ClusterConfig(values=3, max_drop=0.02)
    bundle = pocketzoo.compress(
        small.path, tmp_path / "out", data="digits", steps=[config], samples=16, keep_slower=True, registry=registry
    )
    (step,) = bundle.manifest.steps
    assert step.report.metric.after >= step.report.metric.before - 0.02


def test_without_the_plugin_the_bundle_says_what_to_install(clustered, small_registry, tmp_path, refused):
    with pocketzoo.load_runtime(clustered.path, registry=small_registry, provider="cpu") as runtime:
        assert runtime.file.name == "model.codebook.cpu.onnx", "what is encoded already runs without it"
    with refused(MissingPluginError, "the compressor 'cluster-weights' is of"):
        pocketzoo.export(clustered.path, to="onnx", target="openvino", out=tmp_path / "o.onnx", registry=small_registry)


def test_weaker_gives_more_values():
    (spec,) = __import__("pocketzoo_cluster_weights").pocketzoo_compressors()
    assert [spec.weaker(ClusterConfig(), share).values for share in (1.0, 0.5, 0.0)] == [16, 64, 256]
    left = spec.exclude(ClusterPlan(values={"a": 4, "a.b": 4}, tensors={"a.codebook": 1, "a.b.indices": 2}), ["a"])
    assert (left.values, left.tensors) == ({"a.b": 4}, {"a.b.indices": 2})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cluster-weights", "int8-percentile"])
def test_it_passes_the_conformance_suite(name, tmp_path):
    environment = {**os.environ, **examplepackages.installed(name, tmp_path / "site")}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--pyargs",
        "pocketzoo.testing",
        "--plugin",
        name,
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_a_config_that_one_compressor_takes_needs_no_name(small, registry):
    (step,) = rehearse(small.path, data="digits", steps=[ClusterConfig()], samples=8, registry=registry)
    assert step.compressor == "cluster-weights"
    (step,) = rehearse(small.path, data="digits", steps=[Int8Config()], samples=8, registry=registry)
    assert step.compressor == "int8"


def test_the_bundle_reads_as_it_was_written(clustered):
    assert read_bundle(clustered.path).manifest == clustered.manifest
