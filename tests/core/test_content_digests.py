"""Digests of files: hashed again when anything may have changed, and not otherwise."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import time

import pytest

from pocketzoo.core import content_digests as module
from pocketzoo.core.content_digests import CHUNK, MEMORY, content_digest, content_digests, forget_unused
from pocketzoo.core.files import home, sha256


@pytest.fixture
def hashed(monkeypatch, tmp_path):
    """The paths that were read; files are settled at once, and the memory is an empty one."""
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    read = []

    def noting(path):
        read.append(path)
        return sha256(path)

    monkeypatch.setattr(module, "sha256", noting)
    monkeypatch.setattr(module, "UNSETTLED", -1)
    return read


def test_an_unchanged_file_is_read_once(tmp_path, hashed):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    expected = hashlib.sha256(b"abc").hexdigest()
    assert [content_digest(path) for _ in range(3)] == [expected] * 3
    assert hashed == [path]


def rewritten(path):
    path.write_bytes(b"abd")


def rewritten_with_its_times(path):
    before = path.stat()
    path.write_bytes(b"abd")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced_with_its_times(path):
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(b"abd")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)


@pytest.mark.parametrize("change", [rewritten, rewritten_with_its_times, replaced_with_its_times])
def test_a_changed_file_is_read_again(tmp_path, hashed, change):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    content_digest(path)
    time.sleep(0.02)  # more than the kernel's clock takes to tick
    change(path)
    assert content_digest(path) == hashlib.sha256(b"abd").hexdigest()
    assert len(hashed) == 2


def test_what_changed_a_moment_ago_is_not_remembered(tmp_path, hashed, monkeypatch):
    monkeypatch.setattr(module, "UNSETTLED", 3600 * 10**9)
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    content_digest(path)
    content_digest(path)
    assert len(hashed) == 2


def test_many_files_in_their_order(tmp_path, hashed):
    paths = [tmp_path / f"{i}" for i in range(CHUNK + 7)]
    for i, path in enumerate(paths):
        path.write_bytes(b"%d" % (i % 5))
    expected = [hashlib.sha256(b"%d" % (i % 5)).hexdigest() for i in range(len(paths))]
    assert content_digests(paths) == expected
    assert content_digests(paths[::-1] + paths[:1]) == [*expected[::-1], expected[0]]
    assert len(hashed) == len(paths)
    assert content_digests([]) == []


def test_without_a_cache_nothing_is_looked_up_or_kept(tmp_path, hashed, monkeypatch):
    monkeypatch.setenv("POCKETZOO_NO_CACHE", "1")
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    content_digest(path)
    content_digest(path)
    assert len(hashed) == 2
    assert not (home() / MEMORY).exists()


@pytest.mark.parametrize("what", ["garbage", "folder", "another table", "more columns", "a damaged row"])
def test_a_memory_that_cannot_be_used_is_done_without(tmp_path, hashed, what):
    home().mkdir(parents=True)
    if what == "garbage":
        (home() / MEMORY).write_bytes(b"no database" * 1000)
    elif what == "folder":
        (home() / MEMORY).mkdir()
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    if what == "another table":
        with sqlite3.connect(home() / MEMORY) as other:
            other.execute("CREATE TABLE digests (x)")
    elif what in ("more columns", "a damaged row"):
        content_digest(path)
        with sqlite3.connect(home() / MEMORY) as other:
            if what == "more columns":
                other.execute("ALTER TABLE digests ADD COLUMN since INTEGER")
            else:
                assert other.execute("UPDATE digests SET sha256 = ?", (b"abc",)).rowcount == 1
    assert content_digest(path) == content_digest(path) == hashlib.sha256(b"abc").hexdigest()


def test_a_file_that_changes_while_it_is_hashed_is_not_remembered(tmp_path, hashed, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"abc")

    def changing(file):
        digest = sha256(file)
        time.sleep(0.02)
        file.write_bytes(b"abd")
        return digest

    monkeypatch.setattr(module, "sha256", changing)
    content_digest(path)
    monkeypatch.setattr(module, "sha256", sha256)
    assert content_digest(path) == hashlib.sha256(b"abd").hexdigest()


def test_what_nobody_asked_for_is_forgotten(tmp_path, hashed):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    content_digest(path)
    forget_unused()
    content_digest(path)
    assert len(hashed) == 1
    forget_unused(-10)
    content_digest(path)
    assert len(hashed) == 2


def test_what_cannot_be_read_is_an_error(tmp_path, hashed):
    with pytest.raises(FileNotFoundError):
        content_digest(tmp_path / "none")
    (tmp_path / "fine").write_bytes(b"")
    assert stat.S_ISREG((tmp_path / "fine").stat().st_mode)
    assert content_digest(tmp_path / "fine") == hashlib.sha256(b"").hexdigest()
