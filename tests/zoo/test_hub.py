"""The real Hub client against a Hub on this machine, in processes of its own: it reads HF_ENDPOINT when imported."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from localhub import Fault

from pocketzoo.plugins import tinynet
from pocketzoo.zoo.weights import locate

if TYPE_CHECKING:
    from localhub import LocalHub

BIG = bytes(range(256)) * 200  # 51 kB: served as an LFS file, from another origin
SMALL = b'{"model_type": "tinynet"}\n'
FILES = {"model.safetensors": BIG, "config.json": SMALL}

FETCH = """
import json, sys
from pocketzoo.errors import PocketzooError
from pocketzoo.zoo.hub import fetch
from pocketzoo.zoo.specs import HubFile

def attempt(pin):
    try:
        path = fetch(HubFile(**pin))
        return {"path": str(path), "text": path.read_bytes().hex()}
    except PocketzooError as error:
        return {"kind": type(error).__name__, "message": error.message, "hint": error.hint}

print("\\n" + json.dumps([attempt(pin) for pin in json.loads(sys.argv[1])]))
"""


class Client:
    """Processes that share a cache and an endpoint."""

    def __init__(self, endpoint: str, home: Path) -> None:
        self.home = home
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        self.environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        self.environment |= {"POCKETZOO_HOME": str(home / "pocketzoo"), "POCKETZOO_PATIENCE": "3"}

    def python(self, code: str, *arguments: str, **more: str) -> str:
        environment = {**self.environment, **more}
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True, text=True, timeout=120, check=False, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.splitlines()[-1]
        return done.stdout

    def fetch(self, *pins: dict[str, str], **more: str) -> list[dict[str, Any]]:
        return json.loads(self.python(FETCH, json.dumps(pins), **more).splitlines()[-1])

    def blobs(self) -> list[Path]:
        return [p for p in self.home.rglob("blobs/*/*") if p.is_file()]

    def snapshots(self) -> list[Path]:
        return [p for p in self.home.rglob("snapshots/*/*") if p.is_symlink() or p.is_file()]


@pytest.fixture
def client(hub, tmp_path) -> Client:
    return Client(hub.url, tmp_path / "hf")


@pytest.fixture
def commit(hub, tmp_path) -> str:
    """Of acme/tinynet, which holds FILES."""
    folder = tmp_path / "repo"
    folder.mkdir()
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    return hub.state.add_folder("acme/tinynet", folder)


def pin(commit: str, filename: str = "model.safetensors", **more: str) -> dict[str, str]:
    digest = hashlib.sha256(FILES.get(filename, b"")).hexdigest()
    return {"repo_id": "acme/tinynet", "revision": commit, "filename": filename, "sha256": digest, **more}


def data_requests(hub: LocalHub) -> list[str]:
    return [r["path"] for r in hub.state.log if r["method"] == "GET" and ("/cdn/" in r["path"] or "/resolve/" in r["path"])]  # fmt: skip # noqa: E501


def assert_refused(result: dict[str, Any], *parts: str, hint: str) -> None:
    assert result.get("kind") == "HubError", result
    for part in parts:
        assert part in result["message"]
    assert hint in result["hint"]
    assert "\n" not in result["message"]


@pytest.mark.parametrize("filename", FILES)
@pytest.mark.parametrize("xet", [False, True], ids=["http", "xet"])
def test_a_pinned_file_arrives_with_its_bytes(hub, client, commit, filename, xet):
    hub.state.xet = xet
    (result,) = client.fetch(pin(commit, filename), HF_HUB_DISABLE_XET="0" if xet else "1")
    assert bytes.fromhex(result["text"]) == FILES[filename]
    assert Path(result["path"]).is_relative_to(client.home)
    assert Path(result["path"]).name == filename


def test_a_pinned_file_that_is_cached_makes_no_request(hub, client, commit):
    first, second = client.fetch(pin(commit), pin(commit))
    assert first == second
    before = len(hub.state.log)
    assert len(data_requests(hub)) >= 1
    assert client.fetch(pin(commit)) == [first]
    assert len(hub.state.log) == before


def test_a_cached_file_needs_no_hub(hub, client, commit):
    first = client.fetch(pin(commit))
    hub.state.faults.append(Fault("", "status", times=-1, status=503))
    assert client.fetch(pin(commit)) == first
    assert client.fetch(pin(commit), HF_HUB_OFFLINE="1") == first
    assert client.fetch(pin(commit), HF_ENDPOINT="http://127.0.0.1:9") == first


@pytest.mark.parametrize("at", [0, 100, len(BIG) - 1])
def test_a_byte_flipped_on_the_way_is_noticed_and_fetched_again(hub, client, commit, at):
    hub.state.faults.append(Fault("GET /cdn/", "flip", at=at))
    (result,) = client.fetch(pin(commit))
    assert bytes.fromhex(result["text"]) == BIG
    assert len([p for p in data_requests(hub) if "/cdn/" in p]) == 2
    assert [p.read_bytes() for p in client.blobs()] == [BIG]


def test_a_byte_flipped_in_a_small_file_is_noticed_as_well(hub, client, commit):
    hub.state.faults.append(Fault("GET /acme/tinynet/resolve/.*config.json", "flip", at=3))
    (result,) = client.fetch(pin(commit, "config.json"))
    assert bytes.fromhex(result["text"]) == SMALL


@pytest.mark.parametrize("filename", FILES)
def test_a_byte_flipped_every_time_leaves_nothing_behind(hub, client, commit, filename):
    hub.state.faults.append(Fault("GET /", "flip", times=-1, at=3))
    (result,) = client.fetch(pin(commit, filename))
    assert_refused(result, "acme/tinynet", filename, "other bytes than pinned", hint="do not use it")
    assert client.blobs() == []
    assert client.snapshots() == []


@pytest.mark.parametrize("filename", FILES)
def test_other_bytes_than_pinned_leave_nothing_behind(hub, client, commit, filename):
    (result,) = client.fetch(pin(commit, filename, sha256="0" * 64))
    assert_refused(result, "acme/tinynet", commit[:12], filename, "sha256", hint="do not use it")
    assert client.blobs() == []
    assert client.snapshots() == []


def test_a_file_that_rots_in_the_cache_is_fetched_again(hub, client, commit):
    client.fetch(pin(commit))
    (blob,) = client.blobs()
    blob.write_bytes(BIG[:-1] + b"x")
    (result,) = client.fetch(pin(commit))
    assert bytes.fromhex(result["text"]) == BIG


@pytest.mark.parametrize(
    "revision",
    ["main", "refs/pr/1", "v1.0", "", "HEAD", "0" * 39, "0" * 41, "A" * 40, "g" * 40, "0" * 40 + "\n", "abcdef0"],
    ids=repr,
)
def test_a_pin_is_a_commit(hub, client, commit, revision):
    (result,) = client.fetch(pin(commit, revision=revision))
    assert_refused(result, "acme/tinynet", repr(revision), hint="40 hex digits")
    assert hub.state.log == []


@pytest.mark.parametrize(
    "wrong",
    [{"repo_id": "acme/nothing"}, {"filename": "nothing.safetensors"}, {"revision": "0" * 40}],
    ids=lambda w: next(iter(w)),
)
def test_what_the_hub_does_not_have(hub, client, commit, wrong):
    (result,) = client.fetch({**pin(commit), **wrong})
    named = str(next(iter(wrong.values())))[:12]
    assert_refused(result, "the Hub has no", named, hint="pin is stale")
    assert client.blobs() == []


def test_a_private_repository_looks_like_none(hub, client, commit):
    hub.state.repos["models", "acme/tinynet"].private = True
    (result,) = client.fetch(pin(commit))
    assert_refused(result, "the Hub has no acme/tinynet", hint="pin is stale")


def test_a_gated_repository_says_so(hub, client, commit):
    hub.state.repos["models", "acme/tinynet"].gated = "manual"
    (result,) = client.fetch(pin(commit))
    assert_refused(result, "acme/tinynet is gated", hint="ask for access")


@pytest.mark.parametrize("repo_id", ["a/b/c", "../etc", "a b"], ids=repr)
def test_a_repository_name_that_cannot_be(hub, client, commit, repo_id):
    (result,) = client.fetch(pin(commit, repo_id=repo_id))
    assert result["kind"] == "HubError"
    assert result["hint"]


@pytest.mark.parametrize("where", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "file"])
def test_no_token_goes_along(hub, client, commit, where):
    if where == "file":
        client.home.mkdir(parents=True)
        (client.home / "token").write_text("hf_test")
    more = {} if where == "file" else {where: "hf_test"}
    (result,) = client.fetch(pin(commit), **more)
    assert bytes.fromhex(result["text"]) == BIG
    assert hub.state.log
    assert {r["auth"] for r in hub.state.log} == {None}
    assert "hf_test" not in json.dumps(hub.state.log)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        Fault("", "status", times=-1, status=401),
        Fault("", "reset", times=-1),
        Fault("GET /cdn/", "truncate", times=-1, at=1000),
        Fault("GET /cdn/", "reset", times=-1, at=1000),
        Fault("GET /cdn/", "status", times=-1, status=503),
        Fault("GET /cdn/", "badlen", times=-1, at=500),
    ],
    ids=lambda f: f"{f.action} {f.status if f.action == 'status' else ''} {f.match or 'everywhere'}",
)
def test_a_hub_that_fails_is_one_typed_error(hub, client, commit, fault):
    hub.state.faults.append(fault)
    (result,) = client.fetch(pin(commit))
    assert result["kind"] == "HubError", result
    assert "acme/tinynet" in result["message"]
    assert "\n" not in result["message"]
    assert client.snapshots() == []


@pytest.mark.slow
def test_a_hub_that_is_not_there_is_about_the_connection(client, commit):
    """Not about a stale pin: the client's own error for it is a kind of "entry not found"."""
    (result,) = client.fetch(pin(commit), HF_ENDPOINT="http://127.0.0.1:9")
    assert_refused(result, "acme/tinynet", hint="check the connection")


