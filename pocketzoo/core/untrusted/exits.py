"""Plugins that call ``sys.exit``: a script without a guard, or argparse in one. It is an error, and ends nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, TypeVar

from pocketzoo.core.errors import PluginError

if TYPE_CHECKING:
    from typing import ParamSpec

    P = ParamSpec("P")

R = TypeVar("R")
MAY = ("pocketzoo", "click", "__main__")  # the packages that may end the program


def exit_of_plugin(error: SystemExit) -> PluginError | None:
    """What it means to the user that the program was ended; None where it may end so."""
    trace, module = error.__traceback__, ""
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))  # at last that of who called ``sys.exit``
        trace = trace.tb_next
    if module.partition(".")[0] in MAY:
        return None
    return PluginError(
        f"{module} ended the program with {str(error.code)[:200]!r}, which no plugin may",
        "see pocketzoo plugins; leave it out with POCKETZOO_PLUGINS, or tell its author",
    )


def survives_exit(function: Callable[P, R]) -> Callable[P, R]:
    """Of a public function that runs code of plugins: where one ends the program, it raises a ``PluginError``."""

    @wraps(function)
    def survivor(*arguments: P.args, **keywords: P.kwargs) -> R:
        try:
            return function(*arguments, **keywords)
        except SystemExit as error:
            if (broken := exit_of_plugin(error)) is None:
                raise
            raise broken from error

    return survivor
