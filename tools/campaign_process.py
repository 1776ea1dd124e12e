"""What campaigns that fork have in common: importing everything before, the fork, and the command line in it."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from pkgutil import walk_packages
from typing import NoReturn

TRACEBACK = 70  # the exit code of a command that ended in one
_UNUSED = ("pocketzoo.testing", "pocketzoo.__main__", "pocketzoo.workflows.plugin_temp")


def import_all(libraries: Sequence[str]) -> None:
    """Import what commands import, without running any: threads do not survive a fork."""
    import pocketzoo

    modules = [module.name for module in walk_packages(pocketzoo.__path__, "pocketzoo.")]
    for name in (*libraries, *(name for name in modules if not name.startswith(_UNUSED))):
        with contextlib.suppress(Exception, SystemExit):
            import_module(name)


def fork() -> int:
    """A fork, which never collects what this process left behind: a session would wait there for its threads."""
    child = os.fork()
    if child == 0:
        gc.freeze()
    return child


def run_and_end(
    words: Sequence[str], prepare: Callable[[], None], closing: Callable[[], None] = lambda: None
) -> NoReturn:
    """In a fork: ``prepare``, run the command line, and end the process with its exit code, whatever happens."""
    code = TRACEBACK
    try:
        prepare()
        sys.argv = ["pocketzoo", *words]
        from pocketzoo.cli.main import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            closing()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)
