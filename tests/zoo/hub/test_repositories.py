"""Files from a Hub on this machine: every fault on the way, every refusal, tokens, kills, and processes side by side.

Most tests run in this process, with the client pointed at the local Hub. Those about several processes, or about what
is read from the environment, run in processes of their own.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import close_session, constants, hf_hub_download
from localhub import Fault, LocalHub, point_at

from pocketzoo.core.errors import (
    HubAccessError,
    HubConnectionError,
    HubError,
    HubIntegrityError,
    HubMissingError,
    HubRateLimitError,
    HubRenamedError,
    StorageError,
    UnsafeFileError,
)
from pocketzoo.core.progress import SILENT, Silent
from pocketzoo.plugins import tinynet
from pocketzoo.zoo.catalog.specs import HubFile
from pocketzoo.zoo.hub import http as hub_http
from pocketzoo.zoo.hub.download import fetch, fetch_files
from pocketzoo.zoo.hub.repositories import find_models, look_up
from pocketzoo.zoo.hub.store import FRESH, Store
from pocketzoo.zoo.hub.stored_files import Stored
from pocketzoo.zoo.hub.weights import locate

if TYPE_CHECKING:
    from pocketzoo.core.progress import Progress

REPO = "acme/tinynet"
BIG = bytes(range(256)) * 200  # 51 kB: served as an LFS file, from another origin
SMALL = b'{"model_type": "tinynet"}\n'
FILES = {"model.safetensors": BIG, "config.json": SMALL}
PULLED = {**FILES, ".gitattributes": b"*.safetensors filter=lfs\n"}

FETCH = """
import json, sys
from pocketzoo.core.errors import PocketzooError
from pocketzoo.zoo.hub.download import fetch
from pocketzoo.zoo.catalog.specs import HubFile

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
        self.environment |= {"POCKETZOO_HOME": str(home / "pocketzoo"), "POCKETZOO_PATIENCE": "20"}

    def python(self, code: str, *arguments: str, **more: str) -> str:
        environment = {**self.environment, **more}
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True, text=True, timeout=600, check=False, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.splitlines()[-1]
        return done.stdout

    def fetch(self, *pins: dict[str, str], **more: str) -> list[dict[str, Any]]:
        return json.loads(self.python(FETCH, json.dumps(pins), **more).splitlines()[-1])

    @property
    def store(self) -> Store:
        return Store(self.home / "pocketzoo" / "store")

    def start(self, code: str, *arguments: str, **more: str) -> subprocess.Popen[str]:
        line, environment = [sys.executable, "-c", code, *arguments], {**self.environment, **more}
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


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


