"""An audit hook that notes what a model must not make us do: connect, unpickle, start a process, read elsewhere."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# What is noted of itself; ``open`` is looked at for where it reads.
HARM = (
    "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "subprocess.Popen", "os.exec",
    "os.posix_spawn", "os.spawn", "os.system", "os.fork", "os.forkpty", "pickle.find_class", "urllib.Request",
)  # fmt: skip
ROOTS = {os.path.realpath(p) for p in (sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), *sys.path) if p}
SYSTEM = ("/proc", "/sys", "/dev", "/usr/lib", "/usr/share", "/lib", "/etc/ld.so.cache", "/etc/mime.types")
_noted: list[tuple[str, str]] | None = None
_allowed: tuple[str, ...] = ()
_installed = False


@contextmanager
def witnessed(*folders: Path) -> Iterator[Sequence[tuple[str, str]]]:
    """What happened that must not, as (event, what); reading is free in ``folders`` and the interpreter's own."""
    global _noted, _allowed, _installed  # noqa: PLW0603 - a hook has no other place
    if not _installed:  # a hook cannot be taken out again
        sys.addaudithook(_note)
        _installed = True
    _noted, _allowed = [], (*map(os.path.realpath, folders), *ROOTS, *SYSTEM)
    noted = _noted
    try:
        yield noted
    finally:
        _noted = None


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if _noted is None:
        return
    if event in HARM:
        _noted.append((event, repr(arguments)[:200]))
    elif event == "open" and isinstance(arguments[0], (str, bytes)):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if not any(path == root or path.startswith(root.rstrip("/") + "/") for root in _allowed):
            _noted.append((event, path))