def test_offline_without_a_copy_is_about_the_connection(hub, client, commit):
    (result,) = client.fetch(pin(commit), HF_HUB_OFFLINE="1")
    assert_refused(result, "acme/tinynet", hint="check the connection")
    assert hub.state.log == []


def test_a_cache_that_cannot_be_written_is_a_typed_error(hub, client, commit, tmp_path):
    (tmp_path / "file").write_text("in the way")
    (result,) = client.fetch(pin(commit), HF_HOME=str(tmp_path / "file"))
    assert_refused(result, "acme/tinynet", hint="")


def test_one_bad_file_does_not_spoil_the_next(hub, client, commit):
    bad, good = client.fetch(pin(commit, sha256="0" * 64), pin(commit))
    assert bad["kind"] == "HubError"
    assert bytes.fromhex(good["text"]) == BIG


BACKBONE = """
import json, sys
from dataclasses import replace
from types import ModuleType
import torch
import pocketzoo
from pocketzoo.plugins import tinynet
from pocketzoo.plugins.manager import create_manager
from pocketzoo.zoo.bundle import ModelRef
from pocketzoo.zoo.model import build, load_pretrained
from pocketzoo.zoo.pretrained import provenance
from pocketzoo.zoo.registry import Registry
from pocketzoo.zoo.specs import HubFile, Weights
from pocketzoo.zoo.weights import read_weights

pin = json.loads(sys.argv[1])
(local,) = tinynet.pocketzoo_backbones()
spec = replace(local, name="hubnet", head="", weights=Weights(file=HubFile(**pin), prefix="backbone."))
plugin = ModuleType("acme")
plugin.pocketzoo_backbones = pocketzoo.hookimpl(lambda: [spec])
registry = Registry(create_manager(found=[], extra=[plugin]))
ref = ModelRef(backbone="hubnet", head="linear", outputs=3)
model = build(ref, registry)
load_pretrained(model, ref, registry)
own, wanted = model.backbone.state_dict(), read_weights(local.weights)
assert all(torch.equal(own[k], v) for k, v in wanted.items())
print("\\n" + json.dumps(provenance(registry.entry("backbone", "hubnet"))))
"""


@pytest.mark.parametrize("xet", [False, True], ids=["http", "xet"])
def test_a_backbone_whose_weights_are_on_the_hub(hub, client, tmp_path, xet):
    hub.state.xet = xet
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(locate(tinynet.FILE).read_bytes())
    commit = hub.state.add_folder("acme/tinynet", folder)
    out = client.python(
        BACKBONE, json.dumps(pin(commit, sha256=tinynet.FILE.sha256)), HF_HUB_DISABLE_XET="0" if xet else "1"
    )
    origin = json.loads(out.splitlines()[-1])
    assert origin["weights"] == f"hf://acme/tinynet@{commit}/model.safetensors"
    assert origin["sha256"] == tinynet.FILE.sha256
    assert origin["plugin"] == "acme"