class Lines(Silent):
    """Keeps what is said, and counts what is tracked."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.tracked: list[tuple[str, int | None, int]] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def track(self, items: Iterable[Any], label: str, total: int | None = None) -> Iterator[Any]:
        count = 0
        for item in items:
            count += 1
            yield item
        self.tracked.append((label, total, count))


@pytest.fixture
def store(hub, tmp_path, monkeypatch) -> Iterator[Store]:
    """The store of this process, which talks to the local Hub and is patient enough for a busy machine."""
    point_at(hub, monkeypatch, tmp_path / "cache")
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(hub_http, "PATIENCE", 20.0)
    monkeypatch.setattr(hub_http, "NEED_TOKEN", set())
    yield Store()
    close_session()


LONG = 600  # seconds: what has to end early is not told from it by how fast a machine is


def impatient(patch: pytest.MonkeyPatch) -> None:
    """For tests of what comes when patience ends: it does after two seconds."""
    patch.setattr(hub_http, "PATIENCE", 2.0)


def pull(store: Store, revision: str = "main", repo_id: str = REPO, progress: Progress = SILENT) -> dict[str, bytes]:
    listing = look_up(repo_id, revision, store, progress)
    return {f.path: store.blob(f.sha256).read_bytes() for f in fetch_files(listing, listing.files, store, progress)}


def asked(hub: LocalHub, part: str = "") -> list[str]:
    return [r["path"] for r in hub.state.log if part in r["path"]]


def ranges(hub: LocalHub, part: str = "/cdn/") -> list[str | None]:
    return [r["range"] for r in hub.state.log if part in r["path"]]


def untouched(store: Store) -> bool:
    """No bytes came in, and none are on their way."""
    return not [p for name in ("blobs", "tmp", "locks") for p in (store.root / name).rglob("*") if p.is_file()]


# -- a pinned file


@pytest.mark.parametrize("filename", FILES)
@pytest.mark.parametrize("xet", [False, True], ids=["http", "xet"])
def test_a_pinned_file_arrives_with_its_bytes(hub, client, commit, filename, xet):
    hub.state.xet = xet
    (result,) = client.fetch(pin(commit, filename), HF_HUB_DISABLE_XET="0" if xet else "1")
    assert bytes.fromhex(result["text"]) == FILES[filename]
    assert Path(result["path"]) == client.store.blob(pin(commit, filename)["sha256"])
    (kept,) = client.store.pins()
    assert (kept.repo_id, kept.commit, [f.path for f in kept.files]) == (REPO, commit, [filename])


def test_a_pinned_file_that_is_stored_makes_no_request(hub, client, commit):
    first, second = client.fetch(pin(commit), pin(commit))
    assert first == second
    before = len(hub.state.log)
    assert client.fetch(pin(commit)) == [first]
    assert len(hub.state.log) == before


def test_only_what_is_needed_is_asked_for(hub, store, commit):
    """Nor does anything tell which program asks, or asks what the program is."""
    fetch(HubFile(**pin(commit)))
    paths = [path.partition("?")[0] for path in asked(hub)]
    assert len(paths) == 3
    assert paths[0] == f"/api/models/{REPO}/revision/{commit}"
    assert paths[1] == f"/{REPO}/resolve/{commit}/model.safetensors"
    assert paths[2].startswith("/cdn/")
    assert {r["ua"].partition("/")[0] for r in hub.state.log} == {"pocketzoo"}


NO_SOCKETS = """
import socket
def refuse(*_): raise SystemExit("a socket was opened")
socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse
"""


@pytest.mark.parametrize("offline", ["1", ""], ids=["offline", "online"])
def test_a_stored_file_opens_no_socket(hub, client, commit, offline):
    first = client.fetch(pin(commit))
    again = client.python(NO_SOCKETS + FETCH, json.dumps([pin(commit)]), HF_HUB_OFFLINE=offline)
    assert json.loads(again.splitlines()[-1]) == first


def test_offline_without_a_copy_opens_no_socket_and_says_so(hub, client, commit):
    out = client.python(NO_SOCKETS + FETCH, json.dumps([pin(commit)]), HF_HUB_OFFLINE="1")
    (result,) = json.loads(out.splitlines()[-1])
    assert result["kind"] == "HubConnectionError"
    assert "offline" in result["message"]
    assert "go online" in result["hint"]


def test_offline_a_branch_is_taken_as_it_was_last_seen(hub, store, commit, monkeypatch, refused):
    expected = pull(store)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    before, progress = len(hub.state.log), Lines()
    assert pull(store, progress=progress) == expected
    (line,) = progress.said
    assert "offline" in line
    assert f"using main as last seen: {commit[:12]}" in line
    assert pull(store, commit) == expected
    with refused(HubConnectionError, "offline", hint="online"):
        pull(store, "other")
    store.find(hashlib.sha256(SMALL).hexdigest()).unlink()
    with refused(HubConnectionError, "config.json", REPO, "offline", hint="online"):
        pull(store)
    assert len(hub.state.log) == before


@pytest.mark.parametrize("filename", FILES)
def test_other_bytes_than_pinned_leave_nothing_behind(hub, store, commit, filename, refused):
    said = "does not match its digest" if filename == "config.json" else "differs from its pinned sha256"
    with refused(HubIntegrityError, REPO, filename, said, hint="do not use it"):
        fetch(HubFile(**pin(commit, filename, sha256="0" * 64)))
    assert untouched(store)


def test_a_file_that_rots_in_the_store_is_fetched_again(store, commit):
    path = fetch(HubFile(**pin(commit)))
    path.chmod(0o644)
    path.write_bytes(BIG[:-1] + b"x")
    assert fetch(HubFile(**pin(commit))).read_bytes() == BIG
    assert pull(store) == PULLED
    assert store.verify() == []


@pytest.mark.parametrize(
    "revision",
    ["main", "refs/pr/1", "v1.0", "", "HEAD", "0" * 39, "0" * 41, "A" * 40, "g" * 40, "0" * 40 + "\n", "abcdef0"],
    ids=repr,
)
def test_a_pin_is_a_commit(hub, store, commit, revision, refused):
    with refused(HubError, REPO, repr(revision), hint="40 hex digits"):
        fetch(HubFile(**pin(commit, revision=revision)))
    assert hub.state.log == []


@pytest.mark.parametrize(
    ("wrong", "message", "hint"),
    [
        ({"repo_id": "acme/nothing"}, "the Hub has no acme/nothing, or it is private", "HF_TOKEN"),
        ({"filename": "nothing.safetensors"}, "nothing.safetensors", "stale pin"),
        ({"revision": "0" * 40}, "has no revision '0000", "branches and tags"),
        *(({"repo_id": name}, repr(name), "hf://org/name") for name in ("a/b/c", "../etc", "a b", "..", "/x", "")),
    ],
)  # fmt: skip
def test_what_the_hub_does_not_have(hub, store, commit, wrong, message, hint, refused):
    with refused(HubMissingError, message, hint=hint):
        fetch(HubFile(**{**pin(commit), **wrong}))
    assert untouched(store)


def test_one_bad_file_does_not_spoil_the_next(client, commit):
    bad, good = client.fetch(pin(commit, sha256="0" * 64), pin(commit))
    assert bad["kind"] == "HubIntegrityError"
    assert bytes.fromhex(good["text"]) == BIG


# -- a repository


def test_a_repository_arrives_with_its_bytes(hub, store, commit):
    progress = Lines()
    assert pull(store, progress=progress) == PULLED
    assert progress.said == []
    assert progress.tracked == [("fetching, MB", 0, 0)]
    assert store.verify() == []
    assert [f.path for f in store.pins()[0].files] == sorted(PULLED)
    before = len(hub.state.log)
    assert pull(store, commit, progress=progress) == PULLED
    assert len(hub.state.log) == before, "a commit that is stored makes no request"
    assert len(progress.tracked) == 1, "nor does it draw a bar"
    assert pull(store) == PULLED
    assert len(hub.state.log) == before + 1, "a branch is asked for"


def test_what_the_hub_states_is_listed(hub, store, tmp_path):
    (tmp_path / "r" / "onnx").mkdir(parents=True)
    (tmp_path / "r" / "onnx" / "é #%?.json").write_bytes(b"{}")
    (tmp_path / "r" / "empty").write_bytes(b"")
    card = "---\nlicense: mit\nlibrary_name: transformers\npipeline_tag: image-classification\n---\n"
    (tmp_path / "r" / "README.md").write_text(card)
    commit = hub.state.add_folder("acme/card", tmp_path / "r")
    listing = look_up("acme/card", "main", store)
    assert (listing.repo_id, listing.commit) == ("acme/card", commit)
    assert (listing.library, listing.task, listing.license) == ("transformers", "image-classification", "mit")
    assert [f.path for f in listing.files] == [".gitattributes", "README.md", "empty", "onnx/é #%?.json"]
    assert pull(store, repo_id="acme/card")["onnx/é #%?.json"] == b"{}"
    assert pull(store, repo_id="acme/card")["empty"] == b""
    assert look_up("acme/card", commit, store) == listing


def test_many_megabytes_are_tracked(hub, store, tmp_path):
    (tmp_path / "r").mkdir()
    for i in range(3):
        (tmp_path / "r" / f"{i}.bin").write_bytes(os.urandom(1_200_000))
    hub.state.add_folder("acme/large", tmp_path / "r")
    progress = Lines()
    pull(store, repo_id="acme/large", progress=progress)
    assert progress.tracked == [("fetching, MB", 3, 3)]


def test_a_branch_that_moved_fetches_what_changed(hub, store, commit, tmp_path):
    pull(store)
    (tmp_path / "repo" / "config.json").write_bytes(b"{}")
    moved = hub.state.add_folder(REPO, tmp_path / "repo")
    hub.state.log.clear()
    assert pull(store)["config.json"] == b"{}"
    assert asked(hub, "/cdn/") == []
    assert store.last(REPO, "main") == moved
    assert pull(store, commit) == PULLED


def test_the_same_weights_in_two_repositories_are_fetched_and_stored_once(hub, store, commit, tmp_path):
    hub.state.add_folder("acme/copy", tmp_path / "repo")
    assert pull(store) == pull(store, repo_id="acme/copy") == PULLED
    assert len(asked(hub, "/cdn/")) == 1
    assert len(list(store.root.glob("blobs/*/*"))) == 3
    assert [p.repo_id for p in store.pins()] == ["acme/copy", REPO]


def test_the_same_bytes_twice_in_a_repository(hub, store, tmp_path):
    (tmp_path / "r").mkdir()
    for name in ("a.bin", "b.bin", "c.json", "d.json"):
        (tmp_path / "r" / name).write_bytes(BIG if name.endswith("bin") else SMALL)
    hub.state.add_folder("acme/twice", tmp_path / "r")
    got = pull(store, repo_id="acme/twice")
    assert (got["a.bin"], got["b.bin"], got["c.json"], got["d.json"]) == (BIG, BIG, SMALL, SMALL)
    assert len(asked(hub, "/cdn/")) == 1


def test_files_in_the_cache_of_the_hub_client_are_taken_over(hub, store, commit, tmp_path):
    for name in PULLED:
        hf_hub_download(REPO, name, revision=commit)
    hub.state.log.clear()
    assert pull(store, commit) == PULLED
    assert [path.partition("?")[0] for path in asked(hub)] == [f"/api/models/{REPO}/revision/{commit}"]
    assert store.verify() == []
    shutil.rmtree(tmp_path / "cache")
    assert pull(store, commit) == PULLED


def test_a_pinned_file_is_taken_over_offline(hub, store, commit, monkeypatch):
    hf_hub_download(REPO, "model.safetensors", revision=commit)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(HubFile(**pin(commit))).read_bytes() == BIG
    assert [p.commit for p in store.pins()] == [commit]


@pytest.mark.parametrize("rot", [b"", BIG[:-1] + b"x", BIG + b"x"], ids=["empty", "flipped", "longer"])
def test_a_damaged_file_in_that_cache_is_not_taken_over(hub, store, commit, rot):
    cached = Path(hf_hub_download(REPO, "model.safetensors", revision=commit)).resolve()
    cached.chmod(0o644)
    cached.write_bytes(rot)
    assert pull(store, commit) == PULLED
    assert store.verify() == []


# -- faults on the way


@pytest.mark.parametrize("at", [0, 100, len(BIG) - 1])
def test_a_byte_flipped_on_the_way_is_noticed_and_fetched_again(hub, store, commit, at):
    hub.state.faults.append(Fault("GET /cdn/", "flip", at=at))
    assert pull(store) == PULLED
    assert ranges(hub) == [None, None]
    assert store.verify() == []


def test_a_byte_flipped_in_a_small_file_is_noticed_as_well(hub, store, commit):
    hub.state.faults.append(Fault("GET /acme/tinynet/resolve/.*config.json", "flip", at=3))
    assert pull(store) == PULLED


@pytest.mark.parametrize("filename", FILES)
def test_a_byte_flipped_every_time_leaves_nothing_behind(hub, store, commit, filename, refused):
    hub.state.faults.append(Fault("GET /(cdn|acme)/", "flip", times=-1, at=3))
    with refused(HubIntegrityError, REPO, filename, "does not match its digest", hint="do not use it"):
        fetch(HubFile(**pin(commit, filename)))
    assert untouched(store)


@pytest.mark.parametrize(
    ("filename", "headers", "named"),
    [
        *((name, {"X-Repo-Commit": "f" * 40}, "f" * 40) for name in FILES),
        ("config.json", {"X-Repo-Commit": ""}, "no commit"),
        ("config.json", {"X-Repo-Commit": "main\x1b[31m"}, "'main\\x1b[31m'"),
        *((name, {"ETag": '"0"', "X-Linked-ETag": '"../../x"'}, "no hash") for name in FILES),
        *((name, {"ETag": f'"{"0" * 64}"', "X-Linked-ETag": f'"{"0" * 64}"'}, "its digest") for name in FILES),
        *((name, {"ETag": "", "X-Linked-ETag": ""}, "its digest") for name in FILES),
        *((name, {"Content-Encoding": "gzip"}, "compressed") for name in ["config.json"]),
    ],
)
def test_an_answer_that_is_not_the_one_asked_for(hub, store, commit, filename, headers, named, refused):
    hub.state.faults.append(Fault(f"GET /acme/.*{filename}", "setheader", times=-1, headers=headers))
    with refused(HubIntegrityError, named if named != "no hash" else "not its digest", hint="do not use it"):
        fetch(HubFile(**pin(commit, filename)))
    assert untouched(store)
    assert asked(hub, "/cdn/") == [] or filename == "model.safetensors"


@pytest.mark.parametrize("dropped", ["X-Repo-Commit", "X-Linked-ETag"])
def test_an_answer_that_does_not_say_what_it_is(hub, store, commit, dropped, refused):
    hub.state.faults.append(Fault("GET /acme/", "dropheader", times=-1, headers={dropped: "", "ETag": ""}))
    with refused(HubIntegrityError, hint="do not use it"):
        fetch(HubFile(**pin(commit)))
    assert untouched(store)


def test_a_host_of_files_cannot_vouch_for_itself(hub, store, commit, refused):
    """Its headers are not looked at: only the Hub says which commit it answers with."""
    hub.state.faults += [
        Fault("GET /acme/", "dropheader", times=-1, headers={"X-Repo-Commit": ""}),
        Fault("GET /cdn/", "setheader", times=-1, headers={"X-Repo-Commit": commit}),
    ]
    with refused(HubIntegrityError, "no commit", hint="do not use it"):
        fetch(HubFile(**pin(commit)))


@pytest.mark.parametrize("where", ["/cdn/", "/acme/.*config.json"])
def test_a_few_bytes_that_unpack_to_many_stay_few(hub, store, commit, where, refused):
    bomb = gzip.compress(bytes(300_000_000), 1)
    headers = {"Content-Encoding": "gzip"}
    hub.state.faults.append(Fault(f"GET {where}", "body", times=-1, headers=headers, body=bomb))
    tracemalloc.start()
    try:
        with refused(HubIntegrityError, "compressed", hint="do not use it"):
            pull(store)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert store.used() < 100_000


@pytest.mark.parametrize("where", ["/cdn/", "/acme/.*config.json"])
def test_more_bytes_than_stated_are_refused_as_they_come(hub, store, commit, where, refused):
    hub.state.faults.append(Fault(f"GET {where}", "body", times=-1, body=bytes(30_000_000)))
    with refused(HubIntegrityError, REPO, "longer than the Hub announced", hint="do not use it"):
        pull(store)
    assert store.used() < 100_000


def test_a_body_cut_short_goes_on_where_it_broke_off(hub, store, commit):
    hub.state.faults.append(Fault("GET /cdn/", "truncate", at=1000))
    hub.state.faults.append(Fault("GET /cdn/", "truncate", at=500))
    assert pull(store) == PULLED
    assert ranges(hub) == [None, "bytes=1000-", "bytes=1500-"]


def test_a_connection_reset_in_the_body_goes_on_where_it_broke_off(hub, store, commit):
    hub.state.faults.append(Fault("GET /cdn/", "reset", at=20_000))
    assert pull(store) == PULLED
    first, second = ranges(hub)
    assert first is None
    assert second is None or int(second[6:-1]) <= 20_000  # a reset may throw away what was on its way


def test_a_host_that_cannot_go_on_begins_again(hub, store, commit):
    hub.state.faults.append(Fault("GET /cdn/", "truncate", at=1000))
    hub.state.faults.append(Fault("GET /cdn/", "norange"))
    assert pull(store) == PULLED
    assert ranges(hub) == [None, "bytes=1000-"]


def test_a_host_that_lost_its_file_begins_again(hub, store, commit):
    hub.state.faults.append(Fault("GET /cdn/", "truncate", at=1000))
    hub.state.faults.append(Fault("GET /cdn/", "status", status=416))
    assert pull(store) == PULLED
    assert ranges(hub) == [None, "bytes=1000-", None]


def test_a_flipped_byte_before_a_break_is_noticed(hub, store, commit):
    hub.state.faults.append(Fault("GET /cdn/", "flip", at=5))
    hub.state.faults.append(Fault("GET /cdn/", "truncate", at=1000))
    assert pull(store) == PULLED
    assert ranges(hub) == [None, None, "bytes=1000-"]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("GET /cdn/", "status", times=2, status=503),
        Fault("GET /cdn/", "status", times=2, status=403),  # a link that is no longer valid
        Fault("GET /cdn/", "reset", times=2),
        Fault("GET /acme/", "status", times=2, status=500),
        Fault("GET /acme/", "reset", times=2),
        Fault("GET /api/", "status", times=2, status=502),
        Fault("GET /api/", "reset", times=2),
        Fault("GET /cdn/", "badlen", at=500),
        Fault("GET /cdn/", "chunked", times=-1),
        Fault("GET /api/", "status", status=429, headers={"Retry-After": "0"}),
        Fault("GET /api/", "status", status=429),
        Fault("GET /cdn/", "slow", times=-1, seconds=0.3),
    ],
    ids=lambda f: f"{f.match} {f.action} {f.status}",
)
def test_what_passes_is_waited_for(hub, store, commit, fault):
    hub.state.faults.append(Fault(**vars(fault)))
    assert pull(store) == PULLED
    assert store.verify() == []


def test_the_hub_says_how_long_to_wait(hub, store, commit, refused):
    hub.state.faults.append(Fault("GET /acme/.*config", "status", status=429, headers={"Retry-After": "1"}))
    begin = time.monotonic()
    assert pull(store) == PULLED
    assert time.monotonic() - begin >= 1
    hub.state.faults.append(Fault("GET /api/", "status", times=-1, status=429, headers={"Retry-After": "300"}))
    with refused(HubRateLimitError, "limits requests", "acme/tinynet@v9", hint="try again in 300 seconds"):
        look_up(REPO, "v9", store)
    assert time.monotonic() - begin < 250, "it did not wait for the 300"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault("", "status", times=-1, status=401), HubAccessError),
        (Fault("", "status", times=-1, status=403), HubAccessError),
        (Fault("", "status", times=-1, status=418), HubConnectionError),
        (Fault("", "status", times=-1, status=503), HubConnectionError),
        (Fault("", "status", times=-1, status=429), HubRateLimitError),
        (Fault("", "status", times=-1, status=200), HubIntegrityError),  # JSON, but no list of files
        (Fault("", "reset", times=-1), HubConnectionError),
        (Fault("", "hang", times=-1, seconds=LONG), HubConnectionError),
        (Fault("GET /acme/", "status", times=-1, status=401), HubAccessError),
        (Fault("GET /acme/", "hang", times=-1, seconds=LONG), HubConnectionError),
        (Fault("GET /cdn/", "truncate", times=-1, at=1000), HubConnectionError),
        (Fault("GET /cdn/", "truncate", times=-1, at=0), HubConnectionError),
        (Fault("GET /cdn/", "reset", times=-1, at=1000), HubConnectionError),
        (Fault("GET /cdn/", "status", times=-1, status=503), HubConnectionError),
        (Fault("GET /cdn/", "status", times=-1, status=404), HubConnectionError),
        (Fault("GET /cdn/", "stall", times=-1, at=1000, seconds=LONG), HubConnectionError),
        (Fault("GET /cdn/", "drip", times=-1, seconds=0.1), HubConnectionError),
        (Fault("GET /cdn/", "hang", times=-1, seconds=LONG), HubConnectionError),
        (Fault("GET /api/", "driphead", times=-1, seconds=0.05), HubConnectionError),
        (Fault("GET /acme/", "driphead", times=-1, seconds=0.05), HubConnectionError),
        (Fault("GET /cdn/", "driphead", times=-1, seconds=0.05), HubConnectionError),
        (Fault("GET /cdn/", "dripframe", times=-1, seconds=0.05), HubConnectionError),
    ],
    ids=lambda f: f"{f.match} {f.action} {f.status}" if isinstance(f, Fault) else "",
)
def test_a_hub_that_fails_is_one_typed_error_within_the_patience(hub, store, commit, fault, kind, refused, monkeypatch):
    if kind in (HubConnectionError, HubRateLimitError):  # the others come at once
        impatient(monkeypatch)
    hub.state.faults.append(Fault(**vars(fault)))
    begin = time.monotonic()
    with refused(kind, REPO) as caught:
        fetch(HubFile(**pin(commit)))
    assert time.monotonic() - begin < LONG / 2
    assert "\n" not in caught.value.message
    assert untouched(store)


def test_a_host_that_cannot_go_on_and_breaks_off_every_time_ends(hub, store, commit, monkeypatch, refused):
    """Bytes come for ever, and never more than before."""
    monkeypatch.setattr(hub_http, "STEP", 100)
    monkeypatch.setattr(hub_http, "LARGE_STEP", 500)
    impatient(monkeypatch)
    cut = {"Content-Length": "1000"}
    hub.state.faults.append(Fault("GET /cdn/", "body", times=-1, body=BIG[:1000], headers=cut))
    with refused(HubConnectionError, REPO, "is truncated", hint="try again"):
        fetch(HubFile(**pin(commit)))


def test_a_large_file_over_a_connection_that_breaks_again_and_again_arrives(hub, store, tmp_path, monkeypatch):
    """Each break comes after some progress, so they are not added up."""
    monkeypatch.setattr(hub_http, "LARGE_STEP", 1 << 16)
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "large.bin").write_bytes(os.urandom(1 << 20))
    hub.state.add_folder("acme/large", tmp_path / "r")
    hub.state.faults.append(Fault("GET /cdn/", "truncate", times=12, at=66_000))
    pull(store, repo_id="acme/large")
    assert len(ranges(hub)) == 13


def test_a_page_to_log_in_at_is_about_the_connection(hub, store, commit, refused):
    page = {"Content-Type": "text/html"}
    hub.state.faults.append(Fault("", "status", times=-1, status=200, headers=page, body=b"<html>" * 100))
    with refused(HubConnectionError, REPO, "text/html", hint="login page"):
        pull(store)


def test_a_hub_that_is_not_there_is_about_the_connection(store, monkeypatch, refused):
    """Not about a stale pin: the client's own error for it is a kind of "entry not found"."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    impatient(monkeypatch)
    with refused(HubConnectionError, REPO, hint="check the connection"):
        fetch(HubFile(**pin("0" * 40)))


