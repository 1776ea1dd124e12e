"""Why parts of an exported graph keep another precision, in few words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

NAMED = 4  # parts of a reason that are named


def by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    """The names of each reason, of the reason of each name."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return names


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
