"""Every file once, under its digest: against a model, damage, kills, full and read-only disks, other threads."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pocketzoo.core.errors import HubIntegrityError, StorageError
from pocketzoo.zoo.hub import store as store_module
from pocketzoo.zoo.hub.locked_files import locked_temporary
from pocketzoo.zoo.hub.store import FRESH, Store
from pocketzoo.zoo.hub.store_layout import files_below, quoted
from pocketzoo.zoo.hub.stored_files import Pin, Stored

REPO = "acme/tinynet"
COMMIT, OTHER = "c" * 40, "d" * 40


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(store: Store, data: bytes, path: str = "") -> Stored:
    with store.writing(len(data)) as incoming:
        incoming.write(data)
        return Stored(path, incoming.keep(), len(data))


def recorded(store: Store, data: bytes, path: str = "a.bin", repo_id: str = REPO, commit: str = COMMIT) -> Stored:
    file = put(store, data, path)
    store.record(repo_id, commit, file)
    return file


def damage(path: Path, data: bytes = b"rot") -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def age(path: Path) -> None:
    os.utime(path, (time.time() - 2 * FRESH,) * 2)


def files(store: Store, *folders: str) -> dict[str, bytes]:
    """Every file in the store, or in some of its folders, hidden ones too."""
    found = [p for folder in folders or (".",) for p in (store.root / folder).rglob("*") if p.is_file()]
    return {p.relative_to(store.root).as_posix(): p.read_bytes() for p in sorted(found)}


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


# -- bytes


def test_the_store_is_in_the_home_of_pocketzoo(monkeypatch, tmp_path):
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path))
    assert Store().root == tmp_path / "store"


def test_a_store_that_is_not_there_is_empty_and_stays_away(store):
    assert store.find(sha(b"x")) is None
    assert (store.known(REPO, COMMIT), store.pins(), store.verify(), store.collect()) == ({}, [], [], [])
    assert (store.last(REPO, "main"), store.listing(REPO, COMMIT)) == (None, None)
    assert (store.used(), store.prune(), store.prune([])) == (0, 0, 0)
    assert not store.root.exists()


@given(st.binary(max_size=3000))
def test_bytes_that_are_put_in_are_found_by_their_digest(data):
    with tempfile.TemporaryDirectory() as folder:
        source, store = Path(folder) / "x", Store(Path(folder) / "store")
        source.write_bytes(data)
        assert store.put(source) == Stored("", sha(data), len(data))
        path = store.find(sha(data))
        assert path == store.blob(sha(data))
        assert path.read_bytes() == data
        assert not path.stat().st_mode & 0o222, "the bytes are read-only"
        assert store.used() == len(data)
        assert list(files(store)) == [f"blobs/{sha(data)[:2]}/{sha(data)}"]


def test_the_same_bytes_are_kept_once(store):
    assert put(store, b"x") == put(store, b"x")
    assert list(files(store).values()) == [b"x"]


def test_a_copy_in_pieces_of_a_large_file(store, tmp_path):
    data = os.urandom((3 << 20) + 1)
    (tmp_path / "x").write_bytes(data)
    assert store.find(store.put(tmp_path / "x").sha256).read_bytes() == data


def test_bytes_that_are_not_kept_leave_nothing(store):
    with store.writing(3) as incoming:
        incoming.write(b"abc")
    with pytest.raises(KeyboardInterrupt), store.writing(3) as incoming:
        raise KeyboardInterrupt
    assert files(store) == {}


def test_more_bytes_than_announced_are_refused_before_they_are_written(refused, store):
    with store.writing(3) as incoming:
        incoming.write(b"ab")
        with refused(HubIntegrityError, "more than the announced 3 bytes", hint="do not use"):
            incoming.write(b"cd" * 1000)
        incoming.file.flush()
        assert Path(incoming.file.name).stat().st_size == 2
    assert files(store) == {}


@given(st.lists(st.binary(max_size=50), max_size=5), st.lists(st.binary(max_size=50), max_size=5))
def test_beginning_again_forgets_what_came_before(first, second):
    data = b"".join(second)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        with store.writing(max(len(data), len(b"".join(first)))) as incoming:
            for chunk in first:
                incoming.write(chunk)
            incoming.restart()
            assert incoming.received == 0
            for chunk in second:
                incoming.write(chunk)
            assert incoming.keep() == sha(data)
        assert store.find(sha(data)).read_bytes() == data


def test_the_digest_of_git_is_the_one_git_gives(store, tmp_path):
    (tmp_path / "x").write_bytes(b"tinynet\n")
    expected = subprocess.run(["git", "hash-object", str(tmp_path / "x")], capture_output=True, text=True, check=True)
    with store.writing(8) as incoming:
        incoming.write(b"tinynet\n")
        assert incoming.git.hexdigest() == expected.stdout.strip()


@pytest.mark.parametrize("rot", [b"", b"rot", b"y" * 3000])
def test_damaged_bytes_are_set_aside_and_not_used(store, rot):
    file = recorded(store, b"x" * 3000)
    damage(store.blob(file.sha256), rot)
    assert [p.path for p in store.verify()] == [store.blob(file.sha256)]
    assert store.find(file.sha256) is None
    assert list(files(store, "damaged").values()) == [rot]
    assert [p.what for p in store.verify()] == ["its content is missing"]
    assert store.known(REPO, COMMIT) == {}
    put(store, b"x" * 3000)
    assert store.verify() == []
    assert store.known(REPO, COMMIT) == {"a.bin": file}


@pytest.mark.parametrize("digest", ["", ".", "..", "../../etc/passwd", "/etc/passwd", "a", "A" * 64], ids=repr)
def test_a_digest_that_is_none_finds_nothing(store, digest):
    recorded(store, b"x")
    before = files(store)
    assert store.find(digest) is None or digest.startswith("/")
    assert files(store) == before


# -- names


NAMES = [
    "a", "a/b/c.onnx", ".gitattributes", ".a/.b", "a b", "ä/ü.json", "100%", "%2E", "a%2Fb", "a:b", "-", "~", "a.tmp",
    ".x.abc.tmp", "x" * 255, "あ" * 85 + "/" + "い" * 85, "a/" * 500 + "b", "A", "con",
]  # fmt: skip


def test_files_of_a_commit_are_known_by_any_name(store):
    expected = {name: recorded(store, name.encode(), name) for name in NAMES}
    assert store.known(REPO, COMMIT) == expected
    assert store.verify() == []
    (pin,) = store.pins()
    assert {f.path for f in pin.files} == set(NAMES)
    for path in store.root.glob("blobs/*/*"):
        age(path)
    assert store.prune() == 0
    assert store.known(REPO, COMMIT) == expected


@given(
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=120), st.binary(max_size=3))
)
def test_what_is_recorded_is_known(contents):
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        expected = {name: recorded(store, data, name) for name, data in contents.items()}
        assert store.known(REPO, COMMIT) == expected
        assert store.known(REPO, OTHER) == {}
        assert store.known("acme/other", COMMIT) == {}


def test_a_file_is_recorded_anew(store):
    recorded(store, b"old")
    new = recorded(store, b"new")
    assert store.known(REPO, COMMIT) == {"a.bin": new}


def test_pins_are_what_was_fetched(store):
    a = recorded(store, b"1", "b.bin")
    b = recorded(store, b"2", "a.bin")
    c = recorded(store, b"1", repo_id="gpt2", commit=OTHER)
    d = recorded(store, b"3", repo_id="a-b/c-d_e.f", commit=OTHER)
    e = recorded(store, b"3", commit=OTHER)
    assert store.pins() == [
        Pin("a-b/c-d_e.f", OTHER, (d,)),
        Pin(REPO, COMMIT, (b, a)),
        Pin(REPO, OTHER, (e,)),
        Pin("gpt2", OTHER, (c,)),
    ]
    assert len(files(store, "blobs")) == 3, "the same bytes in several repositories are kept once"


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "1", "null", '"x"', '{"sha256": 1}', '{"sha256": "x"}', "\x00", '{"path": "a"}',
        json.dumps({"path": "a.bin", "sha256": "../../x", "size": 1}),
        json.dumps({"path": "a.bin", "sha256": "/etc/passwd", "size": 1}),
        json.dumps({"path": "a.bin", "sha256": "0" * 64, "size": "many"}),
        json.dumps({"path": "a.bin", "sha256": sha(b"x")}),
    ],
)  # fmt: skip
def test_a_damaged_record_is_none(store, text):
    file = recorded(store, b"x")
    (place,) = store.root.glob("repos/*/*/*")
    place.write_bytes(text.encode())
    assert store.known(REPO, COMMIT) == {}
    assert store.pins() == []
    assert [(p.path, p.what) for p in store.verify()] == [(place, "it is not a record")]
    store.record(REPO, COMMIT, file)
    assert store.known(REPO, COMMIT) == {"a.bin": file}
    assert store.verify() == []


@pytest.mark.parametrize("revision", ["main", "v1.0", "feature/x", ".x", "..", "%2E", "x" * 255, "/" * 100])
def test_where_a_branch_was_last_seen(store, revision):
    assert store.last(REPO, revision) is None
    store.remember(REPO, revision, COMMIT)
    store.remember(REPO, "other", OTHER)
    assert store.last(REPO, revision) == COMMIT
    assert store.last("acme/other", revision) is None
    store.remember(REPO, revision, OTHER)
    assert store.last(REPO, revision) == OTHER


@pytest.mark.parametrize("data", [b"", b"main", b"\xff", COMMIT[:20].encode(), b"../../x"])
def test_a_damaged_note_of_a_branch_is_none(store, data):
    store.remember(REPO, "main", COMMIT)
    (place,) = store.root.glob("refs/*/*")
    place.write_bytes(data)
    assert store.last(REPO, "main") is None


def test_what_the_hub_stated_is_kept(store):
    store.note_listing(REPO, COMMIT, {"files": [1, 2]})
    assert store.listing(REPO, COMMIT) == {"files": [1, 2]}
    assert store.listing(REPO, OTHER) is None


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"1", b"null", b'"x"', b"\xff"])
def test_a_damaged_listing_is_none(store, data):
    store.note_listing(REPO, COMMIT, {"files": []})
    (place,) = store.root.glob("listings/*/*")
    place.write_bytes(data)
    assert store.listing(REPO, COMMIT) is None


# -- care


def test_a_temporary_in_use_is_left_alone(store):
    with store.writing(3) as incoming:
        incoming.write(b"abc")
        assert store.collect() == []
        assert Store(store.root).prune() == 0
        assert incoming.keep() == sha(b"abc")
    assert store.find(sha(b"abc"))


def test_temporaries_of_the_dead_are_collected_by_the_next_writer(store):
    (store.root / "tmp").mkdir(parents=True)
    (store.root / "tmp" / "dead").write_bytes(b"x")
    put(store, b"y")
    assert list(files(store).values()) == [b"y"]


def test_a_temporary_is_never_taken_from_the_one_who_just_made_it(store):
    """A collector that gave up its lock before it removed the file would."""
    folder = store.root / "tmp"
    folder.mkdir(parents=True)
    stop = threading.Event()

    def collect() -> None:
        while not stop.is_set():
            store.collect()

    collectors = [threading.Thread(target=collect) for _ in range(3)]
    for thread in collectors:
        thread.start()
    try:
        for _ in range(2000):
            with locked_temporary(folder) as file:
                assert Path(file.name).exists()
                Path(file.name).unlink()
    finally:
        stop.set()
        for thread in collectors:
            thread.join()


def test_prune_leaves_what_has_a_record_and_what_is_fresh(store):
    file = recorded(store, b"recorded")
    age(store.blob(file.sha256))
    put(store, b"fresh")
    before = files(store)
    assert store.prune() == 0
    assert files(store) == {**before, "prune.lock": b""}


def test_prune_removes_what_nothing_names(store):
    kept = recorded(store, b"recorded")
    loose = put(store, b"loose" * 100)
    age(store.blob(loose.sha256))
    rotten = recorded(store, b"rotten", "b.bin")
    damage(store.blob(rotten.sha256), b"ROTTEN")
    store.find(rotten.sha256)
    again = recorded(store, b"again", "c.bin")
    damage(store.blob(again.sha256), b"AGAIN")
    (store.root / "tmp" / "dead").write_bytes(b"x")
    assert store.prune() >= 500 + 6 + 5
    assert store.verify() == []
    assert store.known(REPO, COMMIT) == {"a.bin": kept}
    assert [p.name for p in store.root.glob("blobs/*/*")] == [kept.sha256]
    assert files(store, "tmp", "damaged", "aside") == {}


def test_prune_keeps_only_the_pins_it_is_told(store):
    shared = recorded(store, b"shared")
    recorded(store, b"old", "b.bin")
    recorded(store, b"shared", commit=OTHER)
    new = recorded(store, b"new", "b.bin", commit=OTHER)
    assert store.prune([(REPO, OTHER), ("acme/nothing", COMMIT)]) >= 3
    assert store.pins() == [Pin(REPO, OTHER, (shared, new))]
    assert store.verify() == []
    assert store.find(sha(b"old")) is None
    assert store.prune([]) > 0
    assert files(store, "repos", "blobs") == {}


def test_prune_puts_back_what_was_recorded_meanwhile(store, monkeypatch):
    """The bytes are shared with what is pruned, and another process records them after prune looked for records."""
    recorded(store, b"shared")
    other, set_aside = Store(store.root), Store._set_aside

    def meanwhile(self: Store, path: Path, name: str = "") -> None:
        if path.parent.parent.name == "blobs":
            other.record("acme/other", OTHER, Stored("a.bin", sha(b"shared"), 6))
        set_aside(self, path, name)

    monkeypatch.setattr(Store, "_set_aside", meanwhile)
    store.prune([])
    assert store.pins() == [Pin("acme/other", OTHER, (Stored("a.bin", sha(b"shared"), 6),))]
    assert store.find(sha(b"shared"))
    assert store.verify() == []


def test_a_record_whose_bytes_come_back_meanwhile_stays(store, monkeypatch):
    file = recorded(store, b"x")
    store.blob(file.sha256).unlink()
    other, set_aside = Store(store.root), Store._set_aside

    def meanwhile(self: Store, path: Path, name: str = "") -> None:
        put(other, b"x")
        set_aside(self, path, name)

    monkeypatch.setattr(Store, "_set_aside", meanwhile)
    store.prune()
    assert store.known(REPO, COMMIT) == {"a.bin": file}


def test_a_prune_that_was_killed_loses_nothing(store):
    file = recorded(store, b"x")
    blob = store.blob(file.sha256)
    store._set_aside(blob)
    assert store.verify() != []
    store.prune()
    assert store.find(file.sha256) == blob
    assert store.verify() == []


def test_two_prunes_at_once_are_one(refused, store):
    recorded(store, b"x")
    with Store(store.root)._only_prune(), refused(StorageError, "another prune", store.root, hint="wait"):
        store.prune()


@pytest.mark.slow
def test_prune_at_the_side_of_writers_loses_nothing_that_was_recorded(store, monkeypatch):
    """Every blob counts as old at once, so that only records protect."""
    monkeypatch.setattr(store_module, "FRESH", -1)
    stop, lost = threading.Event(), []

    def prune() -> None:
        pruner = Store(store.root)
        while not stop.is_set():
            pruner.prune([("acme/kept", COMMIT)])

    def write(number: int) -> None:
        writer = Store(store.root)
        for i in range(25):
            data = f"{number} {i % 7}".encode()
            while writer.known("acme/kept", COMMIT).get(f"{number} {i}") is None:  # as fetch_files does
                recorded(writer, data, f"{number} {i}", "acme/kept")
            recorded(writer, data, f"{number} {i}", "acme/dropped")

    def watched(number: int) -> None:
        try:
            write(number)
        except BaseException as error:
            lost.append(error)
            raise

    pruner = threading.Thread(target=prune)
    pruner.start()
    writers = [threading.Thread(target=watched, args=(n,)) for n in range(4)]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    pruner.join()
    assert lost == []
    assert len(store.known("acme/kept", COMMIT)) == 100
    assert store.verify() == []


def test_a_folder_that_a_prune_takes_away_while_it_is_made_is_made_again(store, monkeypatch):
    """``mkdir`` finds it there; before it looks what it is, it is gone."""
    recorded(store, b"x", "a.bin")
    folder, took = store._commit(REPO, COMMIT), []
    is_dir = Path.is_dir

    def taken(path: Path) -> bool:
        if path == folder and not took:
            took.append(shutil.rmtree(path))
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", taken)
    recorded(store, b"y", "b.bin")
    assert took
    assert set(store.known(REPO, COMMIT)) == {"b.bin"}


# -- disks


def test_a_file_that_does_not_fit_is_refused_before_a_byte_is_written(refused, disk):
    store = Store(disk / "store")
    file = recorded(store, b"x" * 1000)
    before = files(store)
    with (
        refused(StorageError, store.root, "5,000,000 bytes", "no space", hint="POCKETZOO_HOME"),
        store.writing(5_000_000),
    ):
        pytest.fail("not reached")
    assert files(store) == before
    assert store.find(file.sha256)


def test_a_disk_that_fills_meanwhile_loses_nothing(refused, disk):
    store = Store(disk / "store")
    file = recorded(store, b"x" * 1000)
    before = files(store)
    expected = refused(StorageError, store.root, "700,000 bytes", "no space", hint="free some space")
    with expected, store.writing(700_000) as incoming:
        (disk / "other").write_bytes(bytes(disk_free(disk) - 100_000))
        for _ in range(7):
            incoming.write(bytes(100_000))
        incoming.keep()
    assert files(store) == before
    assert store.find(file.sha256)
    assert store.verify() == []


def test_no_space_for_a_record_keeps_the_old_ones(refused, disk):
    store = Store(disk / "store")
    file = recorded(store, b"x" * 1000)
    (disk / "other").write_bytes(bytes(disk_free(disk)))
    with refused(StorageError, store.root, "no space", hint="POCKETZOO_HOME"):
        store.record(REPO, COMMIT, Stored("b.bin", file.sha256, 1000))
    store.record(REPO, COMMIT, file)  # nothing new: nothing to write
    assert store.known(REPO, COMMIT) == {"a.bin": file}
    assert store.verify() == []


def disk_free(disk: Path) -> int:
    return shutil.disk_usage(disk).free


def test_a_read_only_store_serves_what_it_has(refused, disk):
    store = Store(disk / "store")
    file = recorded(store, b"x" * 1000)
    bad = recorded(store, b"y", "b.bin")
    damage(store.blob(bad.sha256))
    store.remember(REPO, "main", COMMIT)
    store.note_listing(REPO, COMMIT, {"a": 1})
    (store.root / "tmp" / "dead").write_bytes(b"")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    before = files(store)
    assert store.find(file.sha256) == store.blob(file.sha256)
    assert store.find(bad.sha256) is None
    assert store.known(REPO, COMMIT)["a.bin"] == file
    assert store.last(REPO, "main") == COMMIT
    assert store.listing(REPO, COMMIT) == {"a": 1}
    assert len(store.pins()) == 1
    assert len(store.verify()) == 1
    assert store.collect() == []
    assert store.used() > 1000
    store.record(REPO, COMMIT, file)
    store.remember(REPO, "main", COMMIT)
    store.note_listing(REPO, COMMIT, {"a": 1})
    hint = "POCKETZOO_HOME"
    with refused(StorageError, store.root, "3 bytes", "read-only", hint=hint), store.writing(3):
        pytest.fail("not reached")
    with refused(StorageError, store.root, "read-only", hint=hint):
        store.record(REPO, OTHER, file)
    with refused(StorageError, store.root, "read-only", hint=hint):
        store.prune()
    assert files(store) == before


def test_a_home_that_is_a_file_is_a_typed_error(refused, tmp_path):
    (tmp_path / "home").write_bytes(b"")
    store = Store(tmp_path / "home" / "store")
    assert store.find(sha(b"x")) is None
    assert (store.known(REPO, COMMIT), store.pins(), store.verify()) == ({}, [], [])
    with refused(StorageError, store.root, "3 bytes", "not a directory", hint="POCKETZOO_HOME"), store.writing(3):
        pytest.fail("not reached")
    with refused(StorageError, store.root, "not a directory", hint="POCKETZOO_HOME"):
        store.remember(REPO, "main", COMMIT)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_a_typed_error(refused, store):
    recorded(store, b"x")
    (store.root / "tmp").chmod(0o500)
    with refused(StorageError, store.root, "permission", hint="POCKETZOO_HOME"), store.writing(3):
        pytest.fail("not reached")


# -- against a model


CONTENTS = st.sampled_from([b"", b"a", b"b", b"c" * 3000])
REPOSITORIES = st.sampled_from(["acme/a", "acme/b", "gpt2"])
COMMITS = st.sampled_from([COMMIT, OTHER])
PATHS = st.sampled_from(["a", "b/c", ".d"])


class Machine(RuleBasedStateMachine):
    """The store beside two dicts: what bytes there are, and which file of a commit is which."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store(Path(self.folder.name) / "store")
        self.blobs: dict[str, bytes] = {}
        self.records: dict[tuple[str, str, str], str] = {}

    @rule(data=CONTENTS)
    def put(self, data: bytes) -> None:
        assert put(self.store, data).sha256 == sha(data)
        self.blobs[sha(data)] = data

    @rule(data=CONTENTS)
    def get(self, data: bytes) -> None:
        path = self.store.find(sha(data))
        assert (path.read_bytes() if path else None) == self.blobs.get(sha(data))

    @rule(data=CONTENTS, repo_id=REPOSITORIES, commit=COMMITS, path=PATHS)
    def record(self, data: bytes, repo_id: str, commit: str, path: str) -> None:
        recorded(self.store, data, path, repo_id, commit)
        self.blobs[sha(data)] = data
        self.records[repo_id, commit, path] = sha(data)

    @rule(data=CONTENTS)
    def rot(self, data: bytes) -> None:
        if self.blobs.pop(sha(data), None) is not None:
            damage(self.store.blob(sha(data)))
            assert self.store.find(sha(data)) is None

    @rule(data=CONTENTS)
    def age(self, data: bytes) -> None:
        if sha(data) in self.blobs:
            age(self.store.blob(sha(data)))

    @rule(data=CONTENTS, repo_id=REPOSITORIES, commit=COMMITS, path=PATHS, cut=st.integers(0, 40))
    def crash(self, data: bytes, repo_id: str, commit: str, path: str, cut: int) -> None:
        """A kill while bytes come; and, on a file system that loses what was renamed, a record cut short."""
        folder = self.store.root / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"dead{cut}").write_bytes(data)
        if self.records.pop((repo_id, commit, path), None) is not None:
            place = self.store._commit(repo_id, commit) / quoted(path)
            place.write_bytes(place.read_bytes()[:cut])

    @rule(keep=st.none() | st.lists(st.tuples(REPOSITORIES, COMMITS)))
    def prune(self, keep: list[tuple[str, str]] | None) -> None:
        self.records = {k: v for k, v in self.records.items() if v in self.blobs}
        given_up = {v for k, v in self.records.items() if keep is not None and k[:2] not in keep}
        self.records = {k: v for k, v in self.records.items() if keep is None or k[:2] in keep}
        for digest in set(self.blobs) - set(self.records.values()):
            if digest in given_up or time.time() - self.store.blob(digest).stat().st_mtime > FRESH:
                del self.blobs[digest]
        before = self.store.used()
        assert self.store.prune(keep) == before - self.store.used()
        assert self.store.verify() == []
        assert files(self.store, "tmp", "damaged", "aside") == {}

    @rule()
    def collect(self) -> None:
        self.store.collect()
        assert files(self.store, "tmp") == {}

    @invariant()
    def agrees(self) -> None:
        found = {p.name: p.read_bytes() for p in self.store.root.glob("blobs/*/*")}
        assert found == self.blobs
        known = {(p.repo_id, p.commit, f.path): f.sha256 for p in self.store.pins() for f in p.files}
        assert known == {k: v for k, v in self.records.items() if v in self.blobs}

    def teardown(self) -> None:
        self.folder.cleanup()


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=25)