def test_a_hub_that_sends_on_for_ever_is_one_typed_error(hub, store, monkeypatch, refused):
    monkeypatch.setattr(hub_http, "PATIENCE", 3.0)
    hub.state.renamed[REPO] = REPO
    with refused(HubConnectionError, REPO, "redirect", hint="check the connection"):
        pull(store)


@pytest.mark.parametrize("endpoint", ["nonsense", "http://[", "ftp://127.0.0.1", "http://127.0.0.1:x", "http://\n"])
def test_an_endpoint_that_is_no_address_is_one_typed_error(store, monkeypatch, endpoint, refused):
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(hub_http, "PATIENCE", 0.1)
    with refused(HubConnectionError, REPO, hint="check "):
        pull(store)


def test_an_interrupt_ends_a_pull_and_leaves_nothing(hub, client, commit):
    hub.state.faults.append(Fault("GET /cdn/", "stall", times=-1, at=1000, seconds=LONG))
    pulling = client.start(PULL, commit, POCKETZOO_PATIENCE=str(LONG))
    try:
        wait_until(lambda: asked(hub, "/cdn/"))
        pulling.send_signal(signal.SIGINT)
        _, err = pulling.communicate(timeout=LONG / 2)
        assert err.strip().endswith("KeyboardInterrupt")
    finally:
        pulling.kill()
        pulling.communicate()
    assert client.store.verify() == []
    assert not [p for name in ("tmp", "locks") for p in (client.store.root / name).iterdir()]


