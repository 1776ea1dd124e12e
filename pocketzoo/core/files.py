"""Digests, and atomic file writes: a locked temporary, fsync, rename; temporaries of the killed are collected."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pocketzoo.core.errors import PocketzooError, StorageError, message_of

_REFUSED = {
    errno.ENOSPC: "no space is left",
    errno.EDQUOT: "the quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission is denied",
    errno.EPERM: "permission is denied",
    errno.EFBIG: "the file would be larger than is allowed",
}
_SPACE, _PLACE = "free some space there, or choose another place with -o", "choose another place with -o"
_NEXT = {  # what to do about what the system says of a file, where that is not known better
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there",
    errno.EROFS: "choose another place",
    errno.EFBIG: "raise the limit: ulimit -f",
    errno.EMFILE: "raise the limit of open files: ulimit -n",
    errno.ENFILE: "close other programs",
    errno.EIO: "check the disk",
}


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def home() -> Path:
    """The folder pocketzoo keeps its own files in: POCKETZOO_HOME, or ~/.cache/pocketzoo.

    Raises:
        StorageError: it begins with a ``~`` of nobody, or there is no home folder.
    """
    folder = os.environ.get("POCKETZOO_HOME") or "~/.cache/pocketzoo"
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:
        raise StorageError(f"there is no folder {folder}: {error}", "set POCKETZOO_HOME to a folder") from error


def storage_error(error: OSError, path: Path | str = "", hint: str = "", doing: str = "use") -> StorageError:
    """What the system says of a file or folder, as an error of ours; ``path`` where it does not say of which."""
    place = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else error.filename or path
    reason = _REFUSED.get(error.errno or 0) or (error.strerror or str(error) or type(error).__name__).lower()
    what = f"cannot {doing} {place}" if place != "" else "cannot read or write"
    known = _NEXT.get(error.errno or 0, "check the path, and who may read and write it")
    return StorageError(f"{what}: {reason}", hint or known)


_OF_RUST = re.compile(r"\(os error (\d+)\)")  # how its libraries say what the system says


def os_error(error: BaseException) -> OSError | None:
    """What the system says, where that is what an error of a library in Rust means; an ``OSError`` is its own."""
    if isinstance(error, OSError):
        return error
    number = _OF_RUST.search(str(error)) if isinstance(error, Exception) else None
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None


def check_file(path: Path | str) -> None:
    """Refuse what is no file, before it is opened: that of a pipe waits for its other end, and devices have no end.

    Raises:
        StorageError: it is a pipe, a socket or a device; what is not there, or a folder, is for whoever opens it.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise StorageError(f"{path} is {kind}, not a file", "name a file")


def _check_place(path: Path) -> None:
    """Refuse to put a file in the place of what is none, such as ``/dev/null``, nor of a link to standard output."""
    check_file(path)
    folder = Path(os.path.realpath(path.parent))
    if folder == Path("/dev") or folder.is_relative_to("/proc"):
        raise StorageError(f"{path} is not a place for a file", "choose another place with -o")


@contextmanager
def reading_errors(path: Path | str, hint: str = "") -> Iterator[None]:
    """Turn what the system says while files below ``path`` are read into one typed error that names the file."""
    try:
        yield
    except PocketzooError:
        raise
    except OSError as error:
        raise storage_error(error, path, hint, "read") from error


@contextmanager
def disk_errors(path: Path | str, hint: str = _SPACE) -> Iterator[None]:
    """Turn what a full or read-only disk raises into one typed error that names the place.

    Where a file elsewhere is refused, such as one that is read meanwhile, the error names that as well.
    """
    try:
        yield
    except Exception as error:
        refusal = None if isinstance(error, PocketzooError) else os_error(error)
        if refusal is None or refusal.errno not in _REFUSED:
            raise
        reason = _REFUSED[refusal.errno] + _elsewhere(refusal, Path(path))
        raise StorageError(f"cannot write {path}: {reason}", hint) from error


def _elsewhere(error: OSError, path: Path) -> str:
    """Of which file a refusal is, where that is not one that is written at ``path``."""
    name = error.filename
    if isinstance(name, (str, os.PathLike)) and not Path(name).absolute().is_relative_to(path.absolute().parent):
        return f" ({name})"
    return ""


