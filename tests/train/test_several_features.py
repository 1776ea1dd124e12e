"""Models whose backbone gives several features, from fit to device."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import severalfeatures
import torch

import pocketzoo
from pocketzoo.api import Int8Config, LowRankConfig, PruneConfig, Registry
from pocketzoo.measure.evaluate import evaluate
from pocketzoo.train.transfer_learning import of_features
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.bundles.bundle import Bundle, read_bundle
from pocketzoo.zoo.bundles.manifest import ModelRef
from pocketzoo.zoo.data.processors.open_processor import processor_of
from pocketzoo.zoo.models.build import load_module, resolve
from pocketzoo.zoo.models.resolver import Resolver

FIT = {"epochs": 12, "batch_size": 12, "learning_rate": 0.05}
KINDS = ["pyramid", "encoders", "tokens"]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return severalfeatures.registry()


def fitted(name: str, out, registry: Registry, head: str = "all-of-them", **more) -> Bundle:
    return pocketzoo.fit(name, out, head=head, data=severalfeatures.samples(name), registry=registry, **{**FIT, **more})


def outputs_of(bundle: Bundle, module: torch.nn.Module, graph: str, registry: Registry) -> tuple[dict, dict]:
    """Those of the module and of a graph, for the test split."""
    samples = severalfeatures.samples(bundle.manifest.model.backbone).split("test").samples
    inputs = processor_of(bundle, registry)(samples)
    with torch.no_grad():
        wanted = module(*map(torch.from_numpy, inputs.values()))
    with OnnxRunner(bundle.graph(graph)) as runner:
        return {"logits": wanted.numpy()}, dict(runner.infer(inputs))


@pytest.mark.parametrize("name", KINDS)
def test_a_head_learns_on_features_that_are_kept(name, registry, tmp_path, own_home, monkeypatch):
    """The cache gives what the backbone does: without it the weights are the same."""
    config = {"unfreeze": "last:1", "training": {"head_epochs": 2}, "epochs": 3}
    bundle = fitted(name, tmp_path / "kept", registry, **config)
    places = list((own_home / "features").iterdir())
    assert len(places) == 3
    monkeypatch.setenv("POCKETZOO_FEATURES", "0")
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    again = fitted(name, tmp_path / "each-time", registry, **config)
    one, two = (load_module(each, Resolver(registry)).state_dict() for each in (bundle, again))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, atol=1e-5, rtol=1e-4)
    wanted, found = outputs_of(bundle, load_module(bundle, Resolver(registry)), "", registry)
    np.testing.assert_allclose(found["logits"], wanted["logits"], atol=1e-4)


@pytest.mark.parametrize("head", ["fine-alone", "coarse-alone", "both-levels"])
def test_a_head_reads_what_it_names(head, registry, tmp_path):
    bundle = fitted("pyramid", tmp_path / head, registry, head)
    assert bundle.manifest.metrics["test_accuracy"] > 0.9
    module = load_module(bundle, Resolver(registry))
    wanted, found = outputs_of(bundle, module, "", registry)
    np.testing.assert_allclose(found["logits"], wanted["logits"], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_it_goes_from_fit_to_a_device(name, registry, tmp_path):
    """Trained whole, compressed by three steps, exported, scored and asked: every step on the same model."""
    data = severalfeatures.samples(name)
    bundle = fitted(name, tmp_path / "whole", registry, unfreeze="all")
    assert bundle.manifest.metrics["test_accuracy"] > 0.9
    steps = [PruneConfig(ratio=0.25), LowRankConfig(energy=0.95), Int8Config()]
    if name == "tokens":
        steps = steps[1:]  # an embedding has no channels that could go
    small = pocketzoo.compress(
        bundle.path, tmp_path / "small", data=data, steps=steps, keep_slower=True, registry=registry
    )
    module = load_module(small, Resolver(registry))
    wanted, found = outputs_of(small, module, "", registry)
    np.testing.assert_allclose(found["logits"], wanted["logits"], atol=1e-4)
    assert evaluate(small.path, data=data, registry=registry)["accuracy"] > 0.85
    out = tmp_path / "small.onnx"
    pocketzoo.export(small.path, out=out, to="onnx", target="cpu", registry=registry)
    samples = data.split("test").samples
    inputs = processor_of(small, registry)(samples)
    with OnnxRunner(out) as runner, pocketzoo.load_runtime(small, target="cpu", registry=registry) as runtime:
        exported = runner.infer(inputs)["logits"]
        np.testing.assert_allclose(runtime.predict(samples), exported, atol=1e-3)
    right = data.split("test").targets
    assert float(np.mean(exported.argmax(1) == right)) > 0.85


def test_adapters_go_into_every_encoder(registry, tmp_path):
    pytest.importorskip("peft")
    bundle = fitted("encoders", tmp_path / "adapted", registry, training={"lora_rank": 2, "head_epochs": 1}, epochs=4)
    torch.manual_seed(0)
    before = Resolver(registry).spec("backbone", "encoders").build().state_dict()
    after = load_module(bundle, Resolver(registry)).backbone.state_dict()
    assert before.keys() == after.keys()
    wanted, found = outputs_of(bundle, load_module(bundle, Resolver(registry)), "", registry)
    np.testing.assert_allclose(found["logits"], wanted["logits"], atol=1e-4)


def test_images_of_a_pyramid_are_augmented(registry, tmp_path):
    pytest.importorskip("kornia")
    settings = {"augment": "flip", "head_epochs": 2, "unfreeze": "last:1"}
    bundle = fitted("pyramid", tmp_path / "augmented", registry, training=settings, epochs=4)
    assert bundle.manifest.metrics["test_accuracy"] > 0.8


def test_what_reads_features_calls_the_head_as_the_model_does(registry):
    for head in ("all-of-them", "fine-alone"):
        parts = resolve(ModelRef(backbone="pyramid", head=head, outputs=2), registry)
        module = parts.head.build(parts.features, 2)
        features = {"fine": torch.rand(2, 16, 8, 8), "coarse": torch.rand(2, 32, 4, 4)}
        given = parts.choice.by_name(features)
        reader = of_features(module, parts.choice)
        assert torch.equal(reader(*given.values()), module(parts.choice(features)))


def test_what_the_decoder_reads_is_what_learns_and_what_a_runtime_predicts(registry, tmp_path):
    """The second of two outputs: not the first, whatever has as many numbers."""
    data = severalfeatures.samples("pyramid")
    bundle = fitted("pyramid", tmp_path / "second", registry, "scores-second")
    assert bundle.manifest.metrics["test_accuracy"] > 0.9
    samples, right = data.split("test").samples, data.split("test").targets
    with OnnxRunner(bundle.graph("")) as runner:
        wanted = runner.infer(processor_of(bundle, registry)(samples))
    with pocketzoo.load_runtime(bundle, provider="onnxruntime", registry=registry) as runtime:
        assert [tensor.name for tensor in runtime.signature.outputs] == ["vector", "scores"]
        assert runtime.output == "scores"
        every = runtime.infer(samples)
        assert list(every) == ["vector", "scores"]
        for name, out in every.items():
            np.testing.assert_allclose(out, wanted[name], atol=1e-5)
        assert np.array_equal(runtime.predict(samples), every["scores"])
        place = {name: np.empty_like(out) for name, out in every.items()}
        assert all(out is place[name] for name, out in runtime.infer(samples, out=place).items())
        assert np.array_equal(place["vector"], every["vector"])
        scores = np.empty_like(every["scores"])
        assert runtime.predict(samples, out=scores) is scores
        assert np.array_equal(scores, every["scores"])
        answers = runtime.answers(samples)
        assert np.array_equal(answers.probabilities.argmax(1), every["scores"].argmax(1))
        assert float(np.mean(every["scores"].argmax(1) == right)) > 0.9


def test_a_runtime_of_several_outputs_without_a_task_predicts_the_first(tmp_path):
    import onnx

    from pocketzoo.testing import two_of_each
    from pocketzoo.zoo.models.import_onnx import open_graph

    onnx.save(two_of_each.graph(), tmp_path / "two.onnx")
    inputs = two_of_each.inputs()
    with pocketzoo.load_runtime(open_graph(tmp_path / "two.onnx"), provider="onnxruntime") as runtime:
        assert runtime.output == "scores"
        assert np.array_equal(runtime.predict(inputs), runtime.infer(inputs)["scores"])


@pytest.mark.parametrize(("head_epochs", "room"), [(2, "8e9"), (2, "0"), (0, "8e9")])
def test_a_decoder_looks_at_the_inputs_of_its_samples(head_epochs, room, registry, tmp_path, own_home, monkeypatch):
    """Where features are kept, where they are computed each time, and where all is trained; afterwards in eval too."""
    monkeypatch.setenv("POCKETZOO_FEATURES", room)
    data = severalfeatures.samples("tokens")
    settings = {"head_epochs": head_epochs, "unfreeze": "last:1"}
    bundle = fitted("tokens", tmp_path / "x", registry, "looks-at-inputs", epochs=3, training=settings)
    assert any(own_home.rglob("facts.json")) is (head_epochs > 0 and room != "0")
    assert bundle.manifest.metrics["test_accuracy"] == 1.0, "what the decoder saw in the inputs"
    assert evaluate(bundle.path, data=data, registry=registry)["accuracy"] == 1.0


SCRIPT = """
import sys
import pocketzoo, severalfeatures
out, shard = sys.argv[1], sys.argv[2] == "shard"
pocketzoo.fit(
    "tokens", out, head="all-of-them", data=severalfeatures.samples("tokens"), registry=severalfeatures.registry(),
    unfreeze="all", epochs=2, batch_size=12, learning_rate=0.05, shard=shard, training={"head_epochs": 1},
)
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["average", "shard"])
def test_two_processes_learn_from_every_input_what_one_does(way, registry, tmp_path):
    """The head on features by name first, and then all of it."""
    one = fitted("tokens", tmp_path / "one", registry, unfreeze="all", epochs=2, training={"head_epochs": 1})
    (tmp_path / "script.py").write_text(SCRIPT)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
    here = Path(__file__).parents[1]
    done = subprocess.run(
        [*command, tmp_path / "script.py", tmp_path / "two", way],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (here.parent, here)))},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    want, have = (load_module(each, Resolver(registry)).state_dict() for each in (one, read_bundle(tmp_path / "two")))
    for name, value in want.items():
        torch.testing.assert_close(have[name], value, atol=1e-4, rtol=1e-3)