def test_an_error_in_one_file_ends_the_others_and_keeps_what_arrived(hub, store, tmp_path, refused):
    (tmp_path / "r").mkdir()
    for i in range(40):
        (tmp_path / "r" / f"{i:02}.bin").write_bytes(f"{i}".encode() * 30_000)
    commit = hub.state.add_folder("acme/many", tmp_path / "r")
    hub.state.faults.append(Fault("GET /acme/many/resolve/.*/05.bin", "setheader", headers={"X-Repo-Commit": "x"}))
    hub.state.faults.append(Fault("GET /cdn/", "slow", times=-1, seconds=0.1))
    with refused(HubIntegrityError, "'x'", hint="do not use it"):
        pull(store, repo_id="acme/many")
    assert len(asked(hub, "/cdn/")) < 15
    kept = store.known("acme/many", commit)
    assert len(kept) >= 1
    assert store.verify() == []
    hub.state.log.clear()
    assert len(pull(store, repo_id="acme/many")) == 41
    assert len(asked(hub, "/cdn/")) == 40 - len([p for p in kept if p.endswith(".bin")])


# -- refusals of the Hub, and what is stored


@pytest.mark.parametrize("fault", [(401, {}), (503, {}), (404, {}), (401, {"X-Error-Code": "RepoNotFound"})], ids=str)
def test_what_is_stored_serves_when_the_hub_refuses_and_says_so(hub, store, commit, fault, monkeypatch):
    assert pull(store) == PULLED
    hub.state.faults.append(Fault("", "status", times=-1, status=fault[0], headers=fault[1]))
    impatient(monkeypatch)
    progress = Lines()
    assert pull(store, progress=progress) == PULLED
    (line,) = progress.said
    assert REPO in line
    assert f"using main as last seen: {commit[:12]}" in line


