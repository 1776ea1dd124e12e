"""Writes that are whole or not at all: after errors, kills at any moment, on full and on read-only disks."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.core.errors import StorageError
from pocketzoo.core.files import (
    check_file,
    collect_temporaries,
    disk_errors,
    put_folder,
    replacing_file,
    replacing_folder,
    sha256,
)
from pocketzoo.zoo.bundles.bundle import read_bundle


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@given(st.binary(max_size=5000))
def test_sha256_is_that_of_the_bytes(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "digest"
    path.write_bytes(data)
    assert sha256(path) == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_sha256_reads_in_pieces(tmp_path, size):
    data = os.urandom(size)
    (tmp_path / "x").write_bytes(data)
    assert sha256(tmp_path / "x") == hashlib.sha256(data).hexdigest()


# -- one file


@pytest.mark.parametrize("old", [None, b"", b"old"])
def test_a_file_appears_when_the_body_ends(tmp_path, old):
    path = tmp_path / "x"
    if old is not None:
        path.write_bytes(old)
    with replacing_file(path) as temporary:
        temporary.write_bytes(b"new")
        assert temporary.parent == path.parent, "a rename over a file system's border is not a rename"
        assert (path.read_bytes() if path.exists() else None) == old
    assert tree(tmp_path) == {"x": b"new"}


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyboardInterrupt(), SystemExit(1), OSError(errno.EIO, "x")], ids=repr
)
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_body_that_raises_leaves_the_old_file(tmp_path, old, error):
    if old is not None:
        (tmp_path / "x").write_bytes(old)
    before = tree(tmp_path)

    def write() -> None:
        with replacing_file(tmp_path / "x") as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert tree(tmp_path) == before


def test_folders_above_are_made(tmp_path):
    with replacing_file(tmp_path / "a" / "b" / "x") as temporary:
        temporary.write_bytes(b"new")
    assert tree(tmp_path) == {"a/b/x": b"new"}


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    with replacing_file(tmp_path / "x") as one, replacing_file(tmp_path / "x") as two:
        assert one != two
        one.write_bytes(b"one")
        two.write_bytes(b"two")
    assert tree(tmp_path) == {"x": b"one"}, "the last to finish"


def test_a_written_file_can_be_read_by_others(tmp_path):
    with replacing_file(tmp_path / "x") as temporary:
        temporary.write_bytes(b"new")
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644


# -- a folder


def fill(folder: Path, text: str) -> None:
    (folder / "a").write_text(text)
    (folder / "sub").mkdir()
    (folder / "sub" / "b").write_text(text)


@pytest.mark.parametrize("old", [None, "empty", "old"])
def test_a_folder_appears_when_the_body_ends(tmp_path, old):
    path = tmp_path / "x"
    if old:
        path.mkdir()
    if old == "old":
        fill(path, "old")
        (path / "only-old").write_text("old")
    before = tree(tmp_path)
    with replacing_folder(path) as temporary:
        fill(temporary, "new")
        assert temporary.parent == path.parent
        assert {k: v for k, v in tree(tmp_path).items() if not k.startswith(temporary.name)} == before
    assert tree(tmp_path) == {"x/a": b"new", "x/sub/b": b"new"}
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert path.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyboardInterrupt(), SystemExit(1), OSError(errno.EIO, "x")], ids=repr
)
@pytest.mark.parametrize("old", [False, True])
def test_a_body_that_raises_leaves_the_old_folder(tmp_path, old, error):
    if old:
        (tmp_path / "x").mkdir()
        fill(tmp_path / "x", "old")
    before = tree(tmp_path)

    def write() -> None:
        with replacing_folder(tmp_path / "x") as temporary:
            fill(temporary, "half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert tree(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == (["x"] if old else [])


@pytest.mark.parametrize("old", [None, "empty", "old"])
def test_a_folder_is_put_where_nothing_is_or_what_may_be_replaced(tmp_path, old):
    for name in ("new", "other"):
        (tmp_path / name).mkdir()
        fill(tmp_path / name, name)
    if old:
        (tmp_path / "x").mkdir()
    if old == "old":
        fill(tmp_path / "x", "old")
        before = tree(tmp_path)
        with pytest.raises(FileExistsError):
            put_folder(tmp_path / "new", tmp_path / "x", replace=False)
        assert tree(tmp_path) == before
    else:
        put_folder(tmp_path / "new", tmp_path / "x", replace=False)
        assert (tmp_path / "x" / "a").read_text() == "new"
    put_folder(tmp_path / "other", tmp_path / "x")
    assert (tmp_path / "x" / "sub" / "b").read_text() == "other"


def test_a_symlink_to_a_folder_leaves_nothing_behind(tmp_path):
    """~/models may be a link to another disk."""
    (tmp_path / "real").mkdir()
    fill(tmp_path / "real", "old")
    (tmp_path / "x").symlink_to(tmp_path / "real")
    with replacing_folder(tmp_path / "x") as temporary:
        fill(temporary, "new")
    assert (tmp_path / "x" / "a").read_text() == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["real", "x"]


# -- what has reached the disk when


@pytest.fixture
def calls(monkeypatch) -> list[tuple[str, int]]:
    """What is asked of the disk, in order: ("fsync", inode), and ("rename", the inode that moves)."""
    seen: list[tuple[str, int]] = []
    fsync, replace, rename = os.fsync, os.replace, os.rename

    def noting_fsync(handle: int) -> None:
        seen.append(("fsync", os.fstat(handle).st_ino))
        fsync(handle)

    def noting(move):
        def call(source, place, **more) -> None:
            inode = os.stat(source).st_ino
            move(source, place, **more)
            seen.append(("rename", inode))

        return call

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "replace", noting(replace))
    monkeypatch.setattr(os, "rename", noting(rename))
    return seen


def inode(path: Path) -> int:
    return path.stat().st_ino


def test_a_file_is_on_the_disk_before_its_name_is_and_then_its_name(tmp_path, calls):
    with replacing_file(tmp_path / "x") as temporary:
        temporary.write_bytes(b"new")
        assert calls == []
    file = inode(tmp_path / "x")
    assert calls == [("fsync", file), ("rename", file), ("fsync", inode(tmp_path))]


@pytest.mark.parametrize("old", [False, True])
def test_a_folder_is_on_the_disk_before_its_name_is_and_then_its_name(tmp_path, calls, old):
    """Every file of it and every folder, then the rename, or where one is replaced the swap, then the one above."""
    path = tmp_path / "x"
    if old:
        path.mkdir()
        fill(path, "old")
    with replacing_folder(path) as temporary:
        fill(temporary, "new")
        assert calls == []
    parts = [path, path / "a", path / "sub", path / "sub" / "b"]
    moved = [("rename", inode(path))] if ("rename", inode(path)) in calls else []
    assert moved or old
    assert sorted(calls[: len(parts)]) == sorted(("fsync", inode(part)) for part in parts)
    assert calls[len(parts) :] == [*moved, ("fsync", inode(tmp_path))]
    assert calls.index(("fsync", inode(path))) > calls.index(("fsync", inode(path / "a"))), "names after what they name"


@pytest.mark.parametrize("exchange", ["the system's", "two renames"])
def test_folders_are_swapped_where_one_is_replaced(tmp_path, monkeypatch, exchange):
    """Where the system has no call for it the new one comes by two renames, and nothing lies about afterwards."""
    if exchange == "two renames":
        monkeypatch.setattr("ctypes.CDLL", lambda *args, **more: object())
    for name in ("x", "new"):
        (tmp_path / name).mkdir()
        fill(tmp_path / name, name)
    put_folder(tmp_path / "new", tmp_path / "x")
    assert (tmp_path / "x" / "sub" / "b").read_text() == "new"
    assert {p.name for p in tmp_path.iterdir()} <= {"x", "new"}


# -- what the disk refuses


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_refusal_is_one_typed_error(refused, number):
    with refused(StorageError, "cannot write /models/x: ", hint="-o") as caught, disk_errors(Path("/models/x")):
        raise OSError(number, os.strerror(number), "/somewhere/else")
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "x"), FileNotFoundError(errno.ENOENT, "x"), ValueError("x")], ids=repr
)
def test_what_is_no_refusal_stays(error):
    with pytest.raises(type(error)) as caught, disk_errors(Path("x")):
        raise error
    assert caught.value is error


def test_the_innermost_place_is_named(refused):
    with refused(StorageError, "cannot write inner"), disk_errors(Path("outer")), disk_errors(Path("inner")):
        raise OSError(errno.ENOSPC, "x")


@pytest.mark.parametrize("write", [replacing_file, replacing_folder])
@pytest.mark.parametrize("place", ["file/x", "file/deep/x", "n" * 300, "n" * 300 + "/x"], ids=lambda p: p[:12])
def test_a_place_that_cannot_be_is_a_storage_error(refused, tmp_path, write, place):
    (tmp_path / "file").write_text("in the way")
    with refused(StorageError, "cannot write"), write(tmp_path / place) as temporary:
        assert temporary is None, "never reached"
    assert tree(tmp_path) == {"file": b"in the way"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("write", [replacing_file, replacing_folder])
def test_a_read_only_folder_is_a_storage_error(refused, tmp_path, write):
    tmp_path.chmod(0o555)
    try:
        with refused(StorageError, tmp_path / "x", "permission is denied"), write(tmp_path / "x"):
            raise AssertionError("never reached")
    finally:
        tmp_path.chmod(0o755)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of one megabyte."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_leaves_the_old_file(refused, small_disk):
    (small_disk / "x").write_bytes(b"old")
    expected = refused(StorageError, small_disk / "x", "no space is left", hint="free some space")
    with expected, replacing_file(small_disk / "x") as temporary:
        temporary.write_bytes(bytes(2 << 20))
    assert tree(small_disk) == {"x": b"old"}


def test_a_full_disk_leaves_the_old_folder(refused, small_disk):
    (small_disk / "x").mkdir()
    fill(small_disk / "x", "old")
    before = tree(small_disk)
    expected = refused(StorageError, small_disk / "x", "no space is left", hint="free some space")
    with expected, replacing_folder(small_disk / "x") as temporary:
        (temporary / "large").write_bytes(bytes(2 << 20))
    assert tree(small_disk) == before
    assert [p.name for p in small_disk.iterdir()] == ["x"]


def test_a_model_that_does_not_fit_on_the_disk_is_a_storage_error(refused, small_disk, fitted, registry):
    """safetensors and onnx write through libraries of their own, with errors of their own."""
    from pocketzoo.zoo.bundles.bundle import writing
    from pocketzoo.zoo.models.build import load_module
    from pocketzoo.zoo.models.save import save_model

    module, manifest = load_module(fitted, registry), fitted.manifest
    with refused(StorageError, "no space is left", hint="-o"), writing(small_disk / "x") as draft:
        save_model(
            draft, module, manifest.model, name="x", labels=manifest.labels, license="MIT",
            input_spec=manifest.input, provenance={},
        )  # fmt: skip
    assert list(small_disk.iterdir()) == []


@pytest.fixture
def read_only_disk(small_disk) -> Path:
    (small_disk / "x").mkdir()
    fill(small_disk / "x", "old")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    return small_disk


@pytest.mark.parametrize("write", [replacing_file, replacing_folder])
@pytest.mark.parametrize("place", ["y", "deep/y"])
def test_a_read_only_disk_is_a_storage_error(refused, read_only_disk, write, place):
    with refused(StorageError, read_only_disk / place, "read-only"), write(read_only_disk / place) as temporary:
        assert temporary is None, "never reached"


# -- what the killed leave

LEAVER = """
import os, sys
from pathlib import Path
from pocketzoo.core.files import replacing_file, replacing_folder

