"""What is put into a bundle, recounted."""

from __future__ import annotations

import json

import onnx
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pocketzoo.core.errors import ExportError
from pocketzoo.zoo.bundles.bundle import read_bundle, writing
from pocketzoo.zoo.bundles.manifest import ModelRef
from pocketzoo.zoo.bundles.step_record import StepRecord
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.graphs.cost import layer_costs
from pocketzoo.zoo.models.save import save_model

SPEC = InputSpec(shape=("batch", 1, 4, 4), mean=(0.5,), std=(0.5,), resize=4)
REF = ModelRef(backbone="b", head="h", outputs=3)


def save(path, module, **more):
    more = {"name": "toy", "labels": ("a", "b", "c"), "license": "MIT", "input_spec": SPEC, "provenance": {}, **more}
    with writing(path) as draft:
        save_model(draft, module, REF, **more)
    return read_bundle(path)


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3)).eval()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, module):
    step = StepRecord(compressor="prune", config={"ratio": 0.5}, plan={"axes": {}})
    return save(
        tmp_path_factory.mktemp("save") / "toy", module,
        provenance={"plugin": "toy"}, steps=(step,), metrics={"test_accuracy": 0.5},
    )  # fmt: skip


def test_the_weights_are_saved_bit_for_bit(bundle, module):
    saved, own = load_file(bundle.file("model.safetensors")), module.state_dict()
    assert set(saved) == set(own)
    assert all(torch.equal(saved[k], v) for k, v in own.items())


def test_the_facts_are_counted(bundle, module):
    manifest = bundle.manifest
    assert manifest.parameters == sum(p.numel() for p in module.parameters()) == 18 + 2 + 4 + 27
    assert manifest.macs == sum(c.macs for c in layer_costs(bundle.graph())) == 2 * 2 * 2 * 9 + 24
    assert manifest.layers == {"float": tuple(layer_costs(bundle.graph()))}
    assert manifest.files["model.onnx"].precision == "float32"
    assert manifest.files["model.onnx"].target == ""


def test_what_was_given_is_in_the_manifest(bundle):
    manifest = bundle.manifest
    assert (manifest.name, manifest.labels, manifest.license, manifest.input) == ("toy", ("a", "b", "c"), "MIT", SPEC)
    assert manifest.model == REF
    assert manifest.provenance["plugin"] == "toy"
    assert 0 <= manifest.provenance["export_difference"] <= 1e-4
    assert [step.compressor for step in manifest.steps] == ["prune"]
    assert manifest.metrics == {"test_accuracy": 0.5}


def test_a_weight_that_shares_memory_is_saved(tmp_path):
    """Views and tied weights: safetensors refuses both unless they are copied."""
    base = torch.randn(3, 32)
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    module[1].weight = nn.Parameter(base[:, ::2])
    saved = load_file(save(tmp_path / "toy", module).file("model.safetensors"))
    assert torch.equal(saved["1.weight"], base[:, ::2])


def test_the_opset_is_the_one_asked_for(tmp_path, module):
    graph = onnx.load(save(tmp_path / "toy", module, opset=18).graph())
    assert graph.opset_import[0].version == 18


def test_a_module_that_does_not_export_leaves_no_bundle(tmp_path, refused):
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with refused(ExportError, "torch cannot export"):
        save(tmp_path / "toy", Branching())
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_is_json_only(bundle):
    assert json.loads((bundle.path / "pocketzoo.json").read_text())["provenance"]["export_difference"] >= 0