def test_what_lies_is_not_papered_over_with_what_is_stored(hub, store, commit, refused):
    pull(store)
    hub.state.edit = lambda info: {**info, "sha": "main"}
    with refused(HubIntegrityError, "commit 'main'", hint="do not use it"):
        pull(store)


def test_a_commit_answered_with_another_is_refused(hub, store, commit, refused):
    hub.state.edit = lambda info: {**info, "sha": "f" * 40}
    with refused(HubIntegrityError, commit[:12], "ffffffffffff", hint="do not use it"):
        pull(store, commit)
    assert store.listing(REPO, commit) is store.listing(REPO, "f" * 40) is None


def test_a_repository_that_was_renamed_says_its_name(hub, store, commit, refused):
    hub.state.renamed["acme/old"] = REPO
    with refused(HubRenamedError, "acme/old was renamed to acme/tinynet", hint="hf://acme/tinynet"):
        pull(store, repo_id="acme/old")


def test_a_listed_repository_that_is_renamed_later_still_serves_its_commit(hub, store, commit):
    listing = look_up(REPO, commit, store)
    hub.state.repos["models", "acme/new"] = hub.state.repos.pop(("models", REPO))
    hub.state.renamed[REPO] = "acme/new"
    assert len(fetch_files(listing, listing.files, store)) == 3


def test_a_gated_repository_says_so(hub, store, commit, refused):
    hub.state.repos["models", REPO].gated = "manual"
    with refused(HubAccessError, "acme/tinynet is gated", hint="ask for access"):
        pull(store)


def test_a_private_repository_looks_like_none(hub, store, commit, refused):
    hub.state.repos["models", REPO].private = True
    with refused(HubMissingError, "the Hub has no acme/tinynet", hint="if private, set HF_TOKEN"):
        pull(store)


# -- what the Hub states


def first_sibling(**fields: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def edit(info: dict[str, Any]) -> dict[str, Any]:
        siblings = [s for s in info["siblings"] if s["rfilename"] != "model.safetensors"]
        large = next(s for s in info["siblings"] if s["rfilename"] == "model.safetensors")
        return {**info, "siblings": [{**large, **fields}, *siblings]}

    return edit


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/../../x", "..\\x", "C:\\x", "a//b", "", ".", "x\n", "x\x1b[2J"], ids=ascii
)  # fmt: skip
def test_a_name_that_climbs_out_is_refused(hub, store, commit, name, refused):
    hub.state.edit = first_sibling(rfilename=name)
    with refused(UnsafeFileError, REPO, repr(name), hint="do not use it"):
        pull(store)
    assert untouched(store)


def test_a_name_that_is_no_text_is_no_answer_of_a_hub(hub, store, commit, refused):
    hub.state.edit = first_sibling(rfilename="\ud800")
    with refused(HubIntegrityError, REPO, "is not one of a Hub", hint="do not use it"):
        pull(store)
    assert untouched(store)


@pytest.mark.parametrize(
    "fields",
    [
        {"blobId": None}, {"blobId": ""}, {"blobId": "x" * 40}, {"blobId": 1}, {"blobId": "../" * 14},
        {"lfs": {"size": len(BIG)}}, {"lfs": {"size": 9, "sha256": ""}}, {"lfs": {"size": 1, "sha256": "x" * 64}},
        {"lfs": {"sha256": "0" * 64}}, {"lfs": {"size": -1, "sha256": "0" * 64}}, {"lfs": [1]}, {"lfs": "x"},
        {"lfs": {"size": "1", "sha256": "0" * 64}}, {"lfs": {"size": True, "sha256": "0" * 64}},
        {"lfs": None, "size": None}, {"lfs": None, "size": -1}, {"lfs": None, "size": 1.5}, {"lfs": None, "size": "9"},
        {"rfilename": None}, {"rfilename": 1}, {"rfilename": ["a"]},
    ],
    ids=str,
)  # fmt: skip
def test_a_file_without_digest_or_size_is_refused(hub, store, commit, fields, refused):
    hub.state.edit = first_sibling(**fields)
    with refused(HubIntegrityError, REPO, hint="do not use it"):
        pull(store)
    assert untouched(store)