@contextmanager
def place_errors(folder: Path, path: Path | str, hint: str = _PLACE) -> Iterator[None]:
    """The same for making ``folder`` and a temporary in it, where any error means that ``path`` cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        reason = _REFUSED.get(error.errno or 0) or (error.strerror or message_of(error)).lower()
        raise StorageError(f"cannot write {path}: {reason}", hint) from error


# What ends so is locked for as long as its writer lives: it is collected by whoever gets the lock.
TEMPORARY = ".pocketzoo.tmp"


def try_lock(handle: int) -> bool:
    """Lock an open file or folder, without waiting; whether that worked. The lock goes with the last handle of this
    opening, and with the process, however that ends.

    Of filelock only its lock on a descriptor: who holds a lock here writes to that same file, renames or removes it.

    Raises:
        OSError: the file system has no locks, as NFS has none on folders.
    """
    from filelock import lock_descriptor

    return lock_descriptor(handle, blocking=False)


def lock_holder(file: os.stat_result) -> int:
    """The process that holds a lock on a file or folder; 0 where none does here, or the system does not say."""
    place = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    try:
        lines = Path("/proc/locks").read_text("ascii", "replace").splitlines()
    except OSError:
        return 0
    fields = [line.split() for line in lines if "->" not in line]  # with an arrow: who waits for one
    return next((int(each[4]) for each in fields if each[5:6] == [place] and each[4].isdecimal()), 0)


def collect_temporaries(folder: Path) -> list[Path]:
    """Remove what writers that were killed left in ``folder``, and return it. What is locked is left alone, by whoever
    else writes there now; so is what cannot be removed."""
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if e.name.startswith(".") and e.name.endswith(TEMPORARY)]
    except OSError:
        return []
    return [folder / name for name in names if _collect(folder / name)]


def _collect(path: Path) -> bool:
    """Remove a temporary that nobody holds the lock on. It is removed while the lock is held here."""
    with contextlib.suppress(OSError):
        if not (folder := path.is_dir()) and not path.is_file():
            return False
        writing = os.O_RDWR if not folder and os.access(path, os.W_OK) else os.O_RDONLY  # NFS locks what is so opened
        handle = os.open(path, writing | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if try_lock(handle) and os.path.samestat(os.fstat(handle), os.lstat(path)):
                shutil.rmtree(path) if folder else path.unlink()
                return True
        finally:
            os.close(handle)
    return False


@contextmanager
def _temporary(path: Path, *, folder: bool) -> Iterator[Path]:
    """A new locked temporary sibling, which is gone afterwards unless it was moved."""
    with place_errors(path.parent, path):
        collect_temporaries(path.parent)
        temporary, handle = _locked(path, folder)
    try:
        yield temporary
    finally:
        try:
            _remove(temporary, folder)
        except KeyboardInterrupt:
            _remove(temporary, folder)
            raise
        finally:
            os.close(handle)


def _remove(temporary: Path, folder: bool) -> None:
    if folder:
        shutil.rmtree(temporary, ignore_errors=True)
    else:
        temporary.unlink(missing_ok=True)


def _locked(path: Path, folder: bool) -> tuple[Path, int]:
    ending = TEMPORARY
    while True:
        if folder:
            name = tempfile.mkdtemp(prefix=f".{path.name}.", suffix=ending, dir=path.parent)
            try:
                handle = os.open(name, os.O_RDONLY)
            except FileNotFoundError:  # somebody collected it in the moment before it was locked
                continue
        else:
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=ending, dir=path.parent)
        try:
            if ending != TEMPORARY or (try_lock(handle) and os.path.lexists(name)):
                return Path(name), handle
        except OSError:  # no locks here: then by a name that nobody collects
            ending = ".tmp"
            os.rmdir(name) if folder else os.unlink(name)
        os.close(handle)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder in ``TMPDIR`` while the body runs; that of a killed process goes when the next one needs one."""
    with _temporary(Path(tempfile.gettempdir()) / "scratch", folder=True) as folder:
        yield folder


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Give a temporary sibling to write to; rename it to ``path`` if the body succeeds, delete it if not.

    It is for the body to write into, not to replace by another file: the lock that keeps it is its own.
    """
    _check_place(path)
    with disk_errors(path), _temporary(path, folder=False) as temporary:
        yield temporary
        os.chmod(temporary, 0o644)
        _fsync(temporary)
        os.replace(temporary, path)
        _fsync(path.parent)


@contextmanager
def replacing_folder(path: Path, put: Callable[[Path, Path], None] | None = None) -> Iterator[Path]:
    """The same for a folder: a kill at any moment leaves either the old folder or the new one at ``path``.

    ``put`` moves the finished one there, in place of ``put_folder``.
    """
    path = Path(os.path.realpath(path))  # of a link, the folder it leads to is replaced
    with disk_errors(path), _temporary(path, folder=True) as temporary:
        yield temporary
        os.chmod(temporary, 0o755)
        for folder, _, files in os.walk(temporary):
            for name in files:
                _fsync(Path(folder) / name)
            _fsync(Path(folder))
        (put or put_folder)(temporary, path)


def put_folder(folder: Path, path: Path, *, replace: bool = True) -> None:
    """Move a finished folder to ``path`` on the same disk in one step; what was at ``path`` is then at ``folder``.

    Raises:
        FileExistsError: something is there, and ``replace`` is false. Both folders are as they were.
    """
    with disk_errors(path):
        try:
            os.rename(folder, path)  # onto nothing, or an empty folder
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if not replace and any(path.iterdir()):  # some systems rename onto no folder at all, empty or not
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
            _exchange(folder, path)
        _fsync(path.parent)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _exchange(a: Path, b: Path) -> None:
    """Swap two folders in one step. Linux has a call for it; elsewhere two renames leave a gap of microseconds."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is not None:
        at_cwd, exchange = -100, 2
        if renameat2(at_cwd, os.fsencode(a), at_cwd, os.fsencode(b), exchange) == 0:
            return
    aside = b.with_name(f".{b.name}.old.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(b, aside)
    os.rename(a, b)
    shutil.rmtree(aside, ignore_errors=True)