def test_a_temporary_of_a_killed_process_is_collected(store):
    code = (
        "import os, sys; from pathlib import Path; from pocketzoo.zoo.hub.store import Store\n"
        "with Store(Path(sys.argv[1])).writing(100) as i:\n i.write(b'x' * 50); i.file.flush(); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(store.root)], check=False)
    assert done.returncode == -9
    assert list(files(store, "tmp").values()) == [b"x" * 50]
    assert len(store.collect()) == 1
    assert files(store) == {}


def test_records_may_be_changed_and_bytes_may_not(store, tmp_path):
    """Whoever shares a store may read all of it, whatever this process's files are by default."""
    (tmp_path / "a").write_bytes(b"bytes")
    stored = store.put(tmp_path / "a")
    store.record("o/m", "0" * 40, replace(stored, path="a"))
    store.remember("o/m", "main", "0" * 40)
    store.note_listing("o/m", "0" * 40, {"a": 1})
    modes = {path.relative_to(store.root).parts[0]: path.stat().st_mode & 0o777 for path in files_below(store.root)}
    assert modes == {"blobs": 0o444, "repos": 0o644, "refs": 0o644, "listings": 0o644}


def test_a_link_that_another_removes_in_this_moment_is_gone(store, monkeypatch):
    """Two may clean up at once."""
    (store.root / "tmp").mkdir(parents=True)
    link = store.root / "tmp" / "link"
    link.symlink_to("nowhere")
    is_symlink = Path.is_symlink

    def look(path: Path) -> bool:
        found = is_symlink(path)
        if path.name == "link" and found:
            os.unlink(path)
        return found

    monkeypatch.setattr(Path, "is_symlink", look)
    assert store.collect() == [link]
    assert not os.path.lexists(link)
