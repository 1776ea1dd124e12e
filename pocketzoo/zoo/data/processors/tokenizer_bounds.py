"""A tokenizer.json that would take memory or time without end is refused before the library has it.

Thirty replacements of a letter by two make a gigabyte of it, and a pattern that repeats what repeats tries every way
to divide a text. What of a file leads there is looked at; the rest is the library's to read.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketzoo.core.errors import BundleError, message_of
from pocketzoo.core.reading.documents import MalformedError, read_json
from pocketzoo.core.untrusted.limits import (
    TOKENIZER_BYTES,
    TOKENIZER_GROWTH,
    TOKENIZER_REPEATS,
    TOKENIZER_STEPS,
    TOKENIZER_WORD,
)

STAGES = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
AMBIGUOUS = 1_000_000  # the degree of a pattern that repeats what can match in several ways
MANY = 10  # times that are taken for endless, of what can match in several ways
SKIPPED = re.compile(r"\(\?(?:#[^)]*|[a-zA-Z-]+)\)")  # comments, and settings for what follows
OPENING = re.compile(r"\(\?(?:[a-zA-Z-]*:|<?[=!]|>|<[A-Za-z_]\w*>)|\(")
REPEAT = re.compile(r"[*+?][+?]?|\{(\d{0,9})(,?)(\d{0,9})\}[+?]?")


def check_tokenizer(path: Path) -> None:
    """Refuse a file that is too large, makes a text grow without bounds, or has a pattern that may never end.

    Raises:
        TooLargeError: it is beyond a limit, whose variable the hint names.
        BundleError: it is not JSON.
    """
    TOKENIZER_BYTES.check(path.stat().st_size, path.name, "bytes")
    try:
        table = read_json(path)
    except MalformedError as error:
        raise BundleError(f"{path} is not a tokenizer: {message_of(error)}", "rebuild the bundle") from error
    if not isinstance(table, dict):
        raise BundleError(f"{path} is not a tokenizer: it is a {type(table).__name__}", "rebuild the bundle")
    for stage in STAGES:
        growth, steps = 1.0, 0
        for step in _steps(table.get(stage)):
            steps += 1
            growth *= _growth(step)
            _check_patterns(step, path)
            _check_characters(step, path)
        TOKENIZER_STEPS.check(steps, f"the {stage} of {path.name}", "steps")
        TOKENIZER_GROWTH.check(growth, f"the {stage} of {path.name}", "characters for each of a text")
    model = table.get("model")
    longest = model.get("max_input_chars_per_word") if isinstance(model, dict) else None
    if isinstance(longest, int):  # time grows with its square
        TOKENIZER_WORD.check(longest, path.name, "characters in one word")


def _steps(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every table in a stage that is a step of it, those of sequences in sequences too."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            if "type" in each:
                yield each
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


def _growth(step: Mapping[str, Any]) -> float:
    """How many times longer a step makes a text of one character."""
    kind, content = step.get("type"), step.get("content")
    if kind == "Replace" and isinstance(content, str):
        pattern = step.get("pattern")
        text = pattern.get("String") if isinstance(pattern, dict) else None
        # A pattern may match one character, or the place before each.
        return max(1.0, len(content) / len(text) if isinstance(text, str) and text else len(content) + 1.0)
    if kind == "Prepend":
        return 1.0 + len(str(step.get("prepend", "")))
    return 1.0


def _check_patterns(step: Mapping[str, Any], path: Path) -> None:
    pattern = step.get("pattern")
    regex = pattern.get("Regex") if isinstance(pattern, dict) else None
    if isinstance(regex, str):
        shown = regex if len(regex) <= 60 else f"{regex[:60]}..."
        TOKENIZER_REPEATS.check(
            degree(regex), f"the pattern {shown!r} of {path.name}", "repeats, in or after each other"
        )


def _check_characters(step: Mapping[str, Any], path: Path) -> None:
    """A table of characters begins with its size, for which the library takes memory, or ends the process."""
    table = step.get("precompiled_charsmap")
    if not isinstance(table, str):
        return
    try:
        data = base64.b64decode(table, validate=True)
        size = int.from_bytes(data[:4], "little")
        wrong = len(data) < 4 or size > len(data) - 4 or size % 4 != 0
    except ValueError:
        wrong = True
    if wrong:
        what = "its table of characters (precompiled_charsmap) is damaged"
        raise BundleError(f"{path} is not a tokenizer: {what}", "rebuild the bundle")


@dataclass(slots=True)
class _Group:
    """What was read of a group that is still open."""

    degree: int = 0  # of the branch that is being read
    most: int = 0  # of the branches before
    several: bool = False  # ways to match: it has branches, or what may be there more or less often


def degree(pattern: str) -> int:
    """With which power of a text's length the time of a pattern grows, ``AMBIGUOUS`` and more for exponential time.

    Repeats without end that follow one another add up; one of what matches in several ways is ambiguous. The pattern is
    not parsed in full, as the library's dialect is Oniguruma's: groups, classes, escapes and repeats are told apart.
    """
    open_ = [_Group()]
    item = _Group()  # what stands before a repeat: one character, or a group that was closed
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if (skipped := SKIPPED.match(pattern, at)) is not None:
            at = skipped.end()
        elif (opening := OPENING.match(pattern, at)) is not None:
            at = opening.end()
            open_.append(_Group())
        elif char == ")" and len(open_) > 1:
            item = open_.pop()
            item.degree = max(item.degree, item.most)
            open_[-1].degree += item.degree
            open_[-1].several |= item.several
            at += 1
        elif char == "|":
            open_[-1] = _Group(0, max(open_[-1].degree, open_[-1].most), several=True)
            at, item = at + 1, _Group()
        elif (repeat := REPEAT.match(pattern, at)) is not None:
            repeated = _repeated(item, repeat)
            open_[-1].degree += repeated.degree - item.degree
            open_[-1].several |= repeated.several
            at, item = repeat.end(), repeated
        else:
            at, item = _after_character(pattern, at), _Group()
    return max(max(group.degree, group.most) for group in open_)


def _repeated(item: _Group, repeat: re.Match[str]) -> _Group:
    low, comma, high = repeat[1], repeat[2], repeat[3]
    if repeat[0][0] in "*+" or (comma and not high):
        return _Group(AMBIGUOUS + item.degree if item.several or item.degree else 1, 0, several=True)
    times = 1 if repeat[0][0] == "?" else int(high or low or 1)
    varies = repeat[0][0] == "?" or bool(comma)
    if item.several and times >= MANY and varies:
        return _Group(AMBIGUOUS, 0, several=True)
    # What is counted to a thousand is as many copies, which take memory before a text comes.
    return _Group(max(item.degree * max(times, 1), times // 1_000), 0, several=item.several or varies)


def _after_character(pattern: str, at: int) -> int:
    if pattern[at] == "\\":
        return _after_escape(pattern, at)
    return _after_class(pattern, at) if pattern[at] == "[" else at + 1


def _after_escape(pattern: str, at: int) -> int:
    """Behind an escape: ``\\p{L}`` and ``\\x{20}`` are one character each, whose braces count nothing."""
    end = at + 2
    if pattern[at + 1 : at + 2] in ("p", "P", "x", "k", "g", "o") and pattern[end : end + 1] in ("{", "<"):
        close = pattern.find("}" if pattern[end] == "{" else ">", end)
        return close + 1 if close > 0 else end
    return end


def _after_class(pattern: str, at: int) -> int:
    """Behind ``[...]``, which may have others inside."""
    depth, at = 1, at + 1
    while at < len(pattern) and depth:
        if pattern[at] == "\\":
            at += 1
        elif pattern[at] == "[":
            depth += 1
        elif pattern[at] == "]" and pattern[at - 1] not in ("[", "^"):
            depth -= 1
        at += 1
    return at
