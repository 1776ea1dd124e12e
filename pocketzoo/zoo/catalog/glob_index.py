"""Match globs against many names fast, with the results of ``fnmatch.fnmatchcase``."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import translate
from functools import cached_property

WILD = re.compile(r"[*?[]")
SET = re.compile(r"\[!?\]?[^\]]*\]")  # "[abc]", as fnmatch reads it; without its "]" a "[" is a letter
STARS = 3  # a search tries every way to stretch them, which for more of them can take long
RARE = 8  # a text that fewer than one in so many names holds is looked for first


class Names:
    """Sorted names, and all of them as one text with a line each."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(sorted(names))

    @cached_property
    def text(self) -> str:
        return _lines(self.names)

    @cached_property
    def one_line(self) -> bool:
        """Whether no name is of several lines."""
        return self.text.count("\n") == len(self.names) + 1

    def matching(self, pattern: str) -> Sequence[str]:
        """Those that a glob matches, in their order."""
        wild = WILD.search(pattern)
        prefix = pattern[: wild.start()] if wild else pattern
        low = bisect_left(self.names, prefix)
        if wild is None:
            return self.names[low : bisect_right(self.names, pattern, low)]
        high = bisect_right(self.names, prefix, low, key=lambda name: name[: len(prefix)])
        names = self.names[low:high]
        if not pattern[len(prefix) :].strip("*"):
            return names
        exact = re.compile(translate(pattern)).match
        if not self.one_line:
            return [name for name in names if exact(name)]
        return _search(names, _lines(names) if prefix else self.text, pattern, exact)


def _lines(names: Sequence[str]) -> str:
    return "\n".join(["", *names, ""])


def _search(names: Sequence[str], text: str, pattern: str, exact: Callable[[str], object]) -> list[str]:
    """Search all names at once: asking each name by itself takes up to thirty times as long."""
    wider = SET.sub("?", pattern)  # a set such as [!a] would run on into the next line
    if "\n" in wider:  # which is what parts the names
        return []
    literal = max(re.split(r"[*?]", wider), key=len)
    if literal and text.count(literal) * RARE < len(names):
        return [name for name in _lines_with(text, literal) if exact(name)]
    if pattern.count("*") > STARS:
        return [name for name in names if exact(name)]
    parts = {"*": ".*", "?": "."}  # "." ends at a line's end
    body = "".join(parts.get(part) or re.escape(part) for part in re.split(r"([*?])", wider))
    matches = re.findall(f"\n({body})(?=\n)", text)
    return matches if wider == pattern else [name for name in matches if exact(name)]


def _lines_with(text: str, literal: str) -> Iterator[str]:
    at = text.find(literal)
    while at >= 0:
        end = text.index("\n", at)
        yield text[text.rindex("\n", 0, at) + 1 : end]
        at = text.find(literal, end)
