"""The content-addressed store: every downloaded file once, by sha256, shared by processes.

::

    blobs/ab/ab12...            the bytes; read-only
    repos/org--name/COMMIT/F    JSON: which bytes the file F (quoted) of a commit is
    refs/org--name/REVISION     the commit a branch or tag stood at when it was last asked for
    listings/org--name/COMMIT   JSON: what the Hub states of a commit
    tmp/                        files on their way; the process that writes one holds a lock on it
    locks/                      the same for what is being fetched, so that others wait for it
    engines/                    what was built here, by what it was built of (see zoo/backends/tensorrt/engine_cache.py)
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
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

from pocketzoo.core.errors import HubIntegrityError, StorageError
from pocketzoo.core.files import disk_errors, home, place_errors, sha256
from pocketzoo.core.reading.documents import read_json
from pocketzoo.zoo.hub.locked_files import locked_temporary, try_lock, wait_for
from pocketzoo.zoo.hub.reference import COMMIT
from pocketzoo.zoo.hub.store_layout import age_of, files_below, folder_of, is_damaged, quoted, read_record, size_of
from pocketzoo.zoo.hub.stored_files import Pin, Problem, Stored

MONTH = 30 * 24 * 3600  # seconds for which prune leaves an engine that nobody takes
FRESH = 3600  # seconds for which prune leaves a blob alone: its record may still be on the way
ROOM = "free some space there, or set POCKETZOO_HOME to another disk"


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
            file = wait_for(place, patience, stopped)
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
        self._note(self._commit(repo_id, commit) / quoted(file.path), json.dumps(data))

    def known(self, repo_id: str, commit: str) -> dict[str, Stored]:
        """The files of a commit that are in the store."""
        records = (read_record(place) for place in files_below(self._commit(repo_id, commit)))
        return {file.path: file for file in records if file is not None and self._has(file.sha256)}

    def commits(self, repo_id: str) -> list[str]:
        """The commits of a repository that something was fetched of."""
        return sorted({place.parent.name for place in files_below(self.root / "repos" / folder_of(repo_id))})

    def remember(self, repo_id: str, revision: str, commit: str) -> None:
        """Note where a branch or tag stands now."""
        self._note(self.root / "refs" / folder_of(repo_id) / quoted(revision), commit)

    def last(self, repo_id: str, revision: str) -> str | None:
        """The commit a branch or tag stood at when it was last asked for."""
        with contextlib.suppress(ValueError, OSError):
            commit = (self.root / "refs" / folder_of(repo_id) / quoted(revision)).read_text("utf8")
            return commit if COMMIT.fullmatch(commit) else None
        return None

    def note_listing(self, repo_id: str, commit: str, listing: dict[str, Any]) -> None:
        """Keep what the Hub states of a commit, so that nobody asks again."""
        self._note(self.root / "listings" / folder_of(repo_id) / commit, json.dumps(listing))

    def listing(self, repo_id: str, commit: str) -> dict[str, Any] | None:
        """What the Hub stated of a commit, if it was asked before."""
        with contextlib.suppress(ValueError, TypeError, OSError):
            return dict(read_json(self.root / "listings" / folder_of(repo_id) / commit))
        return None

    def pins(self) -> list[Pin]:
        """Everything that was fetched, sorted."""
        commits = sorted({(f.parent.parent.name, f.parent.name) for f in files_below(self.root / "repos")})
        revisions = ((unquote(name.replace("--", "/", 1)), commit) for name, commit in commits)
        return [Pin(r, c, tuple(files.values())) for r, c in revisions if (files := self.known(r, c))]

    # -- care

    def collect(self) -> list[Path]:
        """Remove temporaries whose writer is gone; returns them."""
        paths = [*files_below(self.root / "tmp"), *files_below(self.root / "locks")]
        return [path for path in paths if _remove_abandoned(path)]

    def verify(self) -> list[Problem]:
        """Hash everything; what is damaged, and what a record names that is not there."""
        damaged = [path for path in files_below(self.root / "blobs") if is_damaged(path)]
        return [*(Problem(path, "its content does not match its digest") for path in damaged), *self._dangling()]

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
            temporaries = {path: size_of(path) for path in files_below(self.root / "tmp")}
            freed = sum(temporaries.get(path, 0) for path in self.collect())
            self._put_back()  # of a prune that was killed
            given_up: set[str] = set()
            for pin in self.pins() if keep is not None else ():
                if (pin.repo_id, pin.commit) not in (keep or ()):
                    given_up |= {file.sha256 for file in pin.files}
                    self._set_aside(self._commit(pin.repo_id, pin.commit), f"dropped/{time.time_ns()}")
            named = self._named()
            for path in files_below(self.root / "blobs"):
                old = path.name in given_up or age_of(path) > FRESH
                if (path.name not in named and old) or is_damaged(path):
                    self._set_aside(path)
            self._put_back()
            for problem in self._dangling():
                self._set_aside(problem.path)
            self._put_back()
            for path in files_below(self.root / "engines"):
                if path.suffix != ".sha256" and age_of(path) > MONTH:
                    self._set_aside(path)
                    self._set_aside(path.with_suffix(".sha256"))
            leftovers = [self.root / "aside", self.root / "damaged"]
            freed += sum(size_of(path) for folder in leftovers for path in files_below(folder))
            for folder in leftovers:
                shutil.rmtree(folder, ignore_errors=True)
        return freed

    def used(self) -> int:
        """Bytes of everything in the store."""
        return sum(size_of(path) for path in files_below(self.root))

    # -- its own

    def _is_link(self, path: Path) -> bool:
        """Whether a path in the store, or a folder on the way to it, is a link. The store itself may be behind one."""
        return any(p.is_symlink() for p in (path, *path.parents) if self.root in p.parents)

    def _has(self, digest: str) -> bool:
        path = self.blob(digest)
        return path.is_file() and not self._is_link(path)

    def _refuse_link(self, path: Path) -> None:
        if self._is_link(path):
            raise StorageError(
                f"{path} is a link, which could point outside the store", "remove it: pocketzoo store prune"
            )

    def _commit(self, repo_id: str, commit: str) -> Path:
        return self.root / "repos" / folder_of(repo_id) / commit

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
            file = locked_temporary(folder)
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
        return {r.sha256 for place in files_below(self.root / "repos") if (r := read_record(place)) is not None}

    def _dangling(self) -> list[Problem]:
        problems = []
        for place in files_below(self.root / "repos"):
            record = read_record(place)
            if record is None and os.path.lexists(place):
                problems.append(Problem(place, "it is not a record"))
            elif record is not None and not self._has(record.sha256):
                problems.append(Problem(place, "its content is missing"))
        return problems

    @contextlib.contextmanager
    def _only_prune(self) -> Iterator[None]:
        with (self.root / "prune.lock").open("ab") as file:
            if not try_lock(file):
                raise StorageError(f"another prune is running in {self.root}", "wait for it to finish")
            yield

    def _set_aside(self, path: Path, name: str = "") -> None:
        target = self.root / "aside" / (name or path.relative_to(self.root))
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.replace(path, target)

    def _put_back(self) -> None:
        """Return from ``aside`` the bytes that a record names after all, and records whose bytes came after all."""
        named = self._named()
        for path in files_below(self.root / "aside" / "blobs"):
            if path.name in named and not self.blob(path.name).exists() and not is_damaged(path):
                self.blob(path.name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, self.blob(path.name))
        for path in files_below(self.root / "aside" / "repos"):
            record, place = read_record(path), self.root / path.relative_to(self.root / "aside")
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
            raise HubIntegrityError(f"more than the announced {self.size:,} bytes", "do not use this file")
        self.file.write(chunk)
        self.sha256.update(chunk)
        self.git.update(chunk)

    def keep(self) -> str:
        """Put the bytes where their digest says; returns it. Afterwards they survive a power loss."""
        digest = self.sha256.hexdigest()
        self.store._move(self.file, self.store.blob(digest), 0o444)
        return digest


def _remove_abandoned(path: Path) -> bool:
    """Remove a temporary that nobody holds the lock on. It is removed while the lock is held here."""
    if path.is_symlink():  # no writer makes one
        path.unlink(missing_ok=True)
        return True
    mode = "r+b" if os.access(path, os.W_OK) else "rb"  # NFS locks only what is open for writing
    with contextlib.suppress(OSError), path.open(mode) as file:
        if try_lock(file):
            path.unlink()
            return True
    return False
