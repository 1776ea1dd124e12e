"""The finished steps of a run, kept next to its output, so that the same command goes on where it was stopped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pocketzoo.errors import BundleError, BusyError, PocketzooError, StorageError
from pocketzoo.progress import Progress
from pocketzoo.zoo.bundle import Bundle, check_place, read_bundle
from pocketzoo.zoo.files import disk_errors, place_errors, put_folder, replacing_file

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two runs apart there
    fcntl = None  # type: ignore[assignment]

LOCK, KEY, STEP = "lock", "key", "step-"
LESSON = "lesson"  # what the step at hand has learned so far


class Checkpoints:
    """A folder with the bundle that the last finished step made. It belongs to one command: its ``key``."""

    def __init__(self, folder: Path, out: Path) -> None:
        self.folder, self.out = folder, out
        self.finished = 0  # steps
        self.bundle: Bundle | None = None  # what they made of the source

    def read(self, key: str) -> bool:
        """Take up what an earlier run left; False, and everything is removed, if that was another command's."""
        if self._key() != key:
            was_empty = not [p for p in self.folder.iterdir() if p.name != LOCK]
            self.clear(keep=(LOCK,))
            with replacing_file(self.folder / KEY) as temporary:
                temporary.write_text(key)
            return was_empty
        for number in sorted((int(p.name.removeprefix(STEP)) for p in self.folder.glob(f"{STEP}*")), reverse=True):
            try:
                self.bundle, self.finished = read_bundle(self.place(number)), number
                break
            except BundleError:  # a damaged disk: the step is taken again
                continue
        self.clear(keep=(LOCK, KEY, LESSON, self.place(self.finished).name))
        return True

    def place(self, number: int) -> Path:
        """Where the bundle of the first ``number`` steps is."""
        return self.folder / f"{STEP}{number}"

    def keep(self, number: int, folder: Path) -> Bundle:
        """Note that the first ``number`` steps are finished: ``folder`` is the bundle they made. It is moved."""
        put_folder(folder, self.place(number))
        self.bundle, self.finished = read_bundle(self.place(number)), number
        self.clear(keep=(LOCK, KEY, self.place(number).name))
        return self.bundle

    def deliver(self, folder: Path) -> Bundle:
        """Move a finished bundle to where it was asked for, and forget the steps."""
        put_folder(folder, self.out)
        return read_bundle(self.out)

    @property
    def left(self) -> str:
        """What an interrupted run can go on from."""
        return f"step {self.finished}" if self.finished else "what was learned"

    def clear(self, keep: tuple[str, ...] = ()) -> None:
        """Remove everything but the names in ``keep``."""
        for path in self.folder.iterdir():
            if path.name not in keep:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _key(self) -> str:
        place = self.folder / KEY
        return place.read_text() if place.is_file() else ""


@contextmanager
def checkpoints(out: Path, key: str, progress: Progress) -> Iterator[Checkpoints]:
    """The work folder of a run that writes ``out``: taken up if ``key`` is the same, begun anew if not.

    It is removed when the body succeeds, when it fails before a step was finished, and when what failed is a mistake.

    Raises:
        BundleError: ``out`` exists and is no bundle.
        BusyError: another process works on the same output.
        StorageError: the disk refused.
    """
    out = Path(os.path.realpath(out))  # of a link, the folder it leads to is replaced
    check_place(out)
    folder = out.with_name(f".{out.name}.run")
    with disk_errors(folder), _alone(folder, out):
        found = Checkpoints(folder, out)
        if not found.read(key):
            progress.say("an unfinished run of another command lay here; starting anew")
        elif found.finished:
            progress.say(f"going on after step {found.finished} of an earlier run")
        try:
            yield found
        except BaseException as error:
            mistaken = isinstance(error, PocketzooError) and not isinstance(error, StorageError)
            if (
                not (found.finished or (folder / LESSON).is_dir()) or mistaken
            ):  # a mistake that is mended makes another command
                shutil.rmtree(folder, ignore_errors=True)
            else:
                progress.say(f"{found.left} is kept: the same command goes on from there")
            raise
        shutil.rmtree(folder)


@contextmanager
def _alone(folder: Path, out: Path) -> Iterator[None]:
    """Hold the folder's lock. It goes with the process, however that ends."""
    while True:
        with place_errors(folder, out):
            file = (folder / LOCK).open("ab")
        with file:
            try:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(file.fileno()).st_ino != (folder / LOCK).stat().st_ino:
                    continue  # of a folder that its holder just removed
            except FileNotFoundError:
                continue
            except BlockingIOError as error:
                raise BusyError(f"another run is writing {out}", "wait for it to end, or choose another -o") from error
            yield
            return
