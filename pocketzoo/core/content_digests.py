"""The sha256 of files by what is in them, remembered for as long as the file system says that they did not change.

A digest is remembered under the file's device and inode with its size, mtime and ctime in nanoseconds. The ctime is the
kernel's own: nobody sets it back, so a file that was rewritten in place is hashed again whatever its mtime says. What
changed within the last moments before it was hashed is not remembered, since a clock that stands still may hide
another change (the "racy" entries of git's index). What a process writes through a memory map moves no time before
the system writes it back; until then the file counts as it was, as for git.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pocketzoo.core.caching import caching
from pocketzoo.core.files import home, sha256

MEMORY = "digests.sqlite"
UNSETTLED = 2_000_000_000  # nanoseconds: the coarsest clock of a file system in use, FAT's
CHUNK = 500  # files that are looked up at once
MONTH = 30 * 86400
_SHA256 = re.compile("[0-9a-f]{64}")
_TABLE = (
    "CREATE TABLE IF NOT EXISTS digests (device INTEGER, inode INTEGER, size INTEGER, mtime INTEGER, ctime INTEGER,"
    " sha256 TEXT, used INTEGER, PRIMARY KEY (device, inode)) WITHOUT ROWID"
)
_KEEP = "INSERT OR REPLACE INTO digests (device, inode, size, mtime, ctime, sha256, used) VALUES (?, ?, ?, ?, ?, ?, ?)"


class _State(NamedTuple):
    """What the file system says of a file."""

    device: int
    inode: int
    size: int
    mtime: int
    ctime: int


def content_digest(path: Path) -> str:
    """The sha256 of a file's bytes, hex; read only if it may have changed since it was last hashed.

    Raises:
        OSError: it cannot be read.
    """
    return content_digests([path])[0]


def content_digests(paths: Sequence[Path]) -> list[str]:
    """The same of many files, in their order.

    Raises:
        OSError: one of them cannot be read.
    """
    digests: list[str] = []
    with _memory() as memory:
        for start in range(0, len(paths), CHUNK):
            chunk = paths[start : start + CHUNK]
            states = [_state(path) for path in chunk]
            remembered = _remembered(memory, states)
            learned: list[tuple[_State, str]] = []
            for path, state in zip(chunk, states, strict=True):
                if (digest := remembered.get(state)) is None:
                    digest = sha256(path)
                    if _settled(state) and _state(path) == state:
                        learned.append((state, digest))
                digests.append(digest)
            _learn(memory, learned, list(remembered))
    return digests


def forget_unused(age: float = MONTH) -> None:
    """Forget the digests that nothing asked for within ``age`` seconds."""
    with _memory() as memory, contextlib.suppress(sqlite3.Error):
        if memory is not None:
            memory.execute("DELETE FROM digests WHERE used < ?", (int(time.time() - age),))
            memory.commit()


def _state(path: Path) -> _State:
    stat = os.stat(path)
    return _State(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def _settled(state: _State) -> bool:
    return time.time_ns() - max(state.mtime, state.ctime) > UNSETTLED


@contextlib.contextmanager
def _memory() -> Iterator[sqlite3.Connection | None]:
    """The table of digests; None where there can be none, and everything is hashed."""
    connection = None
    if caching():
        with contextlib.suppress(sqlite3.Error, OSError):
            home().mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(home() / MEMORY, timeout=5)
            connection.execute(_TABLE)
    try:
        yield connection
    finally:
        if connection is not None:
            connection.close()


def _remembered(memory: sqlite3.Connection | None, states: Sequence[_State]) -> dict[_State, str]:
    if memory is None:
        return {}
    found: dict[_State, str] = {}
    asked = set(states)
    for device in {state.device for state in states}:
        inodes = [_signed(state.inode) for state in states if state.device == device]
        places = ",".join("?" * len(inodes))
        query = f"SELECT inode, size, mtime, ctime, sha256 FROM digests WHERE device = ? AND inode IN ({places})"
        with contextlib.suppress(sqlite3.Error):
            for inode, size, mtime, ctime, digest in memory.execute(query, (_signed(device), *inodes)):
                state = _State(device, inode % 2**64, size, mtime, ctime)
                if state in asked and isinstance(digest, str) and _SHA256.fullmatch(digest):
                    found[state] = digest
    return found


def _learn(memory: sqlite3.Connection | None, learned: list[tuple[_State, str]], used: list[_State]) -> None:
    if memory is None:
        return
    now = int(time.time())
    rows = [(_signed(s.device), _signed(s.inode), s.size, s.mtime, s.ctime, digest, now) for s, digest in learned]
    old = [(now, _signed(s.device), _signed(s.inode), now - MONTH // 4) for s in used]
    with contextlib.suppress(sqlite3.Error):  # read-only, full, or written by another version: hashed again next time
        if rows:
            memory.executemany(_KEEP, rows)
        if old:
            memory.executemany("UPDATE digests SET used = ? WHERE device = ? AND inode = ? AND used < ?", old)
        memory.commit()


def _signed(value: int) -> int:
    """SQLite's integers have 64 bits with a sign; inodes have none."""
    return value - 2**64 if value >= 2**63 else value
