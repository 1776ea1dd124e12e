"""The store: every fetched file once, under its sha256, shared by projects and processes. Standard library.

::

    blobs/ab/ab12...            the bytes; read-only
    repos/org--name/COMMIT/F    JSON: which bytes the file F (quoted) of a commit is
    refs/org--name/REVISION     the commit a branch or tag stood at when it was last asked for
    listings/org--name/COMMIT   JSON: what the Hub states of a commit
    tmp/                        files on their way; the process that writes one holds a lock on it
    damaged/                    what no longer had its digest
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote

from pocketzoo.errors import HubIntegrityError, StorageError
from pocketzoo.zoo.files import disk_errors, home, replacing_file, sha256

try:
    import fcntl
except ImportError:  # Windows: temporaries are collected by their age alone
    fcntl = None  # type: ignore[assignment]

FRESH = 3600  # seconds for which prune leaves a blob alone: its record may still be on the way


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of a repository whose bytes are in the store."""

    path: str  # in the repository
    sha256: str
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class Pin:
    """A commit of a repository, with those of its files that are in the store."""

    repo_id: str
    commit: str
    files: tuple[Stored, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something ``verify`` found."""

    path: Path
    what: str


class Store:
    """A folder of verified files. Reading makes no file and no lock, so a read-only store serves what it has."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or home() / "store"

    # -- bytes

    def blob(self, digest: str) -> Path:
        """Where the bytes of a digest are, or would be."""
        return self.root / "blobs" / digest[:2] / digest

    def find(self, digest: str) -> Path | None:
        """The file with this sha256, hashed again; one that no longer has it is set aside."""
        path = self.blob(digest)
        if not path.is_file():
            return None
        if sha256(path) == digest:
            return path
        with contextlib.suppress(OSError):  # in a read-only store it stays where it is, and is not used
            aside = self.root / "damaged" / f"{digest}.{time.time_ns()}"
            aside.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, aside)
        return None

    @contextlib.contextmanager
    def writing(self, size: int) -> Iterator[Incoming]:
        """Take in ``size`` bytes; nothing of them stays unless ``Incoming.keep`` is called.

        Raises:
            StorageError: the disk refuses, or has not that much space.
        """
        self.collect()
        needs = f"{self.root} (it needs {size:,} bytes)"
        with disk_errors(needs, "free some space there, or set POCKETZOO_HOME to another disk"):
            folder = self.root / "tmp"
            folder.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(folder).free < size:
                raise StorageError(f"no space for {needs}", "free some space there, or set POCKETZOO_HOME")
            file = _locked_temporary(folder)
            try:
                yield Incoming(self, file, size)
            finally:
                Path(file.name).unlink(missing_ok=True)
                file.close()

    def put(self, source: Path) -> Stored:
        """Copy a file in; its name there is empty."""
        with self.writing(source.stat().st_size) as incoming, source.open("rb") as file:
            while chunk := file.read(1 << 20):
                incoming.write(chunk)
            return Stored("", incoming.keep(), incoming.size)

    # -- names

    def record(self, repo_id: str, commit: str, file: Stored) -> None:
        """Remember that a file of a commit has these bytes."""
        place = self.root / "repos" / _folder(repo_id) / commit / quote(file.path, safe="")
        with replacing_file(place) as temporary:
            temporary.write_text(json.dumps({"sha256": file.sha256, "size": file.size}), "utf8")

    def known(self, repo_id: str, commit: str) -> dict[str, Stored]:
        """The files of a commit that are in the store."""
        folder = self.root / "repos" / _folder(repo_id) / commit
        found = {}
        for place in sorted(folder.iterdir()) if folder.is_dir() else ():
            with contextlib.suppress(ValueError, TypeError, KeyError, OSError):  # a record that is damaged is none
                data = json.loads(place.read_text("utf8"))
                file = Stored(unquote(place.name), str(data["sha256"]), int(data["size"]))
                if self.blob(file.sha256).is_file() and not place.name.startswith("."):
                    found[file.path] = file
        return found

    def remember(self, repo_id: str, revision: str, commit: str) -> None:
        """Note where a branch or tag stands now."""
        with replacing_file(self.root / "refs" / _folder(repo_id) / quote(revision, safe="")) as temporary:
            temporary.write_text(commit, "utf8")

    def last(self, repo_id: str, revision: str) -> str | None:
        """The commit a branch or tag stood at when it was last asked for."""
        place = self.root / "refs" / _folder(repo_id) / quote(revision, safe="")
        return place.read_text("utf8").strip() if place.is_file() else None

    def note_listing(self, repo_id: str, commit: str, listing: dict[str, Any]) -> None:
        """Keep what the Hub states of a commit, so that nobody asks again."""
        with replacing_file(self.root / "listings" / _folder(repo_id) / commit) as temporary:
            temporary.write_text(json.dumps(listing), "utf8")

    def listing(self, repo_id: str, commit: str) -> dict[str, Any] | None:
        """What the Hub stated of a commit, if it was asked before."""
        place = self.root / "listings" / _folder(repo_id) / commit
        with contextlib.suppress(ValueError, OSError):
            return dict(json.loads(place.read_text("utf8")))
        return None

    def pins(self) -> list[Pin]:
        """Everything that was fetched, sorted."""
        folders = sorted(self.root.glob("repos/*/*"))
        found = ((unquote(f.parent.name.replace("--", "/", 1)), f.name) for f in folders if f.is_dir())
        return [Pin(r, c, tuple(files.values())) for r, c in found if (files := self.known(r, c))]

    # -- care

    def collect(self) -> list[Path]:
        """Remove temporaries whose writer is gone; returns them."""
        gone = []
        for path in self.root.glob("[rl]*/**/.*.tmp"):  # of records: written in a moment
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > FRESH:
                    path.unlink()
                    gone.append(path)
        for path in (self.root / "tmp").glob("*"):
            with contextlib.suppress(OSError):
                if _abandoned(path):
                    path.unlink()
                    gone.append(path)
        return gone

    def verify(self) -> list[Problem]:
        """Hash everything; what is damaged, and what a record names that is not there."""
        problems = []
        for path in sorted(self.root.glob("blobs/*/*")):
            if path.name != sha256(path) or path.parent.name != path.name[:2]:
                problems.append(Problem(path, "its bytes are not what its name says"))
        for place in sorted(p for p in self.root.glob("repos/*/*/*") if not p.name.startswith(".")):
            try:
                digest = json.loads(place.read_text("utf8"))["sha256"]
            except (ValueError, TypeError, KeyError):
                problems.append(Problem(place, "it is no record"))
                continue
            if not self.blob(str(digest)).is_file():
                problems.append(Problem(place, "the bytes it names are not there"))
        return problems

    def prune(self, keep: Sequence[tuple[str, str]] | None = None) -> int:
        """Remove what nothing names: bytes without a record, temporaries, damaged files; returns bytes freed.

        With ``keep``, (repository, commit) pairs, all other records go first.
        """
        freed = sum(_size(path) for path in (self.root / "damaged").glob("*"))
        shutil.rmtree(self.root / "damaged", ignore_errors=True)
        with disk_errors(self.root):
            self.collect()
            for problem in self.verify():
                freed += _size(problem.path)
                problem.path.unlink(missing_ok=True)
            wanted, unwanted = set(), set()
            for pin in self.pins():
                digests = {file.sha256 for file in pin.files}
                if keep is not None and (pin.repo_id, pin.commit) not in keep:
                    shutil.rmtree(self.root / "repos" / _folder(pin.repo_id) / pin.commit)
                    unwanted |= digests
                else:
                    wanted |= digests
            for path in self.root.glob("blobs/*/*"):
                old = path.name in unwanted or time.time() - path.stat().st_mtime > FRESH
                if path.name not in wanted and old:
                    freed += _size(path)
                    path.unlink()
        return freed

    def used(self) -> int:
        """Bytes of everything in the store."""
        return sum(_size(path) for path in self.root.rglob("*") if path.is_file())


