"""Folders that the library ``datasets`` saved, held to themselves: nothing outside of them is read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pocketzoo.core.errors import DataError

ELSEWHERE = ("://", "::")  # of servers and archives, in the paths of fsspec: the library opens "a::http://host/b"
INSIDE = "save the data set again, with its files"


def check_inside(folder: Path) -> None:
    """Refuse a saved folder whose links, or the names of files and splits in its facts, lead out of it.

    Raises:
        DataError: one does.
    """
    if any(mark in str(folder) for mark in ELSEWHERE):  # which the library takes for a chain of file systems
        raise DataError(f"a folder of a data set cannot be called {folder}", "rename it")
    root = folder.resolve()
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not within(path, (root,)):
            raise DataError(f"{path} is a link that leads out of the data set", INSIDE)
        if path.name in ("state.json", "dataset_dict.json"):
            for name in _named(path):
                if any(mark in name for mark in ELSEWHERE) or not within(path.parent / name, (root,)):
                    raise DataError(f"{path} names {name!r}, which is outside of the data set", INSIDE)


def within(path: Path, roots: Sequence[Path]) -> bool:
    """Whether a path lies in one of the folders, which are resolved, once its links are followed."""
    try:
        where = path.resolve()
    except (OSError, RuntimeError, ValueError):  # a circle of links, or a zero inside
        return False
    return any(where.is_relative_to(root) for root in roots)


def stored_file(path: str, roots: Sequence[Path], name: str) -> Path:
    """The file that a cell names in place of its bytes; a relative path is one of the first folder.

    Raises:
        DataError: it is elsewhere, or on a server; ``name`` is the cell's, for the message.
    """
    if not roots or any(mark in path for mark in ELSEWHERE) or not within(found := roots[0] / path, roots):
        raise DataError(f"{name} is not in the data set: {path}", INSIDE)
    return found


def _named(path: Path) -> Iterator[str]:
    """The names of files and folders in a file of facts; the library says what is wrong with one that is damaged."""
    try:
        facts: Any = json.loads(path.read_text("utf8"))
    except (OSError, ValueError, RecursionError):
        return
    if not isinstance(facts, dict):
        return
    splits = facts.get("splits")
    yield from (str(each) for each in (splits if isinstance(splits, list) else []))
    for key in ("_data_files", "_indices_data_files"):
        files = facts.get(key)
        for each in files if isinstance(files, list) else []:
            yield str(each.get("filename", "")) if isinstance(each, dict) else str(each)
