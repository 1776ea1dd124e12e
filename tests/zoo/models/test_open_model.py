"""Opening a model by path or by name; a name is made into a bundle once, and again when that is damaged."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from feeds import only

import pocketzoo
from pocketzoo.core.errors import BundleError, UnknownNameError
from pocketzoo.core.files import home
from pocketzoo.plugins import tinynet
from pocketzoo.plugins.tinynet.module import TinyNet
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.bundles.manifest import MANIFEST
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Entry, Registry
from pocketzoo.zoo.catalog.specs import HubFile, Weights
from pocketzoo.zoo.hub.weights import read_weights
from pocketzoo.zoo.models.build import load_module
from pocketzoo.zoo.models.info import info
from pocketzoo.zoo.models.open_model import open_model
from pocketzoo.zoo.models.provenance import provenance


@pytest.fixture(scope="module")
def bundle(registry):
    return open_model("tinynet", registry=registry)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [("/models", Path("/models")), ("~/models", Path.home() / "models"), ("", Path.home() / ".cache" / "pocketzoo")],
)
def test_home(monkeypatch, value, wanted):
    monkeypatch.setenv("POCKETZOO_HOME", value)
    assert home() == wanted
    monkeypatch.delenv("POCKETZOO_HOME")
    assert home() == Path.home() / ".cache" / "pocketzoo"


def test_a_name_becomes_a_bundle_below_home(bundle, registry, pocketzoo_home):
    manifest, spec = bundle.manifest, registry.get("backbone", "tinynet")
    assert bundle.path.parent == pocketzoo_home / "models"
    assert (manifest.name, manifest.license, manifest.labels) == ("tinynet", "MIT", tinynet.LABELS)
    assert (manifest.model.backbone, manifest.model.head, manifest.model.outputs) == ("tinynet", spec.head, 10)
    assert manifest.provenance["sha256"] == tinynet.FILE.sha256
    assert manifest.provenance["weights"] == "package:pocketzoo.plugins.tinynet/tinynet.safetensors"
    assert manifest.provenance["pretraining"]["test_accuracy"] == spec.training["test_accuracy"]
    assert manifest.provenance["torch"] == torch.__version__


def test_the_bundle_holds_the_pretrained_weights(bundle, registry):
    spec = registry.get("backbone", "tinynet")
    module = load_module(bundle, registry)
    state = {f"backbone.{k}": v for k, v in read_weights(spec.weights).items()}
    state |= {f"head.{k}": v for k, v in read_weights(registry.get("head", spec.head).weights).items()}
    own = module.state_dict()
    assert all(torch.equal(own[k], v) for k, v in state.items())
    backbone = TinyNet().eval()
    backbone.load_state_dict(read_weights(spec.weights), strict=False)
    x = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), OnnxRunner(bundle.graph()) as runner:
        wanted = module.head(backbone(x)).numpy()
        np.testing.assert_allclose(only(runner, x.numpy()), wanted, atol=1e-3)


def test_opening_again_makes_nothing(bundle, registry):
    before = {p: p.stat().st_mtime_ns for p in bundle.path.iterdir()}
    said = []

    class Saying:
        def track(self, items, label, total=None):
            yield from items

        def say(self, text):
            said.append(text)

    assert open_model("tinynet", registry=registry, progress=Saying()) == bundle
    assert {p: p.stat().st_mtime_ns for p in bundle.path.iterdir()} == before
    assert said == []


@pytest.mark.parametrize("damage", ["flipped byte", "missing file", "missing manifest", "empty manifest", "no folder"])
def test_a_damaged_copy_is_made_again(bundle, registry, tmp_path, monkeypatch, damage):
    path = tmp_path / "models" / bundle.path.name
    shutil.copytree(bundle.path, path)
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path))
    graph = path / "model.onnx"
    if damage == "flipped byte":
        raw = bytearray(graph.read_bytes())
        raw[1000] ^= 1
        graph.write_bytes(raw)
    elif damage == "missing file":
        graph.unlink()
    elif damage == "missing manifest":
        (path / MANIFEST).unlink()
    elif damage == "empty manifest":
        (path / MANIFEST).write_text("")
    else:
        shutil.rmtree(path)
    with pytest.raises(BundleError):
        read_bundle(path)
    again = open_model("tinynet", registry=registry)
    assert again.path == path
    assert again.manifest.files["model.safetensors"] == bundle.manifest.files["model.safetensors"]
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_bundle_is_opened_by_path(fitted, registry):
    for reference in (fitted.path, str(fitted.path)):
        assert open_model(reference, registry=registry) == fitted
    assert pocketzoo.open_model(fitted.path) == fitted


def test_a_relative_path_is_a_path(fitted_copy, registry, monkeypatch):
    monkeypatch.chdir(fitted_copy.path.parent)
    for reference in ("copy", "./copy", "../" + fitted_copy.path.parent.name + "/copy"):
        assert open_model(reference, registry=registry).manifest == fitted_copy.manifest


def test_a_bundle_in_the_current_folder_comes_before_a_name(fitted_copy, registry, monkeypatch):
    fitted_copy.path.rename(fitted_copy.path.parent / "tinynet")
    monkeypatch.chdir(fitted_copy.path.parent)
    assert open_model("tinynet", registry=registry).manifest == fitted_copy.manifest


@pytest.mark.parametrize(("name", "hint"), [("tinynte", "did you mean 'tinynet'?"), ("0", "known: tinynet")])
def test_an_unknown_name_gets_the_nearest(registry, refused, name, hint):
    with refused(UnknownNameError, f"{name!r} is neither a bundle nor a registered model", hint=hint):
        open_model(name, registry=registry)


@pytest.mark.parametrize("path", ["no/such/bundle", "/no/such/bundle", "models/tinynet"])
def test_a_path_that_is_not_there_is_no_name(registry, refused, path):
    with refused(BundleError, f"there is no bundle at {path}", hint="pocketzoo fit"):
        open_model(path, registry=registry)


@pytest.mark.parametrize("path", ["net.onnx", "no/such/net.onnx", "file:net.onnx"])
def test_a_graph_that_is_not_there_is_a_file(registry, refused, path):
    for opens in (open_model, info):
        with refused(BundleError, f"there is no file {path.removeprefix('file:')}", hint="check the path"):
            opens(path, registry=registry)


def registry_with(**changes) -> Registry:
    (spec,) = tinynet.pocketzoo_backbones()
    plugin = ModuleType("acme")
    plugin.pocketzoo_backbones = pocketzoo.hookimpl(lambda: [replace(spec, name="acme-net", **changes)])
    return Registry(create_manager(points=[], extra=[plugin]))


@pytest.mark.parametrize("changes", [{"head": ""}, {"weights": None}, {"head": "", "weights": None}], ids=str)
def test_a_backbone_without_classifier_says_how_to_fit_one(refused, changes):
    with refused(UnknownNameError, "acme-net has no pretrained head", hint="pocketzoo fit acme-net"):
        open_model("acme-net", registry=registry_with(**changes))


def test_where_weights_are_from():
    (spec,) = tinynet.pocketzoo_backbones()
    hub = HubFile(repo_id="acme/net", revision="a" * 40, filename="m.safetensors", sha256="b" * 64)
    facts = provenance(Entry("backbone", spec.name, replace(spec, weights=Weights(file=hub)), "acme"))
    assert facts["weights"] == f"hf://acme/net@{'a' * 40}/m.safetensors"
    assert (facts["sha256"], facts["plugin"], facts["source"]) == ("b" * 64, "acme", spec.source)
    bare = provenance(Entry("backbone", spec.name, replace(spec, weights=None), "acme"))
    assert (bare["weights"], bare["sha256"]) == ("", "")
