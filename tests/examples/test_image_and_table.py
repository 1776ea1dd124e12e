"""The example package in examples/image-and-table: two inputs and two outputs, through every step."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import imageandtable
import numpy as np
import pytest
import torch

import pocketzoo
from pocketzoo.api import Bundle, Int8Config, LowRankConfig, PruneConfig, RecipeError, Registry
from pocketzoo.compress.pipeline.compress_model import dry_run
from pocketzoo.compress.pipeline.settings import CompressSettings
from pocketzoo.core.progress import Silent
from pocketzoo.measure.evaluate import evaluate
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.models.build import load_module
from pocketzoo.zoo.models.open_model import open_model
from pocketzoo.zoo.models.resolver import Resolver

pytest.importorskip("sklearn")

NAME = "digits-and-measures"


@pytest.fixture(scope="module")
def registry() -> Registry:
    return imageandtable.registry()


@pytest.fixture(scope="module")
def batch() -> dict[str, np.ndarray]:
    """The test split, made ready by arithmetic of our own."""
    import pocketzoo_image_and_table as plugin
    from pocketzoo_image_and_table.measures import load

    split = load().split("test")
    pixels = np.stack([sample["image"] for sample in split.samples])[:, None] / 255
    rows = np.array([[sample["measures"][name] for name in plugin.COLUMNS] for sample in split.samples])
    return {
        "image": ((pixels - plugin.IMAGE.mean[0]) / plugin.IMAGE.std[0]).astype(np.float32),
        "measures": ((rows - plugin.MEASURES.mean) / plugin.MEASURES.std).astype(np.float32),
        "y": split.targets,
    }


@pytest.fixture(scope="module")
def small(registry, tmp_path_factory) -> Bundle:
    steps = [PruneConfig(macs=0.6), LowRankConfig(energy=0.95), Int8Config()]
    out = tmp_path_factory.mktemp("two") / "small"
    return pocketzoo.compress(NAME, out, data=NAME, steps=steps, samples=128, keep_slower=True, registry=registry)


def test_it_imports_nothing_of_pocketzoo_but_its_api():
    files = sorted((imageandtable.PACKAGE / "pocketzoo_image_and_table").glob("*.py"))
    modules = {
        node.module
        for file in files
        for node in ast.walk(ast.parse(file.read_text("utf8")))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "pocketzoo"
    }
    assert modules == {"pocketzoo.api"}


def test_the_graph_gives_both_outputs_of_the_module(registry, batch):
    bundle = open_model(NAME, registry=registry)
    module = load_module(bundle, Resolver.of(registry))
    feed = {name: batch[name] for name in ("image", "measures")}
    with OnnxRunner(bundle.graph("")) as runner, torch.no_grad():
        outputs, expected = runner.infer(feed), module(*map(torch.from_numpy, feed.values()))
    assert list(outputs) == list(expected) == ["logits", "embedding"]
    for name, want in expected.items():
        np.testing.assert_allclose(outputs[name], want.numpy(), rtol=1e-4, atol=1e-4)
    right = float(np.mean(outputs["logits"].argmax(1) == batch["y"]))
    assert right > 0.98
    assert evaluate(NAME, data=NAME, registry=registry)["accuracy"] == pytest.approx(right)


def test_three_steps_make_it_small_and_every_output_is_measured(small, registry, batch):
    whole = open_model(NAME, registry=registry)
    assert small.manifest.rejected == ()
    assert small.manifest.macs < 0.7 * whole.manifest.macs
    assert small.manifest.signature == whole.manifest.signature
    rows = pocketzoo.bench([NAME, small.path], data=NAME, seconds=0, memory=False, registry=registry)
    feed = {name: batch[name] for name in ("image", "measures")}
    with OnnxRunner(whole.graph("")) as runner:
        reference = runner.infer(feed)
    with OnnxRunner(small.graph("cpu")) as runner:
        outputs = runner.infer(feed)
    (row,) = [row for row in rows if row.target == "cpu"]
    for name, want in reference.items():  # counted again by a formula of our own
        noise = np.square(want.astype(np.float64) - outputs[name]).sum()
        decibels = 10 * np.log10(np.square(want, dtype=np.float64).sum() / noise)
        assert row.outputs[name] == pytest.approx(decibels, abs=0.05)
    assert row.sqnr == min(row.outputs.values())
    assert row.accuracy == pytest.approx(float(np.mean(outputs["logits"].argmax(1) == batch["y"])))
    assert row.accuracy > 0.95


def test_it_is_exported_and_runs_on_samples(small, registry, tmp_path, batch):
    from pocketzoo_image_and_table.measures import load

    out = tmp_path / "small.onnx"
    pocketzoo.export(small.path, out=out, to="onnx", target="cpu", registry=registry)
    feed = {name: batch[name][:3] for name in ("image", "measures")}
    with OnnxRunner(out) as runner:
        expected = runner.infer(feed)
    assert list(expected) == ["logits", "embedding"]
    samples = load().split("test").samples[:3]
    with pocketzoo.load_runtime(small, target="cpu", registry=registry) as runtime:
        np.testing.assert_allclose(runtime.predict(samples), expected["logits"], atol=1e-3)
        np.testing.assert_allclose(runtime.predict(feed), expected["logits"], atol=1e-5)


def test_it_conforms(tmp_path):
    paths = [imageandtable.PACKAGE.parents[1], imageandtable.installed(tmp_path / "installed"), imageandtable.PACKAGE]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--pyargs", "pocketzoo.testing", "--plugin", "image-and-table"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:]


FIT = {"head": "linear", "data": NAME, "epochs": 3, "batch_size": 64, "learning_rate": 3e-3}


def weights(bundle: Bundle, registry: Registry) -> dict[str, torch.Tensor]:
    return load_module(bundle, Resolver(registry)).state_dict()


def test_it_is_trained_whole(registry, tmp_path, batch):
    """Every input learns, not the head on frozen features alone; what was fitted is what was exported."""
    bundle = pocketzoo.fit(NAME, tmp_path / "whole", unfreeze="all", registry=registry, **FIT)
    after, pretrained = weights(bundle, registry), weights(open_model(NAME, registry=registry), registry)
    layers = [name for name in pretrained if name.startswith("backbone.") and pretrained[name].ndim > 1]
    assert {name.split(".")[1] for name in layers} == {"image", "table", "joined"}
    assert not any(torch.equal(after[name], pretrained[name]) for name in layers)
    with OnnxRunner(bundle.graph("")) as runner:
        outputs = runner.infer({name: batch[name] for name in ("image", "measures")})
    assert float(np.mean(outputs["logits"].argmax(1) == batch["y"])) > 0.95
    assert bundle.manifest.metrics["test_accuracy"] == pytest.approx(
        float(np.mean(outputs["logits"].argmax(1) == batch["y"])), abs=1e-9
    )


def test_a_frozen_backbone_stays_as_it_is(registry, tmp_path):
    bundle = pocketzoo.fit(NAME, tmp_path / "frozen", registry=registry, **FIT)
    pretrained = weights(open_model(NAME, registry=registry), registry)
    for name, value in weights(bundle, registry).items():
        if name.startswith("backbone."):
            assert torch.equal(value, pretrained[name]), name


def test_images_are_augmented_and_every_input_is_mixed(registry, tmp_path, refused):
    pytest.importorskip("kornia")
    settings = {"augment": "shift:0.1,rotate:5", "mix": "mixup:0.2"}
    bundle = pocketzoo.fit(
        NAME, tmp_path / "augmented", unfreeze="last:2", training=settings, registry=registry, **{**FIT, "epochs": 2}
    )
    assert bundle.manifest.metrics["test_accuracy"] > 0.9
    with refused(RecipeError, "this model reads 'measures' alongside", hint="mix=mixup:0.2 mixes every input"):
        pocketzoo.fit(NAME, tmp_path / "cut", training={"mix": "cutmix:1"}, registry=registry, **FIT)


def test_a_killed_run_ends_with_the_same_weights(registry, tmp_path, monkeypatch):
    monkeypatch.setattr("pocketzoo.train.training_loop.SECONDS", 0.0)  # a snapshot a step
    settings = {**FIT, "epochs": 2, "unfreeze": "all"}
    whole = pocketzoo.fit(NAME, tmp_path / "whole", registry=registry, **settings)

    class Stopping(Silent):
        steps = 0

        def track(self, items, label, total=None):
            for item in items:
                if label == "fine-tuning" and item == 1:
                    raise KeyboardInterrupt
                yield item

    with pytest.raises(KeyboardInterrupt):
        pocketzoo.fit(NAME, tmp_path / "killed", registry=registry, progress=Stopping(), **settings)
    again = pocketzoo.fit(NAME, tmp_path / "killed", registry=registry, **settings)
    one, two = weights(whole, registry), weights(again, registry)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_forecast_counts_the_work_of_every_input(registry):
    settings = CompressSettings(steps=(PruneConfig(macs=0.6),), samples=64)
    (step,) = dry_run(open_model(NAME, registry=registry).path, settings, data=NAME, registry=registry)
    assert 0 < step.report.macs.after < 0.7 * step.report.macs.before
