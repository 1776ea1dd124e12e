"""Temporary files and locks that last as long as their process."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from pocketzoo.core import files


def try_lock(file: IO[bytes]) -> bool:
    """``core.files.try_lock`` of an open file."""
    return files.try_lock(file.fileno())


def locked_temporary(folder: Path) -> IO[bytes]:
    """A new file that this process holds a lock on."""
    while True:
        handle, name = tempfile.mkstemp(dir=folder)
        os.close(handle)
        with contextlib.suppress(FileNotFoundError):  # somebody collected it in the moment before it was locked
            file = Path(name).open("r+b")  # noqa: SIM115 - the caller closes it
            if try_lock(file) and Path(name).exists():
                return file
            file.close()


def wait_for(place: Path, patience: float, stopped: Callable[[], bool]) -> IO[bytes] | None:
    """The file at ``place``, locked; None if its holder stands still."""
    seen, moved = -1, time.monotonic()
    while not stopped():
        file = place.open("ab")
        try:
            if try_lock(file):
                if os.fstat(file.fileno()).st_ino == place.stat().st_ino:
                    return file
            else:
                if (touched := os.fstat(file.fileno()).st_mtime_ns) != seen:
                    seen, moved = touched, time.monotonic()
                elif time.monotonic() - moved >= patience:
                    file.close()
                    return None
                time.sleep(0.05)
        except FileNotFoundError:  # its holder just ended and removed it
            pass
        file.close()
    return None
