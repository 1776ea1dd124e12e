"""Match layer names against names and globs that a user gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from pocketzoo.core.errors import UnknownNameError, nearest


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a layer is one of ``patterns``, by name or glob."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def check_skip(patterns: Sequence[str], names: Iterable[str], field: str = "skip") -> None:
    """Raises:
    UnknownNameError: a pattern that no layer matches; the hint is the nearest layer.
    """
    known = list(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise UnknownNameError(f"{field} names no layer: {pattern!r}", nearest(pattern, known))
