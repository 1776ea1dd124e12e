"""Pull, lock, update, outdated, search: the real Hub client against a Hub on this machine."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import torch
from hubmodels import write_model, write_sentence_transformer
from localhub import point_at

import pocketzoo
from pocketzoo.core.errors import (
    BadReferenceError,
    HubAccessError,
    HubConnectionError,
    HubMissingError,
    LicenseError,
    LockError,
    UnknownNameError,
    UnsafeFileError,
    UnsupportedModelError,
)
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.hub.lock_file import Lock, Locked, LockedFile, read_lock, write_lock
from pocketzoo.zoo.hub.store import Store
from pocketzoo.zoo.models.build import load_module
from pocketzoo.zoo.models.open_model import open_model
from pocketzoo.zoo.models.pull import lock, outdated, pull, update
from pocketzoo.zoo.models.push import push
from pocketzoo.zoo.models.resolver import Resolver
from pocketzoo.zoo.models.search import search

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # transformers' own, while it builds a model
TINY, SENTENCES = "hf://acme/tiny-bert", "hf://acme/sentences"


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("repositories")
    write_model(base / "bert", "bert")
    write_model(base / "resnet", "resnet")
    write_sentence_transformer(base / "sentences")
    return {path.name: path for path in base.iterdir()}


@pytest.fixture
def online(hub, folders, tmp_path, monkeypatch):
    """The Hub with three models, an empty store, and a folder to work in."""
    for repo, folder in {"acme/tiny-bert": "bert", "acme/resnet": "resnet", "acme/sentences": "sentences"}.items():
        hub.state.add_folder(repo, folders[folder])
    point_at(hub, monkeypatch, tmp_path / "hf")
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return hub


def fresh() -> Registry:
    return Registry(create_manager(points=[]))


def test_a_pull_brings_what_the_loader_wants_and_nothing_else(online):
    (found,) = pull([TINY], registry=fresh())
    assert {f.path for f in found.files} == {"config.json", "model.safetensors", "tokenizer.json"}
    assert (found.loader, found.license, len(found.commit)) == ("transformers", "apache-2.0", 40)
    assert found.pinned == f"{TINY}@{found.commit}"
    store = Store()
    assert {f.sha256 for f in found.files} == {p.name for p in store.root.glob("blobs/*/*")}
    assert store.verify() == []


def test_a_second_pull_of_a_commit_asks_for_nothing(online):
    (found,) = pull([TINY], registry=fresh())
    online.state.log.clear()
    assert pull([found.pinned], registry=fresh())[0].files == found.files
    assert online.state.log == []


def test_offline_a_branch_is_what_it_was_when_last_seen(online, monkeypatch, refused):
    (found,) = pull([TINY], registry=fresh())
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def no_socket(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", no_socket)
    assert pull([TINY], registry=fresh())[0].commit == found.commit
    with refused(HubConnectionError, "offline"):
        pull(["hf://acme/resnet"], registry=fresh())


@pytest.mark.parametrize(
    ("ref", "kind"),
    [
        ("tinynet", BadReferenceError), ("file:x", BadReferenceError), ("hf://a b", BadReferenceError),
        ("hf://acme/nothing", HubMissingError), (f"{TINY}@no-such-branch", HubMissingError),
        (f"{TINY}@{'0' * 40}", HubMissingError),
    ],
)  # fmt: skip
def test_references_that_lead_nowhere(ref, kind, online):
    with pytest.raises(kind) as caught:
        pull([ref], registry=fresh())
    assert caught.value.hint


def test_what_no_loader_reads_is_refused_before_its_weights_are_fetched(online, folders, tmp_path, refused):
    evil = tmp_path / "evil"
    evil.mkdir()
    config = json.loads((folders["bert"] / "config.json").read_text())
    (evil / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Model"}}))
    (evil / "evil.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    (evil / "model.safetensors").write_bytes((folders["bert"] / "model.safetensors").read_bytes())
    online.state.add_folder("acme/evil", evil)
    with refused(UnsupportedModelError, "acme/evil", "requires custom code"):
        pull(["hf://acme/evil"], registry=fresh())
    assert not (tmp_path / "canary").exists()
    assert not any("model.safetensors" in r["path"] or "evil.py" in r["path"] for r in online.state.log)


@pytest.mark.parametrize("content", [b"no json", b"\x80\x04K\x01.", b"[" * 100_000])
def test_a_config_that_is_none(content, online, tmp_path, refused):
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "config.json").write_bytes(content)
    online.state.add_folder("acme/broken", tmp_path / "repo")
    with refused(UnsafeFileError, "not valid JSON"):
        pull(["hf://acme/broken"], registry=fresh())


# -- lock


def test_a_lock_holds_commit_and_digests_and_pull_holds_to_it(online):
    (found,) = lock([TINY], registry=fresh())
    entry = read_lock(Path("zoo.lock"))[TINY]
    assert entry.commit == found.commit
    assert {(f.path, f.size, f.sha256) for f in entry.file} == {(f.path, f.size, f.sha256) for f in found.files}
    assert pull([], locked=True, registry=fresh()) == pull([TINY], locked=True, registry=fresh())
    assert pull([], locked=True, registry=fresh())[0].files == found.files


def change(hub, folders, tmp_path) -> str:
    """A new commit on main of the tiny model."""
    folder = tmp_path / "changed"
    write_model(folder, "bert", num_hidden_layers=1)
    return hub.state.add_folder("acme/tiny-bert", folder)


def test_a_branch_that_moves_is_outdated_until_it_is_updated(online, folders, tmp_path):
    (old,) = lock([TINY, SENTENCES], registry=fresh())[:1]
    assert outdated() == []
    new = change(online, folders, tmp_path)
    assert outdated() == [(TINY, old.commit, new)]
    assert pull([], locked=True, registry=fresh())[0].commit in {
        old.commit,
        read_lock(Path("zoo.lock"))[SENTENCES].commit,
    }
    assert pull([TINY], locked=True, registry=fresh())[0].commit == old.commit
    assert pull([TINY], registry=fresh())[0].commit == new
    assert lock([TINY], registry=fresh())[0].commit == old.commit, "a lock is not moved by locking again"
    assert update([TINY], registry=fresh())[0].commit == new
    assert outdated() == []


def test_a_name_without_a_commit_is_the_locked_one_for_whom_the_lock_was_given(online, folders, tmp_path, run):
    """Commands read the lock of the folder they run in; a function reads none that it was not given."""
    (old,) = lock([TINY], registry=fresh())
    new = change(online, folders, tmp_path)

    def found(**given) -> str:
        return Resolver(fresh(), **given).entry("backbone", TINY).name

    assert found(lock=Lock.read("zoo.lock")) == old.pinned
    assert found() == pocketzoo.info(TINY, registry=fresh())["name"] == f"{TINY}@{new}"
    assert pocketzoo.info(TINY, registry=Resolver.locked("zoo.lock", fresh()))["name"] == old.pinned
    assert json.loads(run("info", TINY, "--json").stdout)["name"] == old.pinned
    update([], registry=fresh())
    assert found(lock=Lock.read("zoo.lock")) == f"{TINY}@{new}"
    assert json.loads(run("info", TINY, "--json").stdout)["name"] == f"{TINY}@{new}"


def test_a_damaged_lock_is_told_to_commands_that_may_need_it_and_to_no_other(online, run):
    lock([TINY], registry=fresh())
    Path("zoo.lock").write_text("version = 1\n[[model]]\n")
    done = run("info", TINY)
    assert (done.exit_code, "zoo.lock is damaged" in done.stderr) == (1, True)
    assert run("info", "tinynet").exit_code == 0
    assert pocketzoo.info(TINY, registry=fresh())["name"].startswith(f"{TINY}@")
    with pytest.raises(LockError, match=r"zoo.lock is damaged"):
        Lock.read("zoo.lock")


def test_a_resolver_asks_the_hub_once_for_a_commit_and_nothing_when_offline(online):
    resolver = Resolver(fresh())
    first = resolver.entry("backbone", TINY)
    online.state.log.clear()
    assert resolver.entry("backbone", first.name) is first
    assert Resolver(fresh(), offline=True).entry("backbone", TINY).name == first.name, "as last seen"
    with pytest.raises(HubConnectionError, match="offline"):
        Resolver(fresh(), offline=True).entry("backbone", "hf://acme/resnet")
    assert online.state.log == []


def test_bytes_that_differ_from_the_lock_are_refused(online, refused):
    lock([TINY], registry=fresh())
    path = Path("zoo.lock")
    entry = read_lock(path)[TINY]
    wrong = tuple(LockedFile(path=f.path, size=f.size, sha256="0" * 64) for f in entry.file)
    write_lock(path, [Locked(ref=TINY, commit=entry.commit, file=wrong)])
    with refused(LockError, "config.json", hint="pocketzoo update"):
        pull([TINY], locked=True, registry=fresh())
    with refused(LockError, "does not have hf://acme/resnet", hint="pocketzoo lock hf://acme/resnet"):
        pull(["hf://acme/resnet"], locked=True, registry=fresh())
    with refused(LockError, "does not have", hint="pocketzoo lock"):
        update(["hf://acme/resnet"], registry=fresh())


# -- use


@pytest.mark.slow
def test_a_model_of_the_hub_is_a_backbone_and_its_bundle_needs_no_hub(online, tmp_path, monkeypatch):
    words = ["the", "small", "fast", "edge", "device", "model", "texts", "images"]
    rows = [f"{words[i % 8]} {words[(i * 3) % 8]} {words[i % 4]},{'even' if i % 2 else 'odd'}" for i in range(80)]
    (tmp_path / "texts.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    bundle = pocketzoo.fit(TINY, "fitted", data=tmp_path / "texts.csv", epochs=3, registry=fresh())
    assert bundle.manifest.model.backbone.startswith(f"{TINY}@")
    assert set(bundle.source_files()) == {"config.json", "tokenizer.json"}
    from pocketzoo.compress.configs import Int8Config

    small = pocketzoo.compress(
        "fitted", "small", data=tmp_path / "texts.csv", steps=[Int8Config()], samples=16, keep_slower=True,
        registry=fresh(),
    )  # fmt: skip
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "nothing"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    online.state.log.clear()
    one, two = load_module(bundle, fresh()), load_module(small, fresh())
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    (prediction,) = pocketzoo.predict("small", ["the fast model"], registry=fresh())
    assert {label for label, _ in prediction.top} == {"even", "odd"}
    assert online.state.log == []


@pytest.mark.slow
def test_a_repository_with_pooling_is_a_whole_model(online, refused):
    bundle = open_model(SENTENCES, registry=fresh())
    assert len([r for r in online.state.log if r["path"].startswith("/api/models/")]) == 1, "the Hub is asked once"
    assert bundle.manifest.model.head.endswith("#head")
    assert (bundle.manifest.labels, bundle.manifest.model.outputs) == ((), 32)
    assert open_model(SENTENCES, registry=fresh()).path == bundle.path
    with refused(UnknownNameError, "no pretrained head"):
        open_model(TINY, registry=fresh())


@pytest.mark.parametrize("ref", [f"{TINY}#head", f"{TINY}#model.safetensors"])
def test_a_head_that_is_none(ref, online):
    with pytest.raises(UnknownNameError):
        Resolver(fresh()).entry("head", ref)


# -- push


@pytest.mark.parametrize("head_only", [False, True])
def test_a_bundle_goes_up_and_comes_back_on_another_machine(
    head_only, online, fitted_copy, tmp_path, monkeypatch, refused
):
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    (fitted_copy.path / "model.tensorrt.engine").write_bytes(b"a program")
    pinned = push(fitted_copy.path, "tester/digits", head_only=head_only)
    monkeypatch.delenv("HF_TOKEN")
    files = {path for path, _ in _files(online, "tester/digits")}
    assert not any(path.endswith(".engine") for path in files)
    assert ("model.safetensors" in files) != head_only
    assert ("head.safetensors" in files) == head_only
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "another"))
    bundle = open_model("hf://tester/digits#head" if head_only else "hf://tester/digits", registry=fresh())
    assert pinned.split("#")[0].startswith("hf://tester/digits@")
    assert bundle.manifest.labels == fitted_copy.manifest.labels
    one, two = load_module(fitted_copy, fresh()), load_module(bundle, fresh())
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    (found,) = pull(["hf://tester/digits"], registry=fresh())
    assert found.loader == "pocketzoo"
    with refused(UnsupportedModelError, "whole model"):
        Resolver(fresh()).entry("backbone", "hf://tester/digits")


def _files(hub, repo_id: str):
    repo = hub.state.repos["models", repo_id]
    return repo.commits[repo.branches["main"]][3].items()


def test_a_push_needs_a_token_and_a_licence(online, fitted_copy, monkeypatch, refused):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nonexistent/token")
    with refused(HubAccessError, "needs a token", hint="HF_TOKEN"):
        push(fitted_copy.path, "tester/digits")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with refused(HubAccessError, "tester/digits"):
        push(fitted_copy.path, "tester/digits")
    manifest = fitted_copy.path / "pocketzoo.json"
    manifest.write_text(manifest.read_text().replace('"license": "MIT"', '"license": "other"'))
    with refused(LicenseError, "license of tinynet", hint="--license"):
        push(fitted_copy.path, "tester/digits")


# -- search


def test_a_search_lists_what_can_be_loaded_and_why_not_the_rest(online, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "mamba"}')
    online.state.add_folder("acme/mamba", tmp_path / "other")
    found = {f.repo_id: f for f in search("acme", registry=fresh())}
    assert {name for name, f in found.items() if f.loader} == {"acme/tiny-bert", "acme/resnet", "acme/sentences"}
    assert "'mamba' is not supported" in found["acme/mamba"].reason
    assert [f.repo_id for f in search("resnet", registry=fresh())] == ["acme/resnet"]
    assert search("nothing of this name", registry=fresh()) == []
    assert {f.repo_id for f in search("acme", library="transformers", registry=fresh())} >= {"acme/tiny-bert"}
    assert all(not f.loader for f in search("acme", max_params=1, registry=fresh()))