@pytest.mark.parametrize(
    "info",
    [
        [], 1, None, "x", {}, {"id": REPO}, {"id": REPO, "sha": None}, {"id": None, "sha": "0" * 40},
        {"id": "a/b/c", "sha": "0" * 40, "siblings": []}, {"id": "\x1b[2J", "sha": "0" * 40, "siblings": []},
        {"id": REPO, "sha": "0" * 40, "siblings": 1}, {"id": REPO, "sha": "0" * 40, "siblings": [1]},
        {"id": REPO, "sha": "0" * 40, "siblings": None}, {"id": REPO, "sha": "0" * 40, "siblings": [], "cardData": 1},
        {"id": REPO, "sha": "../../../x", "siblings": []}, {"id": REPO, "sha": "A" * 40, "siblings": []},
    ],
    ids=str,
)  # fmt: skip
def test_an_answer_that_is_no_listing_is_refused(hub, store, commit, info, refused):
    hub.state.edit = lambda _: info
    with refused(HubIntegrityError, REPO, hint="do not use it") as caught:
        pull(store)
    assert "\x1b" not in caught.value.message


def test_a_listing_that_does_not_end_is_refused(hub, store, commit, monkeypatch, refused):
    monkeypatch.setattr(hub_http, "LONGEST_ANSWER", 100_000)
    hub.state.edit = lambda info: {**info, "x": "x" * 1_000_000}
    with refused(HubIntegrityError, REPO, "does not end", hint="do not use it"):
        pull(store)


@pytest.mark.parametrize("stated", [len(BIG) - 1, len(BIG) + 1, 0, 10], ids=str)
@pytest.mark.parametrize("stored", [False, True], ids=["", "stored"])
def test_a_size_that_lies_is_refused(hub, store, commit, stated, stored, tmp_path, monkeypatch, refused):
    monkeypatch.setattr(hub_http, "PATIENCE", 3.0)  # what is missing is asked for again and again
    if stored:
        hub.state.add_folder("acme/honest", tmp_path / "repo")
        pull(store, repo_id="acme/honest")
    hub.state.edit = first_sibling(lfs={"size": stated, "sha256": hashlib.sha256(BIG).hexdigest()})
    kind = HubConnectionError if stated > len(BIG) else HubIntegrityError
    with refused(kind, "model.safetensors", REPO):
        pull(store)
    assert "model.safetensors" not in store.known(REPO, commit)
    assert store.verify() == []


def test_a_size_that_no_disk_has_is_refused_before_a_byte_comes(hub, store, commit, refused):
    hub.state.edit = first_sibling(lfs={"size": 1 << 60, "sha256": hashlib.sha256(BIG).hexdigest()})
    with refused(StorageError, store.root, f"{1 << 60:,} bytes", "no space", hint="POCKETZOO_HOME"):
        pull(store)
    assert asked(hub, "/cdn/") == []


# -- a search


def names(words: str, limit: int = 20) -> list[str]:
    return [repository.repo_id for repository, _, _ in find_models(words, task=None, library=None, limit=limit)]


def test_models_are_found_by_a_part_of_their_name(hub, store, commit, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    hub.state.add_folder("acme/other", tmp_path / "repo")
    hub.state.add_folder("acme/tiny&limit=9", tmp_path / "repo")  # a name that cannot be is left out
    assert names("tiny") == names("TINY") == [REPO]
    assert names("acme") == ["acme/other", REPO]
    assert len(names("acme", limit=1)) == 1
    assert names("x&search=tiny") == []
    assert {(r["auth"], r["ua"].partition("/")[0]) for r in hub.state.log} == {(None, "pocketzoo")}
    ((repository, parameters, downloads),) = find_models("tinynet", task=None, library=None, limit=5)
    assert (repository.commit, parameters, downloads) == (commit, None, 0)
    assert set(repository.sizes) == set(PULLED)


def test_a_search_opens_no_socket_offline(hub, store, monkeypatch, refused):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with refused(HubConnectionError, "offline", hint="--offline"):
        names("tiny")
    assert hub.state.log == []


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (503, b"", HubConnectionError), (429, b"", HubRateLimitError), (401, b"", HubAccessError),
        (404, b"", HubConnectionError), (200, b"", HubIntegrityError), (200, b"{", HubIntegrityError),
        (200, b"1", HubIntegrityError), (200, b"[1]", HubIntegrityError), (200, b'[{"id": 1}]', HubIntegrityError),
        (200, b'[{"id": "a/b", "siblings": [1]}]', HubIntegrityError), (200, b"[" * 100_000, HubIntegrityError),
        (200, b'[{"id": "a/b", "downloads": "many"}]', HubIntegrityError), (200, b"\xff", HubIntegrityError),
    ],
)  # fmt: skip
def test_a_search_that_fails_is_one_typed_error(hub, store, status, body, kind, refused, monkeypatch):
    if kind in (HubConnectionError, HubRateLimitError):
        impatient(monkeypatch)
    hub.state.faults.append(Fault("", "status", times=-1, status=status, body=body or b" "))
    with refused(kind, "models called 'tiny'"):
        names("tiny")


def test_what_an_author_wrote_is_printed_without_controls(hub, store, tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "README.md").write_text('---\nlicense: "m\\e[2Jit"\nlibrary_name: "\\u202ex"\n---\n')
    hub.state.add_folder("acme/card", tmp_path / "r")
    ((repository, _, _),) = find_models("card", task=None, library=None, limit=5)
    assert (repository.license, repository.library) == ("m[2Jit", "x")
    assert look_up("acme/card", "main", store).license == "m[2Jit"


# -- tokens


@pytest.mark.parametrize("where", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "file"])
def test_no_token_goes_along(hub, client, commit, where):
    if where == "file":
        client.home.mkdir(parents=True)
        (client.home / "token").write_text("hf_test")
    more = {} if where == "file" else {where: "hf_test"}
    (result,) = client.fetch(pin(commit), **more)
    assert bytes.fromhex(result["text"]) == BIG
    assert hub.state.log
    assert "hf_test" not in json.dumps(hub.state.log)


