"""Work folder of an unfinished run, next to its output: locked, and tied to one command."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pocketzoo.core.errors import BusyError, PocketzooError, StorageError, TrainingError
from pocketzoo.core.files import disk_errors, place_errors, replacing_file
from pocketzoo.core.progress import Progress
from pocketzoo.zoo.bundles.bundle import check_place
from pocketzoo.zoo.bundles.manifest import MANIFEST
from pocketzoo.zoo.hub.locked_files import try_lock

LOCK, KEY = "lock", "key"


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
    folder = out.with_name(f".{out.name}.run")
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
                shutil.rmtree(folder, ignore_errors=True)
            else:
                progress.say(f"{left(folder)} is kept: the same command resumes from there")
            raise
        shutil.rmtree(folder)


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
