"""Read and write zoo.lock, which pins every file of a project's models. TOML, sorted. Standard library."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pocketzoo.core.errors import LockError, RecipeError, message_of
from pocketzoo.core.files import replacing_file
from pocketzoo.core.reading.documents import MalformedError, read_toml
from pocketzoo.core.typed import from_plain
from pocketzoo.zoo.hub.reference import COMMIT, HubRef, is_inside

NAME = "zoo.lock"
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedFile:
    """A file and its bytes."""

    path: str
    size: int  # bytes
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """A reference as the user wrote it, and what it stands for."""

    ref: str
    commit: str
    file: tuple[LockedFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Lock:
    """The commits that references are pinned to, as a lock file held them when it was read. ``Lock()`` pins nothing."""

    entries: Mapping[str, Locked] = field(default_factory=lambda: MappingProxyType({}))
    damage: LockError | None = None  # why the file could not be read; raised for a reference that it may pin

    @classmethod
    def read(cls, path: str | Path) -> Lock:
        """What a lock file holds.

        Raises:
            LockError: as ``read_lock``.
        """
        return cls(MappingProxyType(read_lock(Path(path))))

    def pin(self, ref: HubRef) -> HubRef:
        """A reference without a commit at the one that is locked, if one is.

        Raises:
            LockError: the lock file could not be read.
        """
        if ref.pinned:
            return ref
        if self.damage is not None:
            raise self.damage
        entry = self.entries.get(str(replace(ref, part="")))
        return ref.at(entry.commit) if entry else ref


def read_lock(path: Path) -> dict[str, Locked]:
    """What a lock file holds, by reference.

    Raises:
        LockError: it is missing or damaged, or was written by a newer version.
    """
    try:
        data: Mapping[str, Any] = read_toml(path)
        if data.get("version") != FORMAT:
            raise LockError(f"{path} has version {data.get('version')!r}, this pocketzoo reads {FORMAT}", "upgrade it")
        models = data.get("model", [])
        if not isinstance(models, list):
            raise RecipeError(f"model cannot be {models!r:.60}", "write each as [[model]]")
        entries = [from_plain(Locked, entry) for entry in models]
    except FileNotFoundError as error:
        raise LockError(f"there is no {path}", "make one: pocketzoo lock REF...") from error
    except (MalformedError, RecipeError) as error:
        raise LockError(f"{path} is damaged: {message_of(error)}", "restore it from git, or lock again") from error
    for entry in entries:
        digests = [entry.commit, *(file.sha256 for file in entry.file)]
        sound = COMMIT.fullmatch(digests[0]) and all(re.fullmatch(r"[0-9a-f]{64}", d) for d in digests[1:])
        if not sound or not all(is_inside(file.path) for file in entry.file):
            raise LockError(f"{path} is damaged: the entry of {entry.ref}", "restore it from git, or lock again")
    return {entry.ref: entry for entry in entries}


def write_lock(path: Path, entries: Iterable[Locked]) -> None:
    """Write a lock file: the same entries give the same bytes, one line per fact, so that a diff is readable."""
    lines = ["# Which bytes each model is. Written by pocketzoo lock; commit it.", f"version = {FORMAT}"]
    for entry in sorted(entries, key=lambda e: e.ref):
        lines += ["", "[[model]]", f"ref = {_text(entry.ref)}", f"commit = {_text(entry.commit)}"]
        for file in sorted(entry.file, key=lambda f: f.path):
            lines += ["[[model.file]]", f"path = {_text(file.path)}", f"size = {file.size}"]
            lines += [f"sha256 = {_text(file.sha256)}"]
    with replacing_file(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", "utf8")


def _text(value: str) -> str:
    """A TOML string: JSON's escapes are a part of TOML's, but for the delete character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
