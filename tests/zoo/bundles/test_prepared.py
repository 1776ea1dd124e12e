"""Prepared models: made again when anything they are made of changed, and removed when nobody wants them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from hubmodels import write_headed
from localhub import point_at

from pocketzoo.cli.main import cli
from pocketzoo.core.files import home
from pocketzoo.zoo.bundles.prepared import prepared, prepared_models, prune, remove
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.hub.reference import parse
from pocketzoo.zoo.hub.store import Store
from pocketzoo.zoo.models.open_model import open_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # transformers' own, while it builds a model
NAME = "hf://acme/classifier"


@pytest.fixture
def online(hub, tmp_path, monkeypatch):
    """The Hub with a classifier of texts, whose files are in ``repository``."""
    write_headed(tmp_path / "repository", "bert", "sequence", labels=3)
    point_at(hub, monkeypatch, tmp_path / "hf")
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    hub.state.add_folder("acme/classifier", tmp_path / "repository")
    return hub


def opened(name: str = NAME):
    return open_model(name, registry=Registry(create_manager(points=[])))


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf8")), **changes}), "utf8")


def save_graph(path: Path) -> Path:
    """A product with a constant, as a file from elsewhere."""
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N, 3] x) => (float[N, 2] y)
        <float[3, 2] w = {1, 2, 3, 4, 5, 6}> { y = MatMul(x, w) }"""
    onnx.save(onnx.parser.parse_model(text), path)
    return path


CHANGES = {
    "labels": lambda folder: edit(folder / "config.json", id2label={"0": "bad", "1": "so so", "2": "good"}),
    "activation": lambda folder: edit(folder / "config.json", hidden_act="relu"),
    "heads": lambda folder: edit(folder / "config.json", num_attention_heads=4),
    "tokenizer": lambda folder: edit(folder / "tokenizer.json", normalizer={"type": "Lowercase"}),
    "weights": lambda folder: write_headed(folder, "bert", "sequence", labels=3, changes={"initializer_range": 0.5}),
}


def test_a_commit_that_changes_one_file_is_another_model(online, tmp_path):
    """Config alone first: what was prepared of the commit before is not what is asked for."""
    folder = tmp_path / "repository"
    first = opened()
    assert first.manifest.labels == ("kind 0", "kind 1", "kind 2")
    CHANGES["labels"](folder)
    commit = online.state.add_folder("acme/classifier", folder)
    assert opened().manifest.labels == opened(f"{NAME}@{commit}").manifest.labels == ("bad", "so so", "good")
    assert opened(first.manifest.model.backbone).manifest.labels == first.manifest.labels


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_each_file_of_a_repository_makes_another_model(online, tmp_path, change):
    before = opened()
    CHANGES[change](tmp_path / "repository")
    online.state.add_folder("acme/classifier", tmp_path / "repository")
    after = opened()
    assert after.path != before.path
    weights = [bundle.manifest.files["model.safetensors"].sha256 for bundle in (before, after)]
    files = [bundle.manifest.files[name].sha256 for bundle in (before, after) for name in sorted(bundle.manifest.files)]
    assert (weights[0] != weights[1]) == (change == "weights")
    assert len(set(files)) > len(files) // 2  # something that the bundle is of differs
    assert opened().path == after.path


def test_without_a_cache_it_is_made_again(monkeypatch, tmp_path):
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    graph = save_graph(tmp_path / "small.onnx")
    first = open_model(graph).path
    (first / "marker").touch()
    assert (open_model(graph).path / "marker").exists()
    monkeypatch.setenv("POCKETZOO_NO_CACHE", "1")
    assert open_model(graph).path == first
    assert not (first / "marker").exists()


def test_what_nobody_opened_for_a_month_is_pruned(monkeypatch, tmp_path):
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    bundle = open_model(save_graph(tmp_path / "small.onnx"))
    prune()
    assert prepared_models() == [("small", sum(f.stat().st_size for f in bundle.path.iterdir()))]
    os.utime(bundle.path, (time.time() - 40 * 86400,) * 2)
    assert prune() >= sum(entry.size for entry in bundle.manifest.files.values())
    assert prepared_models() == []
    assert prepared("small", bundle.path.name.rpartition("-")[2]) == (bundle.path, None)


def test_rm_removes_a_model_and_what_was_prepared_of_it(online, tmp_path):
    folder = tmp_path / "repository"
    old = online.state.add_folder("acme/classifier", folder)
    opened()
    CHANGES["labels"](folder)
    new = online.state.add_folder("acme/classifier", folder)
    opened()
    assert {pin.commit for pin in Store().pins()} == {old, new}
    assert remove(parse(f"{NAME}@{old}")) > 0
    assert {pin.commit for pin in Store().pins()} == {new}
    opened()
    assert remove(parse(f"{NAME}@{old}")) == 0, "what was prepared of other commits stays"
    assert len(prepared_models()) == 1
    freed = remove(parse(NAME))
    assert freed > 0
    assert (Store().pins(), prepared_models()) == ([], [])
    assert not list((home() / "models").iterdir())
    assert remove(parse(NAME)) == 0


def test_the_command_names_what_is_not_stored(monkeypatch, tmp_path):
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    open_model(save_graph(tmp_path / "small.onnx"))
    result = CliRunner().invoke(cli, ["store", "ls"])
    assert (result.exit_code, result.stdout.split()[:2]) == (0, ["small", "prepared"])
    assert CliRunner().invoke(cli, ["store", "rm", "small"]).stdout.startswith("removed small: ")
    for name in ("small", "hf://acme/nothing"):
        result = CliRunner().invoke(cli, ["store", "rm", name])
        said = f"error: {name} is not stored here\nhint:  see pocketzoo store ls\n"
        assert (result.exit_code, result.stderr) == (1, said)