def with_token(hub: LocalHub) -> dict[str, set[str | None]]:
    """Which kinds of requests came with which tokens."""
    kinds = {"api": "/api/", "file": "/resolve/", "cdn": "/cdn/"}
    return {kind: {r["auth"] for r in hub.state.log if part in r["path"]} for kind, part in kinds.items()}


@pytest.mark.parametrize("how", ["gated", "private"])
def test_a_token_is_sent_for_what_needs_it_and_only_to_the_hub(hub, store, commit, how, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    repo = hub.state.repos["models", REPO]
    repo.tokens.add("hf_test")
    setattr(repo, how, True)
    assert pull(store) == PULLED
    seen = with_token(hub)
    assert "hf_test" in seen["file"]
    assert seen["cdn"] == {None}
    assert ("hf_test" in seen["api"]) == (how == "private")
    assert hub.state.log[0]["auth"] is None, "the first question is asked without"
    hub.state.log.clear()
    (tmp_path / "repo" / "other.json").write_bytes(b"other")
    hub.state.add_folder("acme/public", tmp_path / "repo")
    pull(store, repo_id="acme/public")
    assert with_token(hub) == {"api": {None}, "file": {None}, "cdn": set()}


@pytest.mark.parametrize("how", ["gated", "private"])
def test_a_listed_repository_that_needs_a_token_is_fetched_later(hub, store, commit, how, monkeypatch):
    """By a process that did not list it, and so does not know yet that it needs one."""
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    repo = hub.state.repos["models", REPO]
    repo.tokens.add("hf_test")
    setattr(repo, how, True)
    look_up(REPO, commit, store)
    hub_http.NEED_TOKEN.clear()
    assert pull(store, commit) == PULLED


@pytest.mark.parametrize("how", ["gated", "private"])
def test_a_token_without_access_is_refused(hub, store, commit, how, monkeypatch, refused):
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    setattr(hub.state.repos["models", REPO], how, True)
    with refused(HubAccessError if how == "gated" else HubMissingError, REPO, hint="HF_TOKEN") as caught:
        pull(store)
    assert "hf_test" not in caught.value.message + caught.value.hint


def test_a_token_that_is_not_accepted_is_refused(hub, store, commit, monkeypatch, refused):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    hub.state.repos["models", REPO].private = True
    with refused(HubAccessError, REPO, "401", hint="HF_TOKEN"):
        pull(store)


def test_a_host_of_files_that_asks_for_a_token_gets_none(hub, store, commit, monkeypatch, refused):
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    headers = {"X-Error-Code": "GatedRepo"}
    hub.state.faults.append(Fault("GET /cdn/", "status", times=-1, status=401, headers=headers))
    with refused(HubAccessError, REPO):
        pull(store)
    assert with_token(hub) == {"api": {None}, "file": {None}, "cdn": {None}}


def test_a_plain_refusal_gets_no_token(hub, store, commit, monkeypatch, refused):
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    hub.state.faults.append(Fault("", "status", times=-1, status=401))
    with refused(HubAccessError, REPO):
        pull(store)
    assert {r["auth"] for r in hub.state.log} == {None}


def test_a_token_is_never_sent_in_the_clear_over_a_network(tmp_path, store, monkeypatch, refused):
    """127.0.0.2 stands for another machine: it is none of the names of this one."""
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "model.safetensors").write_bytes(BIG)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with LocalHub(tmp_path / "far", host="127.0.0.2") as far:
        point_at(far, monkeypatch, tmp_path / "cache")
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        far.state.add_folder(REPO, tmp_path / "repo")
        repo = far.state.repos["models", REPO]
        repo.tokens.add("hf_test")
        repo.private = True
        with refused(HubMissingError, REPO):
            pull(store)
        repo.private, repo.gated = False, True
        with refused(HubAccessError, REPO, "gated"):
            pull(store)
        assert {r["auth"] for r in far.state.log} == {None}


# -- disks


def test_a_home_that_is_a_file_is_a_typed_error(hub, store, commit, tmp_path, refused):
    (tmp_path / "home").write_text("in the way")
    with refused(StorageError, store.root, "not a directory", hint="POCKETZOO_HOME"):
        fetch(HubFile(**pin(commit)))


def test_a_repository_that_does_not_fit_keeps_what_fits(hub, store, commit, disk, tmp_path, refused):
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "large.bin").write_bytes(os.urandom(2_000_000))
    hub.state.add_folder("acme/large", tmp_path / "large")
    small = Store(disk / "store")
    assert pull(small) == PULLED
    with refused(StorageError, small.root, "2,000,000 bytes", "no space", hint="POCKETZOO_HOME"):
        pull(small, repo_id="acme/large")
    assert pull(small) == PULLED
    assert small.verify() == []
    assert not list((small.root / "tmp").iterdir())


def test_a_read_only_store_serves_what_it_has(hub, store, commit, disk, tmp_path, refused):
    small = Store(disk / "store")
    assert pull(small) == PULLED
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert pull(small) == pull(small, commit) == PULLED
    (tmp_path / "repo" / "config.json").write_bytes(b"{}")
    hub.state.add_folder(REPO, tmp_path / "repo")
    with refused(StorageError, small.root, "read-only", hint="POCKETZOO_HOME"):
        pull(small)
    assert pull(small, commit) == PULLED
    (tmp_path / "repo" / "config.json").write_bytes(SMALL)
    (tmp_path / "repo" / "again.json").write_bytes(SMALL)
    new = hub.state.add_folder(REPO, tmp_path / "repo")
    assert pull(small) == pull(small, new) == {**PULLED, "again.json": SMALL}, "a new commit of bytes that are there"


# -- processes


PULL = """
import json, sys
from pocketzoo.zoo.hub.repositories import look_up
from pocketzoo.zoo.hub.download import fetch_files
from pocketzoo.zoo.hub.store import Store
from pocketzoo.zoo.hub.stored_files import Stored
listing = look_up("acme/tinynet", sys.argv[1], Store())
print("ready", flush=True)
print(json.dumps({f.path: f.sha256 for f in fetch_files(listing, listing.files, Store())}))
"""
DIGESTS = {name: hashlib.sha256(data).hexdigest() for name, data in PULLED.items()}


@pytest.mark.slow
def test_processes_that_pull_the_same_at_once_fetch_it_once(hub, client, commit):
    hub.state.faults.append(Fault("GET /cdn/", "stall", times=-1, at=1000, seconds=2.0))
    running = [client.start(PULL, commit) for _ in range(8)]
    for process in running:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        assert json.loads(out.splitlines()[-1]) == DIGESTS
    assert len(asked(hub, "/cdn/")) == 1
    assert len(list(client.store.root.glob("blobs/*/*"))) == 3
    assert client.store.verify() == []
    assert not list((client.store.root / "locks").iterdir())


