"""Commands in forks of a process that has imported everything once: each can die, or be refused, at an operation."""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import pickle
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaign_process import fork, run_and_end

SECONDS = 120.0  # of one command
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = frozenset(
    ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate", "os.symlink", "os.link", "os.utime")
)
# Modules that commands import late, if at all: the user who may not write may not be able to read them either.
LATE = ("_strptime", "multiprocessing.sharedctypes", "gymnasium", "gymnasium.vector")
EXCHANGE = ("ctypes.dlsym", "renameat2")  # asked for right before two folders are exchanged


@dataclass(frozen=True)
class Disturbance:
    """What happens to a command."""

    die_before: int = 0  # its operation of this number; 0: never
    die_after: float = 0.0  # seconds; 0: never
    refuse: int = 0  # what the system answers, from the operation ``refuse_from`` on
    refuse_from: int = 0
    output: str = ""  # a device or "closed", in place of the standard output
    user: int = 0


@dataclass
class Outcome:
    """How a command in a fork ended."""

    status: int  # of the process: minus the signal, or its exit code
    operations: int
    seconds: float
    text: str


def preload(names: Sequence[str]) -> None:
    """Import what commands import, without running any.

    Raises:
        SystemExit: a thread runs afterwards: it would not survive a fork, and what it holds locked would stay so.
    """
    from pocketzoo.core.telemetry import switch_off

    switch_off("onnxruntime")  # whose telemetry is a thread
    for name in (*names, *LATE):
        if name != "__main__" and name not in sys.modules:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
            if len(os.listdir("/proc/self/task")) > 1:
                raise SystemExit(f"importing {name} started a thread")


def asked(function: Callable[[], Any]) -> Any:
    """What a function gives in a fork, or the text of what it raised as an exception."""
    reading, writing = os.pipe()
    child = fork()
    if child == 0:
        os.close(reading)
        try:
            answer = pickle.dumps((True, function()))
        except BaseException as error:
            answer = pickle.dumps((False, f"{type(error).__name__}: {error}"))
        with contextlib.suppress(OSError), os.fdopen(writing, "wb") as pipe:
            pipe.write(answer)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    worked, answer = pickle.loads(data) if data else (False, "the process ended")
    if not worked:
        raise ChildError(answer)
    return answer


class ChildError(Exception):
    """What a function raised in a fork."""


def forked(words: Sequence[str], folder: Path, disturbed: Disturbance | None = None) -> Outcome:
    """Run a command in a fork, in ``folder``."""
    disturbed = disturbed or Disturbance()
    log, told = folder.with_name(f"{folder.name}.log"), folder.with_name(f"{folder.name}.operations")
    for path in (log, told):
        path.write_bytes(b"")
        path.chmod(0o666)
    begun = time.monotonic()
    child = fork()
    if child == 0:
        _command(words, folder, log, told, disturbed)
    killed, status = False, None
    while status is None:
        ended, code = os.waitpid(child, os.WNOHANG)
        if ended:
            status = os.waitstatus_to_exitcode(code)
        elif not killed and time.monotonic() - begun > (disturbed.die_after or SECONDS):
            killed = True
            os.kill(child, signal.SIGKILL)
        else:
            time.sleep(0.002)
    seconds = time.monotonic() - begun
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it started
    return Outcome(status, told.stat().st_size, seconds, log.read_text("utf8", "replace"))


def _command(words: Sequence[str], folder: Path, log: Path, told: Path, disturbed: Disturbance) -> None:
    def prepare() -> None:
        operations = os.open(told, os.O_WRONLY)  # while it may: another user may not reach it
        _settle(folder, log, disturbed)
        sys.addaudithook(_hook(folder, operations, disturbed))

    run_and_end(words, prepare)


def _settle(folder: Path, log: Path, disturbed: Disturbance) -> None:
    """A process group, a working directory, a home, outputs and a user of its own."""
    os.setsid()
    os.chdir(folder)
    (folder / "tmp").mkdir(exist_ok=True)
    os.environ.update(TMPDIR=str(folder / "tmp"), POCKETZOO_HOME=str(folder / "home"), HOME=str(folder))
    tempfile.tempdir = None
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 2)
    if disturbed.output == "closed":
        reader, output = os.pipe()
        os.close(reader)
    elif disturbed.output:
        output = os.open(disturbed.output, os.O_WRONLY)
    os.dup2(output, 1)
    sys.stdout, sys.stderr = (open(n, "w", closefd=False) for n in (1, 2))  # noqa: SIM115 - of this process
    if disturbed.user:
        os.setgid(disturbed.user)
        os.setuid(disturbed.user)


def _hook(folder: Path, told: int, disturbed: Disturbance) -> Callable[[str, tuple[Any, ...]], None]:
    """Count what changes files below ``folder``; die, or be refused, where that is asked for."""
    count, where = 0, os.fspath(folder) + os.sep

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open":
            if not (isinstance(arguments[2], int) and arguments[2] & WRITES):
                return
        elif event not in CHANGES and (event != EXCHANGE[0] or arguments[1] != EXCHANGE[1]):
            return
        path = where if event == EXCHANGE[0] else arguments[0]
        if isinstance(path, int) or not (os.path.abspath(os.fsdecode(path)) + os.sep).startswith(where):
            return
        count += 1
        if count == disturbed.die_before:
            os.kill(os.getpid(), signal.SIGKILL)
        os.write(told, b".")
        if disturbed.refuse and count >= disturbed.refuse_from and event not in ("os.remove", "os.rmdir", EXCHANGE[0]):
            raise OSError(disturbed.refuse, os.strerror(disturbed.refuse), os.fsdecode(path))

    return hook


def refusals() -> dict[str, int]:
    """What a system may answer to any operation, by name."""
    return {name: getattr(errno, name) for name in ("ENOSPC", "EACCES", "EROFS", "EDQUOT", "EIO", "EMFILE")}


def modules_of(commands: Sequence[Sequence[str]], folder: Path) -> list[str]:
    """The modules that commands import, which run in this process, in ``folder``."""
    from pocketzoo.cli.main import cli

    os.chdir(folder)
    for words in commands:
        cli(list(words), standalone_mode=False)
    return json.loads(json.dumps(sorted(sys.modules)))