with {write}(Path(sys.argv[1]) / "x") as temporary:
    {body}
    print(temporary, flush=True)
    {end}
"""
KILLED, WAITING = "os.kill(os.getpid(), 9)", "sys.stdin.readline()"


def leaver(folder: Path, write: str, end: str) -> subprocess.Popen[str]:
    body = '(temporary / "a").write_text("half")' if write == "replacing_folder" else 'temporary.write_text("half")'
    script = LEAVER.format(write=write, body=body, end=end)
    return subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("write", ["replacing_file", "replacing_folder"])
@pytest.mark.parametrize("then", [replacing_file, replacing_folder])
def test_temporaries_of_the_killed_are_collected_and_those_of_the_living_stay(tmp_path, write, then):
    living = leaver(tmp_path, write, WAITING)
    assert living.stdout is not None
    kept = Path(living.stdout.readline().strip())
    left = Path(leaver(tmp_path, write, KILLED).communicate()[0].strip())
    assert left.exists()
    with then(tmp_path / "another"):  # whatever is written there next, by whatever name
        assert not left.exists()
        assert kept.exists()
    living.communicate("\n")
    assert living.returncode == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == (["another", "x"])


def test_what_is_no_temporary_of_ours_is_left_alone(tmp_path):
    """Other programs have such names too; a link of ours is nobody's."""
    names = [".x.abcdefgh.tmp", "x.pocketzoo.tmp", ".x.tmp", ".x.part", ".x.abcdefgh.pocketzoo.tmp.old"]
    for name in names:
        (tmp_path / name).write_text("theirs")
    (tmp_path / "target").mkdir()
    (tmp_path / ".link.pocketzoo.tmp").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / ".pipe.pocketzoo.tmp")
    collect_temporaries(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {*names, "target", ".link.pocketzoo.tmp", ".pipe.pocketzoo.tmp"}
    assert collect_temporaries(tmp_path / "nowhere") == []


def test_where_files_have_no_locks_nobody_collects_what_may_be_alive(tmp_path, monkeypatch):
    def none(handle: int) -> bool:
        raise OSError(errno.ENOLCK, "no locks here")

    with monkeypatch.context() as patch:
        patch.setattr("pocketzoo.core.files.try_lock", none)
        with replacing_folder(tmp_path / "x") as one, replacing_file(tmp_path / "y") as two:
            patch.undo()
            assert collect_temporaries(tmp_path) == []
            assert one.exists()
            assert two.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x", "y"]


# -- kills

# Writes bundles over and over: two that differ in all their files, in turn. Says when the first is there.
WRITER = """
import sys
from pathlib import Path
from pocketzoo.zoo.bundles.manifest import Manifest, ModelRef
from pocketzoo.zoo.bundles.bundle import writing
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.data.processors.open_processor import describe_config

path, first = Path(sys.argv[1]), int(sys.argv[2])
count = first
spec = InputSpec(shape=("batch", 1, 2, 2), mean=(0.0,), std=(1.0,), resize=2)
while True:
    with writing(path) as draft:
        for i in range(8):
            (draft.folder / f"part{i}").write_bytes(bytes([count % 256]) * 50_000)
        draft.manifest = Manifest(
            name=str(count), model=ModelRef(backbone="b", head="h", outputs=2), processor=describe_config(spec),
            labels=("a", "b"), license="MIT", parameters=count, macs=0,
        )
    print("ready", flush=True)
    count += 1
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_an_old_or_a_new_bundle(tmp_path):
    path, chance, seen = tmp_path / "model", random.Random(0), set()
    for run in range(30):
        line = [sys.executable, "-c", WRITER, str(path), str(run * 1000)]
        writer = subprocess.Popen(line, stdout=subprocess.PIPE)
        try:
            assert writer.stdout is not None
            for _ in range(chance.randint(1, 6)):
                assert writer.stdout.readline() == b"ready\n"
            time.sleep(chance.uniform(0, 0.02))
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            writer.stdout.close()
        bundle = read_bundle(path)  # raises unless every byte is the manifest's
        count = bundle.manifest.parameters
        assert count // 1000 == run
        seen.add(count % 1000)
        parts = {name for name in bundle.manifest.files if name.startswith("part")}
        assert len(parts) == 8
        assert all((path / name).read_bytes() == bytes([count % 256]) * 50_000 for name in parts)
    assert len(seen) > 2, "the kills came at different moments"


@pytest.fixture(params=["pipe", "socket", "link to a pipe"])
def no_file(request, tmp_path) -> Iterator[Path]:
    """What is there, and is neither a file nor a folder."""
    path, pipe = tmp_path / "odd", tmp_path / "pipe"
    os.mkfifo(pipe)
    listening = socket.socket(socket.AF_UNIX)
    if request.param == "pipe":
        path = pipe
    elif request.param == "socket":
        listening.bind(str(path))
    else:
        path.symlink_to(pipe)
    yield path
    listening.close()


def test_a_file_takes_the_place_of_no_pipe_nor_device(no_file, refused):
    before = os.lstat(no_file)
    with refused(StorageError, no_file, "not a file"), replacing_file(no_file) as temporary:
        temporary.write_text("x")
    assert os.path.samestat(before, os.lstat(no_file))
    assert not list(no_file.parent.glob(".*"))
    with refused(StorageError, no_file):
        check_file(no_file)


@pytest.mark.parametrize("place", ["/dev/stdout", "/dev/null", "/dev/new.onnx", "/proc/self/fd/1", "/dev/fd/1"])
def test_no_file_is_written_among_devices(place, refused):
    """As root it would take the place of the device for everyone."""
    with refused(StorageError, place, hint=""), replacing_file(Path(place)):
        raise AssertionError("it began to write")


def test_what_rust_says_of_a_full_disk_names_the_place(tmp_path, refused):
    path = tmp_path / "x"
    with refused(StorageError, path, "no space is left"), disk_errors(path):
        raise ValueError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(ValueError, match="os error 2"), disk_errors(path):
        raise ValueError("No such file (os error 2)")
