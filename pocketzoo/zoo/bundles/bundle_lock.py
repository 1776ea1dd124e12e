"""One process at a time changes a bundle; those that read it are not held up."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pocketzoo.core.errors import BundleError, BusyError, SignatureError, StorageError
from pocketzoo.core.files import disk_errors, lock_holder, try_lock
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.zoo.bundles.manifest import SIGNATURE

SILENCE = 1.0  # seconds of waiting after which it is said
PATIENCE = 600.0  # seconds: most changes take few; the graphs of a language model are exported within one


@contextmanager
def changing(path: Path, *, patience: float = PATIENCE, progress: Progress = SILENT) -> Iterator[None]:
    """Hold a bundle, to read it, change it and put it back: who else would change it waits, and says for whom.

    The lock is on the folder itself and goes with the process, however that ends, so nothing is left to remove. A
    change puts another folder in its place, so who waited for it looks again.

    Raises:
        BundleError: there is no folder at ``path``.
        BusyError: another process has held it for longer than ``patience``.
    """
    path = Path(os.path.realpath(path))
    begun, said = time.monotonic(), False
    while True:
        handle = _open(path)
        try:
            if _lock(handle, path):
                if _is_at(handle, path):
                    yield
                    return
            elif (waited := time.monotonic() - begun) > patience:
                raise BusyError(f"{_holder(handle, path)} is changing {path}", "wait for it to finish")
            else:
                if waited > SILENCE and not said:
                    said = True
                    progress.say(f"waiting for {path}, which {_holder(handle, path)} is changing")
                time.sleep(0.05)
        finally:
            os.close(handle)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(f"there is no bundle at {path}", "make one with: pocketzoo fit ... -o BUNDLE") from error
    except PermissionError as error:
        raise StorageError(f"cannot read {path}: permission is denied", "ask its owner, or copy it") from error


def _lock(handle: int, path: Path) -> bool:
    try:
        return try_lock(handle)
    except OSError:  # NFS has no locks on folders, but on files; this one stays
        with disk_errors(path):
            file = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
            try:
                locked = try_lock(file)
                if locked:
                    os.dup2(file, handle, inheritable=False)  # the caller closes that
            finally:
                os.close(file)
            return locked


def _holder(handle: int, path: Path) -> str:
    """Who has the lock: its process, where the system says so of this machine's processes."""
    for place in (handle, path.with_name(f".{path.name}.lock")):
        with contextlib.suppress(OSError):
            if process := lock_holder(os.stat(place)):
                return f"process {process}"
    return "another process"


def _is_at(handle: int, path: Path) -> bool:
    """Whether a folder that was opened is still what is at ``path``; a file is a lock on that name, whatever is."""
    held = os.fstat(handle)
    try:
        return not stat.S_ISDIR(held.st_mode) or os.path.samestat(held, os.stat(path))
    except FileNotFoundError:
        return False


def check_writable(path: Path) -> None:
    """Raises:
    StorageError: the bundle at ``path`` is read-only. Root may write it all the same, and is not to.
    """
    if not os.access(path, os.W_OK) or not os.stat(path).st_mode & 0o222:
        raise StorageError(f"cannot change {path}: it is read-only", "copy it, or write elsewhere with -o")


def check_unsigned(path: Path, *, force: bool) -> None:
    """Raises:
    SignatureError: a change of the bundle at ``path`` would drop its signature, and ``force`` does not say to.
    """
    if not force and os.path.lexists(path / SIGNATURE):
        raise SignatureError(
            f"{path} is signed, and a change drops its signature",
            f"give --force, and sign it again: pocketzoo sign {path} --key KEY",
        )
