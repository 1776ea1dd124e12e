"""Where a bundle is written, and the work folder of an unfinished run next to it: locked, and tied to one command."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pocketzoo.core.errors import BundleError, BusyError, ExportError, PocketzooError, StorageError, TrainingError
from pocketzoo.core.files import TEMPORARY, collect_temporaries, disk_errors, place_errors, replacing_file, sha256
from pocketzoo.core.names import check_folder_name
from pocketzoo.core.progress import Progress
from pocketzoo.zoo.bundles.manifest import MANIFEST
from pocketzoo.zoo.hub.locked_files import try_lock

LOCK, KEY = "lock", "key"
DELIVERED = "delivered"  # sha256 of the manifest of what a run made: noted before that is moved to its place


def check_place(path: Path, *, force: bool) -> None:
    """Raises:
    BundleError: a bundle must not be written to ``path``: it is something else, or without ``force`` a bundle.
    ExportError: it is called as if it were a file.
    """
    if os.path.isfile(path / MANIFEST):
        collect_leftovers(path)
        if not force:
            raise BundleError(f"{path} is already a finished bundle", "give another -o, or --force to replace it")
        return
    check_folder_name(path, "a bundle")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise BundleError(f"{path} exists and is not a bundle", "choose another place with -o")


def check_outside(place: Path, hint: str = "choose another place with -o") -> None:
    """Raises:
    ExportError: ``place`` is in the folder of a bundle, whose own files it could replace.
    """
    if (Path(os.path.realpath(place)).parent / MANIFEST).is_file():
        raise ExportError(f"{place} is inside a bundle", hint)


def work_folder(out: Path) -> Path:
    """Where a run that writes ``out`` keeps what it can resume from."""
    return out.with_name(f".{out.name}.run")


def note_delivery(work: Path, bundle: Path) -> None:
    """Say in a work folder that its run ends with ``bundle``, which is about to be moved to its place."""
    (work / DELIVERED).write_text(sha256(bundle / MANIFEST))


def collect_leftovers(path: Path) -> None:
    """Remove what was left next to a bundle by those that were killed: temporaries, and the work folder of a run that
    had put the bundle there, and so has nothing to resume."""
    path = Path(os.path.realpath(path))
    collect_temporaries(path.parent)
    work = work_folder(path)
    if not (work / DELIVERED).is_file():
        return
    with contextlib.suppress(OSError), (work / LOCK).open("ab") as file:
        locked = try_lock(file) and os.path.samestat(os.fstat(file.fileno()), os.stat(work / LOCK))
        if locked and (work / DELIVERED).read_text() == sha256(path / MANIFEST):
            _remove(work)


def _remove(work: Path) -> None:
    """Remove a work folder whose lock is held: under the name of a temporary, so that a kill leaves one of those."""
    place = Path(tempfile.mkdtemp(prefix=f"{work.name}.", suffix=TEMPORARY, dir=work.parent))
    os.replace(work, place)
    shutil.rmtree(place, ignore_errors=True)


@contextmanager
def unfinished(
    out: Path, key: str, progress: Progress, left: Callable[[Path], str], *, force: bool = False
) -> Iterator[Path]:
    """The work folder of a run that writes ``out``: what another ``key`` left there is removed first.

    It goes when the body succeeds, when what fails is a mistake (fixed, it is another command), and when ``left``,
    which names what the folder holds to resume from, finds nothing.

    Raises:
        BundleError: ``out`` exists and is not a bundle, or without ``force`` is one.
        BusyError: another process works on the same output.
        StorageError: the disk refused.
    """
    out = Path(os.path.realpath(out))  # of a link, the folder it leads to is replaced
    check_place(out, force=force)
    folder = work_folder(out)
    with disk_errors(folder), _alone(folder, out):
        if _key(folder) != key:
            if clear(folder, keep=(LOCK,)):
                progress.say("found an unfinished run of another command; starting over")
            with replacing_file(folder / KEY) as temporary:
                temporary.write_text(key)
        try:
            yield folder
        except BaseException as error:
            mistaken = isinstance(error, PocketzooError) and not isinstance(error, StorageError | TrainingError)
            taken = (
                not force and (out / MANIFEST).is_file()
            )  # meanwhile, by something else: told to replace it, we go on
            if (mistaken and not taken) or not left(folder):
                with contextlib.suppress(OSError):
                    _remove(folder)
            else:
                progress.say(f"{left(folder)} is kept: the same command resumes from there")
            raise
        _remove(folder)


def clear(folder: Path, keep: tuple[str, ...] = ()) -> bool:
    """Remove everything from a work folder but the names in ``keep``; whether there was anything."""
    paths = [path for path in folder.iterdir() if path.name not in keep]
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return bool(paths)


def _key(folder: Path) -> str:
    place = folder / KEY
    return place.read_text() if place.is_file() else ""


@contextmanager
def _alone(folder: Path, out: Path) -> Iterator[None]:
    """Hold the folder's lock. It goes with the process, however that ends."""
    while True:
        with place_errors(folder, out):
            file = (folder / LOCK).open("ab")
        with file:
            try:
                if not try_lock(file):
                    raise BusyError(f"another run is writing {out}", "wait for it to finish, or choose another -o")
                if os.fstat(file.fileno()).st_ino != (folder / LOCK).stat().st_ino:
                    continue  # of a folder that its holder just removed
            except FileNotFoundError:
                continue
            yield
            return