class Incoming:
    """Bytes on their way into the store, hashed as they come."""

    def __init__(self, store: Store, file: IO[bytes], size: int) -> None:
        self.store, self.file, self.size = store, file, size
        self.restart()

    def restart(self) -> None:
        """Begin again from the first byte."""
        self.file.seek(0)
        self.file.truncate()
        self.received = 0
        self.sha256 = hashlib.sha256()
        self.git = hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)  # what git calls a file of this size

    def write(self, chunk: bytes) -> None:
        """Take the next bytes.

        Raises:
            HubIntegrityError: there are more than were announced.
        """
        self.received += len(chunk)
        if self.received > self.size:
            raise HubIntegrityError(f"more than the {self.size:,} bytes that were announced", "do not use this file")
        self.file.write(chunk)
        self.sha256.update(chunk)
        self.git.update(chunk)

    def keep(self) -> str:
        """Put the bytes where their digest says; returns it. Afterwards they survive a power loss."""
        self.file.flush()
        os.fsync(self.file.fileno())
        digest = self.sha256.hexdigest()
        target = self.store.blob(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.chmod(self.file.name, 0o444)
        os.replace(self.file.name, target)
        for folder in (target.parent, target.parent.parent):
            handle = os.open(folder, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
        return digest


def _locked_temporary(folder: Path) -> IO[bytes]:
    """A new file that this process holds a lock on: the lock goes with the process, however that ends."""
    while True:
        handle, name = tempfile.mkstemp(dir=folder)
        os.close(handle)
        with contextlib.suppress(FileNotFoundError):  # somebody collected it in the moment before it was locked
            file = Path(name).open("r+b")  # noqa: SIM115 - the caller closes it
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            if Path(name).exists():
                return file
            file.close()


def _abandoned(path: Path) -> bool:
    if fcntl is None:
        return time.time() - path.stat().st_mtime > 24 * FRESH
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def _folder(repo_id: str) -> str:
    return quote(repo_id, safe="/").replace("/", "--", 1)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
