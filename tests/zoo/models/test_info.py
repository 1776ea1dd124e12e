from __future__ import annotations

import json

import pytest

import pocketzoo
from pocketzoo.core.errors import BundleError, UnknownNameError
from pocketzoo.core.typed import to_plain
from pocketzoo.zoo.catalog.registry import list_specs
from pocketzoo.zoo.models.info import info


@pytest.mark.parametrize("entry", list_specs(), ids=lambda e: f"{e.kind} {e.name}")
def test_everything_that_is_registered_has_facts_that_are_json(entry):
    facts = info(entry.name)
    assert facts["name"] == entry.name
    mine = facts[entry.kind]
    assert mine["plugin"] == entry.plugin
    assert mine["summary"] == entry.spec.summary
    assert json.loads(json.dumps(facts)) == facts


def test_a_backbone_shows_what_it_reads_and_gives(registry):
    facts = info("tinynet", registry=registry)["backbone"]
    spec = registry.get("backbone", "tinynet")
    assert facts["input"] == to_plain(spec.input)
    assert facts["features"] == {"kind": "map", "shape": ["batch", 128, 7, 7]}
    assert [cut["layer"] for cut in facts["cuts"]] == ["stem", "stage1"]
    assert facts["weights"]["sha256"] == spec.weights.file.sha256
    assert facts["training"]["test_accuracy"] == spec.training["test_accuracy"]
    assert facts["license"] == "MIT"


def test_a_pretrained_head_shows_its_labels(registry):
    facts = info("tinynet-fashion-mnist", registry=registry)["head"]
    assert facts["labels"] == list(registry.get("head", "tinynet-fashion-mnist").labels())


def test_a_name_of_two_kinds_shows_both(registry):
    assert set(info("tensorrt", registry=registry)) == {"name", "backend", "target"}


def test_a_folder_called_as_a_registered_name_does_not_hide_it(registry, tmp_path, monkeypatch):
    """As ``new-plugin my-task`` writes a folder, and declares the task."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tinynet").mkdir()
    assert info("tinynet", registry=registry)["backbone"]["license"]


def test_a_bundle_shows_its_manifest(fitted):
    facts = info(fitted.path)
    assert facts == {"bundle": str(fitted.path), **to_plain(fitted.manifest), "measured": None}
    assert info(str(fitted.path)) == facts
    assert pocketzoo.info(fitted.path) == facts


def test_a_bundle_shows_where_it_was_last_measured(compressed):
    assert info(compressed.path)["measured"] == to_plain(compressed.manifest.measurements[-1].measured)


def test_nothing_is_built_or_downloaded(registry, pocketzoo_home):
    before = sorted(pocketzoo_home.rglob("*"))
    info("tinynet", registry=registry)
    assert sorted(pocketzoo_home.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "hint"), [("tinynt", "'tinynet'"), ("fashionmnist", "'fashion-mnist'"), ("0", "known")]
)
def test_an_unknown_name_gets_the_nearest_of_any_kind(refused, registry, name, hint):
    with refused(UnknownNameError, f"{name!r} is neither a bundle nor a registered name", hint=hint):
        info(name, registry=registry)


def test_a_path_that_is_not_there_is_a_bundle_error(refused, registry, tmp_path):
    with refused(BundleError, "there is no bundle at", hint="pocketzoo fit"):
        info(tmp_path / "nothing", registry=registry)


def test_a_folder_that_is_no_bundle(refused, registry, tmp_path):
    with refused(BundleError, "is not a bundle"):
        info(tmp_path, registry=registry)


def test_a_head_shows_the_loss_that_its_task_follows(registry):
    """Where the task has a loss of its own, the head's default is no fact about it."""
    losses = {name: info(name, registry=registry)["head"].get("loss") for name in registry.entries("head")}
    expected = {
        "linear": "cross_entropy",
        "pooled-classifier": "cross_entropy",
        "regression": "mse_loss",
        "q-values": "smooth_l1_loss",
        "embedding": "",
        "multi-label": None,
        "token-classifier": None,
        "language-model": None,
    }
    assert {name: losses[name] for name in expected} == expected
