"""How a command ends: its exit code, and errors as two lines. Anything else is a bug and keeps its traceback."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

import click

from pocketzoo.cli.echo import echo, print_hint
from pocketzoo.core.errors import (
    MemoryShortError,
    PocketzooError,
    ProcessLostError,
    RejectedError,
    StorageError,
    in_a_line,
)
from pocketzoo.core.optional import EXTRAS, missing
from pocketzoo.core.reading.environment import wrong_variable
from pocketzoo.core.untrusted.exits import exit_of_plugin
from pocketzoo.core.untrusted.shown import shown

DONE, CANNOT, WRONG_USE = 0, PocketzooError.exit_code, click.UsageError.exit_code
REJECTED, INTERRUPTED = RejectedError.exit_code, 128 + signal.SIGINT
EXIT_CODES = {
    DONE: "done",
    CANNOT: "cannot",
    WRONG_USE: "wrong use",
    REJECTED: "rejected or over budget",
    INTERRUPTED: "interrupted",
}
LONGEST = 2000  # characters of an error: values of a file may be in it
SETTLING = 1.0  # seconds after Ctrl-C in which one more is taken for the same: a group may get it twice

_MEMORY = re.compile(  # what libraries say that lack it, or cannot start a thread for that
    r"bad_alloc|out of memory|not enough memory|can('t|not) allocate|can't start new thread|failed to map segment"
    r"|could not create a (primitive|memory)|unable to (mmap|allocate)|resource temporarily unavailable",
    re.IGNORECASE,
)
_interrupts: list[float] = []  # when Ctrl-C was pressed, in seconds


@contextmanager
def endings() -> Iterator[None]:
    """Around all that a command does, the reading of its arguments included: ends the program by ``SystemExit``."""
    try:
        try:
            yield
        except SystemExit as error:
            if (broken := exit_of_plugin(error)) is not None:
                raise broken from error
            _flush()
            raise
        _flush()
    except SystemExit:
        raise
    except BaseException as error:
        if _interrupts or isinstance(error, (KeyboardInterrupt, click.Abort)):
            end("interrupted", INTERRUPTED)
        if isinstance(error, OSError) and error.errno == errno.EPIPE:  # whoever read our output has enough of it
            _discard_output()
            raise SystemExit(CANNOT) from None
        if isinstance(error, click.ClickException):  # click prints these itself, with what was typed in them
            setattr(error, "message", shown(error.message))  # noqa: B010 - for a type checker it is final
        if (explained := explain(error)) is None:
            raise
        show_error(explained)
        if isinstance(error, ProcessLostError):
            leave(explained.exit_code)
        _discard_output_on_error()
        raise SystemExit(explained.exit_code) from None


def explain(error: BaseException) -> PocketzooError | None:
    """What an error means to the user; None for a bug.

    Besides our own these are: a package that is not installed or cannot be imported with these variables, what the
    system refuses (files, pipes, memory), a text that is not UTF-8, errors of a type that a library of ours has,
    and the panic of one in Rust, which is no ``Exception``.
    """
    if (known := missing(error) or wrong_variable(error)) is not None:
        return known
    if isinstance(error, PocketzooError):
        return error
    if isinstance(error, OSError) or "os error" in str(error):
        from pocketzoo.core.files import os_error, storage_error  # few commands end so

        if (refusal := os_error(error)) is not None:
            return storage_error(refusal)
    if isinstance(error, MemoryError):
        return MemoryShortError(f"out of memory: {error}".removesuffix(": "), "use smaller batches, inputs or models")
    if isinstance(error, UnicodeEncodeError) and "surrogate" in error.reason:
        text = error.object.encode("utf8", "surrogateescape" if error.object[error.start] < "\udd00" else "replace")
        return StorageError(f"{text[:60]!r} is not a text in UTF-8", "rename the file, or write the text anew")
    if isinstance(error, Exception) and _MEMORY.search(str(error)):
        reason = " ".join(str(error).split())
        return MemoryShortError(f"out of memory: {reason[-200:]}", "use smaller batches, inputs or models")
    library = type(error).__module__.partition(".")[0]
    if library in EXTRAS:  # which says so in an error of its own
        return PocketzooError(f"{library} failed: {in_a_line(error)}", "check what it was given: files, sizes, options")
    if type(error).__name__ == "PanicException":  # of pyo3, which every such library has its own of
        return PocketzooError(f"a library failed: {error}", "the file it read is damaged; give another")
    return None


def show_error(error: PocketzooError) -> None:
    """Two lines on stderr: what, and what next."""
    with suppress(OSError):  # there may be nowhere left to say it
        message = " ".join(error.message.split())
        message = message if len(message) <= LONGEST else f"{message[: LONGEST // 2]} ... {message[-LONGEST // 2 :]}"
        echo(f" {message}", mark="error:", color="red", err=True)
        if error.hint:
            print_hint(error.hint)


def end(says: str, code: int) -> NoReturn:
    """End with one line on stderr."""
    with suppress(OSError):
        echo(says, err=True)
    _discard_output_on_error()
    raise SystemExit(code) from None


def leave(code: int) -> None:
    """End at once. Threads of torch may wait for a process that was lost, and Python would wait for them."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, AttributeError):  # None where it was closed before we began
            stream.flush()
    os._exit(code)


def prepare_process() -> None:
    """Make this process one of ours: output of any characters, no file under a standard stream's number, Ctrl-C."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # it was closed, and the next file to be opened would get what libraries write there
            os.open(os.devnull, os.O_RDWR)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # which no library expects
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - as long as the process
    # Names of classes and files may hold any character; a terminal that lacks it must not end the program.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not if we were told to ignore it
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Ctrl-C. Libraries may turn the exception into one of theirs, so it is noted; again, and nothing is waited for."""
    _interrupts.append(time.monotonic())
    if len(_interrupts) == 1:
        raise KeyboardInterrupt
    if _interrupts[-1] - _interrupts[0] > SETTLING:
        os._exit(INTERRUPTED)


def _flush() -> None:
    """While an error of the disk that output goes to can still be shown."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _discard_output_on_error() -> None:
    try:
        _flush()
    except (OSError, ValueError):
        _discard_output()


def _discard_output() -> None:
    """Python would try to write what is left once more at the end, and fail in lines of its own."""
    with suppress(OSError, AttributeError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
