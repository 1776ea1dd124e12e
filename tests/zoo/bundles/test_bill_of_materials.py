from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import version

import pytest

import pocketzoo
from pocketzoo.core.files import sha256
from pocketzoo.zoo.bundles.bill_of_materials import bill_of_materials, packages
from pocketzoo.zoo.bundles.bundle import SOURCE_PREFIX, Bundle
from pocketzoo.zoo.bundles.manifest import MANIFEST, FileEntry
from pocketzoo.zoo.bundles.step_record import Rejection, StepRecord, StepReport
from pocketzoo.zoo.models.materials import materials


def test_the_packages_are_those_at_work_here():
    found = packages()
    assert next(iter(found)) == "python"
    assert found["torch"] == version("torch")
    assert found["onnxruntime"] == version("onnxruntime")
    assert "surely-not-installed" not in found


def test_a_fitted_bundle_says_what_it_is_from(fitted, registry):
    found = materials(fitted.path, registry=registry)
    assert found["bundle"]["manifest"] == sha256(fitted.path / MANIFEST)
    weights = registry.get("backbone", "tinynet").weights.file
    assert found["origin"]["backbone"] == "tinynet"
    assert found["origin"]["lock"] == {f"package:{weights.package}/{weights.path}": weights.sha256}
    assert found["data"]["sha256"] == pocketzoo.load_data("digits").digest()
    assert found["packages"] == packages()
    assert found["metrics"] == json.loads(json.dumps(dict(fitted.manifest.metrics)))
    assert {name: file["sha256"] for name, file in found["files"].items()} == {
        name: sha256(fitted.path / name) for name in fitted.manifest.files
    }
    assert not {"steps", "rejected", "calibration"} & set(found), "nothing was compressed"


def test_a_compressed_bundle_says_from_what_and_by_which_steps(compressed, fitted):
    found = pocketzoo.materials(compressed.path)
    assert found["bundle"]["compressed_from"] == {
        "name": fitted.manifest.name,
        "manifest": sha256(fitted.path / MANIFEST),
    }
    assert [step["compressor"] for step in found["steps"]] == ["prune", "low-rank", "int8"]
    assert found["steps"][0]["ratio"] == 0.3
    assert found["calibration"]["samples"] == 48
    assert found["data"] == bill_of_materials(fitted)["data"], "what it was fitted on stays"


def test_a_model_of_the_hub_is_named_by_commit_and_files(fitted):
    commit = "0123456789" * 4
    weights = f"hf://acme/model@{commit}/sub/model.safetensors"
    noted = {"weights": weights, "sha256": "a" * 64, "shards": {"b": "b" * 64}}
    files = {**fitted.manifest.files, "backbone.1_Pooling+config.json": fitted.manifest.files["README.md"]}
    made = replace(fitted.manifest, provenance=noted, files=files)
    origin = bill_of_materials(Bundle(fitted.path, made))["origin"]
    assert (origin["repository"], origin["commit"]) == ("hf://acme/model", commit)
    assert origin["lock"] == {
        "sub/model.safetensors": "a" * 64,
        "b": "b" * 64,
        "1_Pooling/config.json": fitted.manifest.files["README.md"].sha256,
    }


def test_of_what_nobody_recorded_nothing_is_said(fitted):
    found = bill_of_materials(Bundle(fitted.path, replace(fitted.manifest, provenance={}, metrics={})))
    assert list(found) == ["bundle", "origin", "files"]
    assert set(found["origin"]) == {"backbone", "head"}


@pytest.mark.parametrize("source", ["fitted", "compressed"])
def test_the_command(source, run, request):
    bundle = request.getfixturevalue(source)
    found = json.loads(run("info", bundle.path, "--provenance", "--json").stdout)
    assert found == json.loads(json.dumps(materials(bundle.path)))
    text = run("info", bundle.path, "--provenance").stdout
    lines = dict(line.split(None, 1) for line in text.splitlines())
    assert lines["bundle.manifest"] == sha256(bundle.path / MANIFEST)
    assert lines["files.model.onnx"].startswith(f"sha256 {sha256(bundle.path / 'model.onnx')}, ")
    assert lines["data.digest"] == found["data"]["sha256"]


def test_what_was_recorded_is_said_and_no_more(fitted):
    """All that may be in it, written out."""
    step = StepRecord(
        compressor="prune",
        provider="acme 1.0",
        config={"ratio": 0.5},
        plan={"axes": {}},
        report=StepReport(seconds=1.0),
    )
    provenance = {
        "packed_from": "hf://o/p", "compressed_from": {"name": "m"}, "data": {"name": "d", "findings": ["x"]},
        "calibration": {"samples": 3, "skipped": 0, "note": ""}, "packages": {"torch": "9"}, "plugin": "p",
        "source": "arXiv", "weights": "hf://o/m@abc/sub/w.safetensors", "sha256": "11",
        "shards": {"s1": "22", "s2": ""},
    }  # fmt: skip
    entries = {"hub+a+b.json": FileEntry(sha256="33", size=4), "model.onnx": FileEntry(sha256="44", size=5)}
    manifest = replace(
        fitted.manifest, provenance=provenance, steps=(step,), metrics={"a": 0.5},
        rejected=(Rejection(compressor="int8", why="larger", cause="larger"), Rejection(compressor="low-rank", why="")),
        files={name.replace("hub+", SOURCE_PREFIX): entry for name, entry in entries.items()},
    )  # fmt: skip
    found = bill_of_materials(replace(fitted, manifest=manifest))
    assert found["bundle"]["packed_from"] == "hf://o/p"
    assert found["bundle"]["compressed_from"] == {"name": "m"}
    assert found["bundle"]["parameters"] == manifest.parameters
    assert found["origin"] == {
        "backbone": "tinynet", "head": "linear", "plugin": "p", "source": "arXiv", "repository": "hf://o/m",
        "commit": "abc", "lock": {"sub/w.safetensors": "11", "s1": "22", "a/b.json": "33"},
    }  # fmt: skip
    assert {name: found[name] for name in found if name not in ("bundle", "origin")} == {
        "data": {"name": "d"},
        "calibration": {"samples": 3, "skipped": 0},
        "steps": [{"compressor": "prune", "provider": "acme 1.0", "ratio": 0.5}],
        "rejected": [{"compressor": "int8", "why": "larger"}, {"compressor": "low-rank", "why": ""}],
        "packages": {"torch": "9"},
        "metrics": {"a": 0.5},
        "files": {name: {"sha256": e.sha256, "bytes": e.size} for name, e in manifest.files.items()},
    }
    bare = replace(manifest, provenance={"torch": "8", "weights": "package:p/w"}, rejected=(), steps=(), metrics={})
    less = bill_of_materials(replace(fitted, manifest=bare))
    assert less["packages"] == {"torch": "8"}
    assert not {"steps", "rejected", "metrics", "calibration", "data"} & set(less)
    assert less["origin"] == {"backbone": "tinynet", "head": "linear", "lock": {"a/b.json": "33"}}