@pytest.mark.slow
def test_a_process_that_waits_goes_on_waiting_while_bytes_come(hub, client, tmp_path):
    """Longer than it is patient with one that stands still: ten seconds and five."""
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "model.safetensors").write_bytes(os.urandom(20 << 16))
    commit = hub.state.add_folder(REPO, tmp_path / "r")
    hub.state.faults.append(Fault("GET /cdn/", "slow", times=-1, seconds=0.5))
    running = [client.start(PULL, commit, POCKETZOO_PATIENCE="5") for _ in range(2)]
    for process in running:
        _, err = process.communicate(timeout=LONG)
        assert process.returncode == 0, err
    assert len(asked(hub, "/cdn/")) == 1


def wait_until(condition: Callable[[], object], seconds: float = LONG) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_a_process_that_is_stopped_does_not_block_the_others(hub, client, commit):
    hub.state.faults.append(Fault("GET /cdn/", "stall", at=1000, seconds=1.0))
    stopped = client.start(PULL, commit, POCKETZOO_PATIENCE=str(LONG))
    try:
        wait_until(lambda: asked(hub, "/cdn/"))
        stopped.send_signal(signal.SIGSTOP)
        assert json.loads(client.python(PULL, commit, POCKETZOO_PATIENCE="3").splitlines()[-1]) == DIGESTS
        stopped.send_signal(signal.SIGCONT)
        out, err = stopped.communicate(timeout=LONG)
        assert stopped.returncode == 0, err
        assert json.loads(out.splitlines()[-1]) == DIGESTS
    finally:
        stopped.kill()
        stopped.communicate()
    assert client.store.verify() == []
    assert len(list(client.store.root.glob("blobs/*/*"))) == 3


# One process imports once; its children are killed while they pull. It says how many left something unfinished.
KILLED = """
import os, random, shutil, signal, sys, time
from pocketzoo.zoo.hub.repositories import look_up
from pocketzoo.zoo.hub.download import fetch_files
from pocketzoo.zoo.hub.store import Store
from pocketzoo.zoo.hub.stored_files import Stored

def pull():
    listing = look_up("acme/tinynet", sys.argv[1], Store())
    fetch_files(listing, listing.files, Store())

chance, store, unfinished, finished = random.Random(int(sys.argv[2])), Store(), 0, 0
begin = time.monotonic()
pull()  # kills fall within twice the time that a whole one takes here
took = time.monotonic() - begin
shutil.rmtree(store.root)
for _ in range(int(sys.argv[3])):
    child = os.fork()
    if child == 0:
        try:
            pull()
        finally:
            os._exit(0)
    time.sleep(chance.uniform(0, 2 * took))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert store.verify() == []
    tmp = store.root / "tmp"
    unfinished += bool(tmp.is_dir() and list(tmp.iterdir()))
    store.collect()
    assert not tmp.is_dir() or not list(tmp.iterdir())
    if len(store.known("acme/tinynet", sys.argv[1])) == 3:
        finished += 1
        shutil.rmtree(store.root)
pull()
assert store.verify() == [] and len(store.known("acme/tinynet", sys.argv[1])) == 3
assert not list(tmp.iterdir()) and not list((store.root / "locks").iterdir())
print(unfinished, finished)
"""


@pytest.mark.slow
def test_a_hundred_kills_at_any_moment_leave_a_clean_store(hub, client, commit):
    hub.state.faults.append(Fault("GET /cdn/", "stall", times=-1, at=1000, seconds=0.15))
    hub.state.faults.append(Fault("GET /acme/.*json", "stall", times=-1, at=10, seconds=0.1))
    unfinished, finished = map(int, client.python(KILLED, commit, "0", "100").split())
    assert unfinished > 10, "kills landed in the middle of transfers"
    assert finished > 3, "and after them"


class Pruned(Store):
    """A store where somebody removes each file right after it was recorded, so many times."""

    removals = 0

    def record(self, repo_id: str, commit: str, file: Stored) -> None:
        super().record(repo_id, commit, file)
        if self.removals:
            self.removals -= 1
            self.blob(file.sha256).unlink()


def test_a_pull_goes_on_while_what_it_brought_is_removed(store, commit):
    pruned = Pruned()
    pruned.removals = 40  # of three files: over a dozen rounds
    assert pull(pruned) == PULLED
    assert pruned.removals == 0


def test_a_pull_of_which_everything_is_removed_for_ever_ends(store, commit, monkeypatch, refused):
    monkeypatch.setattr(hub_http, "PATIENCE", 0.5)
    pruned = Pruned()
    pruned.removals = sys.maxsize
    with refused(StorageError, "files disappear from", hint="wait until prune has finished"):
        pull(pruned)


@pytest.mark.slow
def test_prune_at_the_side_of_pulls_loses_nothing_that_was_recorded(hub, store, commit, tmp_path, monkeypatch):
    """Two repositories share their weights; one is pruned over and over while both are pulled."""
    monkeypatch.setattr(hub_http, "PATIENCE", float(LONG))
    hub.state.add_folder("acme/dropped", tmp_path / "repo")
    stop, errors = threading.Event(), []

    def prune() -> None:
        while not stop.is_set():
            Store().prune([(REPO, commit)])
            for path in Store().root.glob("blobs/*/*"):
                if stop.is_set():
                    break
                age(path)

    def pulls(repo_id: str) -> None:
        for _ in range(25):
            try:
                assert pull(Store(), repo_id=repo_id)["model.safetensors"] == BIG
            except (OSError, AssertionError) as error:
                if repo_id == REPO:  # of the other, bytes may be gone again
                    errors.append(error)

    pruner = threading.Thread(target=prune)
    pullers = [threading.Thread(target=pulls, args=(name,)) for name in (REPO, REPO, "acme/dropped")]
    for thread in (pruner, *pullers):
        thread.start()
    for thread in pullers[:2]:
        thread.join()
    stop.set()  # a pull of what each prune drops may need it: it goes on as long as that disappears
    for thread in (pruner, *pullers):
        thread.join()
    assert errors == []
    assert pull(store) == PULLED
    assert store.verify() == []


def age(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.utime(path, (time.time() - 2 * FRESH,) * 2)


# -- a backbone


BACKBONE = """
import json, sys
from dataclasses import replace
from types import ModuleType
import torch
import pocketzoo
from pocketzoo.plugins import tinynet
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.bundles.manifest import ModelRef
from pocketzoo.zoo.models.build import build, load_pretrained
from pocketzoo.zoo.models.provenance import provenance
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import HubFile, Weights
from pocketzoo.zoo.hub.weights import read_weights

pin = json.loads(sys.argv[1])
(local,) = tinynet.pocketzoo_backbones()
spec = replace(local, name="hubnet", head="", weights=Weights(file=HubFile(**pin), prefix="backbone."))
plugin = ModuleType("acme")
plugin.pocketzoo_backbones = pocketzoo.hookimpl(lambda: [spec])
registry = Registry(create_manager(points=[], extra=[plugin]))
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
