"""Finished steps of a run, kept next to its output, so that an interrupted run resumes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pocketzoo.core.errors import BundleError
from pocketzoo.core.files import put_folder
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.zoo.bundles.bundle import Bundle, put_bundle, read_bundle
from pocketzoo.zoo.bundles.work_folder import KEY, LOCK, clear, unfinished

STEP = "step-"
DISTILLATION = "distillation"  # what the step at hand has learned so far


class Checkpoints:
    """A work folder with the bundle that the last finished step made."""

    def __init__(self, folder: Path, out: Path, *, force: bool = False, progress: Progress = SILENT) -> None:
        """Takes up what an earlier run left in ``folder``."""
        self.folder, self.out, self.force, self.progress = folder, out, force, progress
        self.finished = 0  # steps
        self.bundle: Bundle | None = None  # what they made of the source
        for number in sorted((int(p.name.removeprefix(STEP)) for p in folder.glob(f"{STEP}*")), reverse=True):
            try:
                self.bundle, self.finished = read_bundle(self.place(number)), number
                break
            except BundleError:  # a damaged disk: the step is taken again
                continue
        clear(folder, keep=(LOCK, KEY, DISTILLATION, self.place(self.finished).name))

    def place(self, number: int) -> Path:
        """Where the bundle of the first ``number`` steps is."""
        return self.folder / f"{STEP}{number}"

    def keep(self, number: int, folder: Path) -> Bundle:
        """Note that the first ``number`` steps are finished: ``folder`` is the bundle they made. It is moved."""
        put_folder(folder, self.place(number))
        self.bundle, self.finished = read_bundle(self.place(number)), number
        clear(self.folder, keep=(LOCK, KEY, self.place(number).name))
        return self.bundle

    def deliver(self, folder: Path) -> Bundle:
        """Move a finished bundle to where it was asked for, and forget the steps.

        Raises:
            BundleError: something is there since the run began, and is not to be replaced.
        """
        put_bundle(folder, self.out, force=self.force, work=self.folder, progress=self.progress)
        return read_bundle(self.out)


@contextmanager
def checkpoints(out: Path, key: str, progress: Progress, *, force: bool = False) -> Iterator[Checkpoints]:
    """The finished steps of a run that writes ``out``: taken up if ``key`` is the same, begun anew if not.

    They are forgotten when the body succeeds, and when what failed is a mistake.

    Raises:
        BundleError: ``out`` exists and is not a bundle, or without ``force`` is one.
        BusyError: another process works on the same output.
        StorageError: the disk refused.
    """
    with unfinished(out, key, progress, _left, force=force) as folder:
        place = Path(os.path.realpath(out))  # of a link, the folder it leads to is replaced
        saved = Checkpoints(folder, place, force=force, progress=progress)
        if saved.finished:
            progress.say(f"resuming after step {saved.finished} of an earlier run")
        yield saved


def _left(folder: Path) -> str:
    """What an interrupted run can resume from."""
    steps = [int(path.name.removeprefix(STEP)) for path in folder.glob(f"{STEP}*")]
    if steps:
        return f"step {max(steps)}"
    return "what was learned" if (folder / DISTILLATION).is_dir() else ""
