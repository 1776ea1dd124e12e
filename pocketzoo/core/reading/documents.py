"""Read JSON and TOML that anyone may have written: nesting, numbers and texts within bounds. Standard library.

Python's own readers raise a RecursionError for what is nested deeply, read whole numbers that no array holds, and give
texts with half a character, which nothing can encode later. Here all of that is a ``MalformedError``, where it is read.
"""

from __future__ import annotations

import json
import os
import re
import select
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pocketzoo.core.errors import message_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEEPEST = 100  # lists and tables within one another
MOST_DIGITS = 308  # of a whole number, which a float then still holds
LARGEST = 1 << 27  # bytes of a file that is read as a whole, 128 MiB: in Python's objects it takes up to 20 times that
PATIENCE = 2.5  # seconds, twice, in which somebody has to begin to write to a pipe
LARGEST_TOML = 1 << 24  # bytes; 16 MiB are 100,000 files in a zoo.lock

_LONG = re.compile(rf"[0-9][0-9_]{{{MOST_DIGITS}}}")  # "_" as TOML may have it
_DOTTED = re.compile(rf"(?:^|[{{,\[])[ \t]*(?:[\w\"'-]+[ \t]*\.[ \t]*){{{DEEPEST}}}", re.MULTILINE)  # a.b.c...
_HALF = re.compile(r"[\ud800-\udfff]")


class MalformedError(ValueError):
    """What a text has that is not JSON or TOML, or that is beyond the bounds; for the error of whoever reads it."""


def read_json(path: Path) -> Any:
    """What a JSON file says, of ``LARGEST`` bytes at most, in UTF-8 with or without a byte order mark.

    Raises:
        MalformedError: it is not JSON, or beyond the bounds.
        OSError: it cannot be read.
    """
    return parse_json(read_bytes(path, LARGEST))


def parse_json(text: str | bytes, once: bool = False) -> Any:
    """What a JSON text says. With ``once``, no key of an object may appear twice.

    Raises:
        MalformedError: it is not JSON, is nested more than ``DEEPEST`` deep, or has a whole number of more than
            ``MOST_DIGITS`` digits, or half a character (a lone surrogate).
    """
    text = _text(text)
    hook = _without_repeats if once else None
    return _checked(text, lambda: json.loads(text, parse_int=_whole, object_pairs_hook=hook))


def read_toml(path: Path) -> dict[str, Any]:
    """What a TOML file says, of ``LARGEST_TOML`` bytes at most.

    Raises:
        MalformedError: it is not TOML, or beyond the bounds.
        OSError: it cannot be read.
    """
    return parse_toml(read_bytes(path, LARGEST_TOML))


def parse_toml(text: str | bytes) -> dict[str, Any]:
    """What a TOML text says.

    Raises:
        MalformedError: as ``parse_json``; or it has a date or a time, which nothing here takes.
    """
    text = _text(text).replace("\r\n", "\n")
    if _LONG.search(text):
        raise MalformedError(f"it has a number of more than {MOST_DIGITS} digits")
    if _DOTTED.search(text):  # the time that the reader takes grows with the square of these
        raise MalformedError(f"it is nested more than {DEEPEST} deep")
    tables: dict[str, Any] = _checked(text, lambda: tomllib.loads(text), dates=True)
    return tables


def read_bytes(path: Path, most: int = LARGEST) -> bytes:
    """All of a file, or of a pipe until its writers are done.

    Raises:
        MalformedError: it has more than ``most`` bytes, or is a pipe that nobody opens to write for ``PATIENCE``.
        OSError: it cannot be read.
    """
    data, waited = bytearray(), 0
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # else a pipe is opened when its writer comes
    with open(handle, "rb", buffering=0) as file:
        is_pipe = stat.S_ISFIFO(os.fstat(handle).st_mode)
        while (chunk := file.read(1 << 20)) != b"" or (is_pipe and not data):  # at once takes memory for all of it
            if chunk is None:  # of a pipe whose writer has nothing yet
                select.select([file], [], [])
                continue
            if chunk == b"":  # nobody has it open for writing: now, or any more
                waiting = select.poll()
                waiting.register(file, select.POLLIN)
                came = waiting.poll(PATIENCE * 1000)
                if any(events & select.POLLHUP and not events & select.POLLIN for _, events in came):
                    break
                if not came and waited:
                    raise MalformedError("it is a pipe that nobody writes to")
                waited += not came
                continue
            data += chunk
            if len(data) > most:
                raise MalformedError(f"it is larger than {most >> 20} MiB")
    return bytes(data)


def _text(text: str | bytes) -> str:
    try:  # "utf-8-sig" is a module of its own, which cannot be imported where no file can be opened any more
        text = (text.decode("utf-8") if isinstance(text, bytes) else text).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise MalformedError(f"it is not UTF-8: {error}") from error
    if _HALF.search(text):  # of a command line that is not in the terminal's encoding
        raise MalformedError("it is not UTF-8")
    return text


def _checked(text: str, parse: Callable[[], Any], dates: bool = False) -> Any:
    try:
        value = parse()
    except RecursionError as error:
        raise MalformedError(f"it is nested more than {DEEPEST} deep") from error
    except MalformedError:
        raise
    except ValueError as error:  # the readers' own are among these
        raise MalformedError(message_of(error)) from error
    # Most texts cannot be beyond the bounds, which is seen without a look at each of their values.
    deep = text.count("[") + text.count("{") > DEEPEST
    if dates or deep or "\\u" in text or "\\U" in text:
        _check(value)
    return value


def _check(value: Any) -> None:
    """Level by level, so that no depth is one for Python's stack."""
    level, depth = [value], 0
    while level:
        if depth >= DEEPEST and any(isinstance(each, (dict, list)) for each in level):
            raise MalformedError(f"it is nested more than {DEEPEST} deep")
        below: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                below += each
                below += each.values()
            elif isinstance(each, list):
                below += each
            elif isinstance(each, str):
                if not each.isascii() and (half := _HALF.search(each)):
                    raise MalformedError(f"a text has half a character, \\u{ord(half[0]):04x}, which is no text")
            elif each is not None and not isinstance(each, (int, float)):
                raise MalformedError(f"it has a date or a time, {each}")
        level, depth = below, depth + 1


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise MalformedError(f"it has a number of {len(digits):,} digits, {digits[:12]}...")
    return int(digits)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise MalformedError(f"{twice!r:.80} appears twice")
    return entries
