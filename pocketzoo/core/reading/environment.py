"""Variables of the environment that a library cannot be imported with, as errors that name them."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from urllib.parse import urlsplit

from pocketzoo.core.errors import PocketzooError

CLIENT = "huggingface_hub"  # reads its variables when it is imported, and raises what its parsing raises


def wrong_variable(error: BaseException | None) -> PocketzooError | None:
    """The error to show where the Hub's client could not be imported for a variable; None if ``error`` is another.

    Other libraries import the client too, and wrap what it raises, so causes are looked at as well.
    """
    while error is not None:
        if isinstance(error, ValueError) and not isinstance(error, PocketzooError) and _on_import(error.__traceback__):
            return _blame(error)
        error = error.__cause__ or error.__context__
    return None


def is_address(text: str) -> bool:
    """Whether a text is an address of HTTP."""
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        return False


def _on_import(trace: TracebackType | None) -> bool:
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] == CLIENT and trace.tb_frame.f_code.co_name == "<module>":
            return True
        trace = trace.tb_next
    return False


def _is_number(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return True


_RULES: list[tuple[str, Callable[[str], bool], str]] = [  # how a name ends, what its value has to be
    ("ENDPOINT", is_address, "an address, such as https://huggingface.co"),
    ("_TIMEOUT", _is_number, "a whole number of seconds"),
]


def _blame(error: ValueError) -> PocketzooError:
    names = sorted(name for name in os.environ if name.startswith("HF_"))
    for name in names:
        for ending, rule, what in _RULES:
            if name.endswith(ending) and not rule(os.environ[name]):
                return PocketzooError(f"{name} is {os.environ[name]!r}, which is not {what}", f"set or unset {name}")
    reason = " ".join(str(error).split())
    return PocketzooError(f"{CLIENT} cannot be imported: {reason}", f"check these variables: {', '.join(names) or '-'}")
