"""The store: every fetched file once, under its sha256, shared by projects and processes. Standard library.

::

    blobs/ab/ab12...            the bytes; read-only
    repos/org--name/COMMIT/F    JSON: which bytes the file F (quoted) of a commit is
    refs/org--name/REVISION     the commit a branch or tag stood at when it was last asked for
    listings/org--name/COMMIT   JSON: what the Hub states of a commit
    tmp/                        files on their way; the process that writes one holds a lock on it
    locks/                      the same for what is being fetched, so that others wait for it
    engines/                    what was built here, by what it was built of (see deploy/engine_cache.py)
    damaged/                    what no longer had its digest
    aside/                      what prune is about to remove

All of it are files and folders. A link could lead out of the store, so one is never followed: ``verify`` names it, and
prune removes it.

Nothing here depends on another process. A writer makes a temporary and renames it; a pull records what it has and looks
whether that is still there; prune moves away, looks for records made meanwhile, puts back what they name, and then
removes the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote

from pocketzoo.errors import HubIntegrityError, StorageError
from pocketzoo.zoo.files import disk_errors, home, place_errors, sha256
from pocketzoo.zoo.reference import COMMIT

try:
    import fcntl
except ImportError:  # Windows: temporaries are collected by their age alone
    fcntl = None  # type: ignore[assignment]

MONTH = 30 * 24 * 3600  # seconds for which prune leaves an engine that nobody takes
FRESH = 3600  # seconds for which prune leaves a blob alone: its record may still be on the way
SHA256 = re.compile(r"[0-9a-f]{64}")
ROOM = "free some space there, or set POCKETZOO_HOME to another disk"


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
        try:
            if not self._is_link(path) and sha256(path) == digest:
                return path
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        with contextlib.suppress(OSError):  # in a read-only store it stays where it is, and is not used
            aside = self.root / "damaged" / f"{digest}.{time.time_ns()}"
            self._refuse_link(aside.parent)
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
        with disk_errors(needs, ROOM), self._temporary(needs) as file:
            if shutil.disk_usage(self.root).free < size:
                raise StorageError(f"cannot write {needs}: no space is left", ROOM)
            yield Incoming(self, file, size)

    @contextlib.contextmanager
    def turn(self, digest: str, patience: float, stopped: Callable[[], bool]) -> Iterator[Path]:
        """Wait while another process fetches the same; it touches the path that is given here as long as bytes come.

        It saves a second transfer and nothing depends on it: after ``patience`` seconds without a touch, and where
        nothing can be locked, nobody waits.
        """
        place = self.root / "locks" / digest
        file = None
        with contextlib.suppress(OSError):
            self._refuse_link(place.parent)
            place.parent.mkdir(parents=True, exist_ok=True)
            file = _wait_for(place, patience, stopped)
        try:
            yield place
        finally:
            if file is not None:
                with contextlib.suppress(OSError):
                    place.unlink()
                file.close()

    def put(self, source: Path) -> Stored:
        """Copy a file in; its name there is empty."""
        with self.writing(source.stat().st_size) as incoming, source.open("rb") as file:
            while chunk := file.read(1 << 20):
                incoming.write(chunk)
            return Stored("", incoming.keep(), incoming.received)

    # -- names

    def record(self, repo_id: str, commit: str, file: Stored) -> None:
        """Remember that a file of a commit has these bytes."""
        data = {"path": file.path, "sha256": file.sha256, "size": file.size}
        self._note(self._commit(repo_id, commit) / _quoted(file.path), json.dumps(data))

    def known(self, repo_id: str, commit: str) -> dict[str, Stored]:
        """The files of a commit that are in the store."""
        found = (_read_record(place) for place in _below(self._commit(repo_id, commit)))
        return {file.path: file for file in found if file is not None and self._has(file.sha256)}

    def commits(self, repo_id: str) -> list[str]:
        """The commits of a repository that something was fetched of."""
        return sorted({place.parent.name for place in _below(self.root / "repos" / _folder(repo_id))})

    def remember(self, repo_id: str, revision: str, commit: str) -> None:
        """Note where a branch or tag stands now."""
        self._note(self.root / "refs" / _folder(repo_id) / _quoted(revision), commit)

    def last(self, repo_id: str, revision: str) -> str | None:
        """The commit a branch or tag stood at when it was last asked for."""
        with contextlib.suppress(ValueError, OSError):
            commit = (self.root / "refs" / _folder(repo_id) / _quoted(revision)).read_text("utf8")
            return commit if COMMIT.fullmatch(commit) else None
        return None

    def note_listing(self, repo_id: str, commit: str, listing: dict[str, Any]) -> None:
        """Keep what the Hub states of a commit, so that nobody asks again."""
        self._note(self.root / "listings" / _folder(repo_id) / commit, json.dumps(listing))

    def listing(self, repo_id: str, commit: str) -> dict[str, Any] | None:
        """What the Hub stated of a commit, if it was asked before."""
        with contextlib.suppress(ValueError, TypeError, OSError):
            return dict(json.loads((self.root / "listings" / _folder(repo_id) / commit).read_text("utf8")))
        return None

    def pins(self) -> list[Pin]:
        """Everything that was fetched, sorted."""
        commits = sorted({(f.parent.parent.name, f.parent.name) for f in _below(self.root / "repos")})
        found = ((unquote(name.replace("--", "/", 1)), commit) for name, commit in commits)
        return [Pin(r, c, tuple(files.values())) for r, c in found if (files := self.known(r, c))]

    # -- care

    def collect(self) -> list[Path]:
        """Remove temporaries whose writer is gone; returns them."""
        paths = [*_below(self.root / "tmp"), *_below(self.root / "locks")]
        return [path for path in paths if _remove_abandoned(path)]

    def verify(self) -> list[Problem]:
        """Hash everything; what is damaged, and what a record names that is not there."""
        damaged = [path for path in _below(self.root / "blobs") if _is_damaged(path)]
        return [*(Problem(path, "its bytes are not what its name says") for path in damaged), *self._dangling()]

    def prune(self, keep: Sequence[tuple[str, str]] | None = None) -> int:
        """Remove what nothing names: bytes without a record, temporaries, damaged files; returns bytes freed.

        With ``keep``, (repository, commit) pairs, all other records go first. What others record meanwhile stays.

        Raises:
            StorageError: the disk refuses, or another prune is running.
        """
        if not self.root.is_dir():
            return 0
        with disk_errors(self.root, ROOM), self._only_prune():
            for place in self.root.iterdir():
                if place.is_symlink():
                    place.unlink()
            temporaries = {path: _size(path) for path in _below(self.root / "tmp")}
            freed = sum(temporaries.get(path, 0) for path in self.collect())
            self._put_back()  # of a prune that was killed
            given_up: set[str] = set()
            for pin in self.pins() if keep is not None else ():
                if (pin.repo_id, pin.commit) not in (keep or ()):
                    given_up |= {file.sha256 for file in pin.files}
                    self._set_aside(self._commit(pin.repo_id, pin.commit), f"dropped/{time.time_ns()}")
            named = self._named()
            for path in _below(self.root / "blobs"):
                old = path.name in given_up or _age(path) > FRESH
                if (path.name not in named and old) or _is_damaged(path):
                    self._set_aside(path)
            self._put_back()
            for problem in self._dangling():
                self._set_aside(problem.path)
            self._put_back()
            for path in _below(self.root / "engines"):
                if path.suffix != ".sha256" and _age(path) > MONTH:
                    self._set_aside(path)
                    self._set_aside(path.with_suffix(".sha256"))
            leftovers = [self.root / "aside", self.root / "damaged"]
            freed += sum(_size(path) for folder in leftovers for path in _below(folder))
            for folder in leftovers:
                shutil.rmtree(folder, ignore_errors=True)
        return freed

    def used(self) -> int:
        """Bytes of everything in the store."""
        return sum(_size(path) for path in _below(self.root))

    # -- its own

    def _is_link(self, path: Path) -> bool:
        """Whether a path in the store, or a folder on the way to it, is a link. The store itself may be behind one."""
        return any(p.is_symlink() for p in (path, *path.parents) if self.root in p.parents)

    def _has(self, digest: str) -> bool:
        path = self.blob(digest)
        return path.is_file() and not self._is_link(path)

    def _refuse_link(self, path: Path) -> None:
        if self._is_link(path):
            raise StorageError(f"{path} is a link, and could lead out of the store", "remove it: pocketzoo store prune")

    def _commit(self, repo_id: str, commit: str) -> Path:
        return self.root / "repos" / _folder(repo_id) / commit

    def _note(self, place: Path, text: str) -> None:
        """Write a small file, unless it says so already: a read-only store is not asked to change."""
        with contextlib.suppress(ValueError, OSError):
            if place.read_text("utf8") == text:
                return
        with disk_errors(place, ROOM), self._temporary(place) as file:
            file.write(text.encode())
            self._move(file, place, 0o644)

    @contextlib.contextmanager
    def _temporary(self, what: Path | str) -> Iterator[IO[bytes]]:
        """A file on its way; it is gone afterwards unless it was moved."""
        folder = self.root / "tmp"
        self._refuse_link(folder)
        with place_errors(folder, what, ROOM):
            file = _locked_temporary(folder)
        try:
            yield file
        finally:
            Path(file.name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # on a full disk: that was raised already
                file.close()

    def _move(self, file: IO[bytes], target: Path, mode: int) -> None:
        """Put a temporary where it belongs. Afterwards it survives a power loss."""
        self._refuse_link(target.parent)
        file.flush()
        os.fsync(file.fileno())
        os.chmod(file.name, mode)
        for left in reversed(range(10)):
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file.name, target)
                break
            except (FileNotFoundError, FileExistsError):  # prune took the folder away: after mkdir, or within it
                if not left:
                    raise
        for folder in target.parents:
            with contextlib.suppress(FileNotFoundError):
                handle = os.open(folder, os.O_RDONLY)
                os.fsync(handle)
                os.close(handle)
            if folder == self.root:
                break

    def _named(self) -> set[str]:
        """Every digest that a record names."""
        return {r.sha256 for place in _below(self.root / "repos") if (r := _read_record(place)) is not None}

    def _dangling(self) -> list[Problem]:
        problems = []
        for place in _below(self.root / "repos"):
            record = _read_record(place)
            if record is None and os.path.lexists(place):
                problems.append(Problem(place, "it is no record"))
            elif record is not None and not self._has(record.sha256):
                problems.append(Problem(place, "the bytes it names are not there"))
        return problems

    @contextlib.contextmanager
    def _only_prune(self) -> Iterator[None]:
        with (self.root / "prune.lock").open("ab") as file:
            try:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StorageError(f"another prune is at work in {self.root}", "wait for it to end") from error
            yield

    def _set_aside(self, path: Path, name: str = "") -> None:
        target = self.root / "aside" / (name or path.relative_to(self.root))
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.replace(path, target)

    def _put_back(self) -> None:
        """Return from ``aside`` the bytes that a record names after all, and records whose bytes came after all."""
        named = self._named()
        for path in _below(self.root / "aside" / "blobs"):
            if path.name in named and not self.blob(path.name).exists() and not _is_damaged(path):
                self.blob(path.name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, self.blob(path.name))
        for path in _below(self.root / "aside" / "repos"):
            record, place = _read_record(path), self.root / path.relative_to(self.root / "aside")
            if record is not None and self._has(record.sha256):
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, place)


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
        digest = self.sha256.hexdigest()
        self.store._move(self.file, self.store.blob(digest), 0o444)
        return digest


def git_digest(data: bytes) -> str:
    """What git calls a file of these bytes."""
    return hashlib.sha1(b"blob %d\0%s" % (len(data), data), usedforsecurity=False).hexdigest()


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


def _wait_for(place: Path, patience: float, stopped: Callable[[], bool]) -> IO[bytes] | None:
    """The file at ``place``, locked; None if its holder stands still."""
    seen, moved = -1, time.monotonic()
    while fcntl is not None and not stopped():
        file = place.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_ino == place.stat().st_ino:
                return file
        except FileNotFoundError:  # its holder just ended and removed it
            pass
        except BlockingIOError:
            if (touched := os.fstat(file.fileno()).st_mtime_ns) != seen:
                seen, moved = touched, time.monotonic()
            elif time.monotonic() - moved >= patience:
                file.close()
                return None
            time.sleep(0.05)
        file.close()
    return None


def _remove_abandoned(path: Path) -> bool:
    """Remove a temporary that nobody holds the lock on. It is removed while the lock is held here."""
    if path.is_symlink():  # no writer makes one
        path.unlink(missing_ok=True)
        return True
    with contextlib.suppress(OSError), path.open("rb") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif _age(path) < 24 * FRESH:
            return False
        path.unlink()
        return True
    return False


def _read_record(place: Path) -> Stored | None:
    """What a record says; None if it is damaged or gone."""
    with contextlib.suppress(ValueError, TypeError, KeyError, OSError):
        data = {} if place.is_symlink() else json.loads(place.read_text("utf8"))
        if SHA256.fullmatch(data["sha256"]):
            return Stored(str(data["path"]), data["sha256"], int(data["size"]))
    return None


def _is_damaged(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):  # gone in the meantime
        return path.is_symlink() or path.parent.name != path.name[:2] or sha256(path) != path.name
    return False


def _folder(repo_id: str) -> str:
    return _quoted(repo_id.replace("/", "--", 1))


def _quoted(text: str) -> str:
    """Any text as the name of a file."""
    name = quote(text, safe="")
    name = f"%2E{name[1:]}" if name.startswith(".") else name
    return name if len(name) <= 200 else f"{name[:100]}%{hashlib.sha256(text.encode()).hexdigest()}"


def _below(folder: Path) -> list[Path]:
    """Every file and every link below a folder, sorted; of one that changes meanwhile, about those."""
    if folder.is_symlink():
        return [folder]
    found = []
    for where, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(where, name))]
        found += [Path(where) / name for name in (*names, *links)]
    return sorted(found)


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.lstat().st_size
    return 0


def _age(path: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return time.time() - path.lstat().st_mtime
    return 0.0
