"""File names and records of the store on disk, and how to read them safely."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from pathlib import Path
from urllib.parse import quote

from pocketzoo.core.files import sha256
from pocketzoo.core.reading.documents import read_json
from pocketzoo.zoo.hub.stored_files import Stored

SHA256 = re.compile(r"[0-9a-f]{64}")


def git_digest(data: bytes) -> str:
    """What git calls a file of these bytes."""
    return hashlib.sha1(b"blob %d\0%s" % (len(data), data), usedforsecurity=False).hexdigest()


def read_record(place: Path) -> Stored | None:
    """What a record says; None if it is damaged or gone."""
    with contextlib.suppress(ValueError, TypeError, KeyError, OSError, OverflowError):
        data = {} if place.is_symlink() else read_json(place)
        if SHA256.fullmatch(data["sha256"]):
            return Stored(str(data["path"]), data["sha256"], int(data["size"]))
    return None


def is_damaged(path: Path) -> bool:
    """Whether a blob is not what its name says; not if it is gone."""
    with contextlib.suppress(FileNotFoundError):  # gone in the meantime
        return path.is_symlink() or path.parent.name != path.name[:2] or sha256(path) != path.name
    return False


def folder_of(repo_id: str) -> str:
    """The folder of a repository."""
    return quoted(repo_id.replace("/", "--", 1))


def quoted(text: str) -> str:
    """Any text as the name of a file."""
    name = quote(text, safe="")
    name = f"%2E{name[1:]}" if name.startswith(".") else name
    return name if len(name) <= 200 else f"{name[:100]}%{hashlib.sha256(text.encode()).hexdigest()}"


def files_below(folder: Path) -> list[Path]:
    """Every file and every link below a folder, sorted; of one that changes meanwhile, about those."""
    if folder.is_symlink():
        return [folder]
    paths = []
    for where, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(where, name))]
        paths += [Path(where) / name for name in (*names, *links)]
    return sorted(paths)


def size_of(path: Path) -> int:
    """In bytes; 0 if it is gone."""
    with contextlib.suppress(FileNotFoundError):
        return path.lstat().st_size
    return 0


def age_of(path: Path) -> float:
    """In seconds; 0 if it is gone."""
    with contextlib.suppress(FileNotFoundError):
        return time.time() - path.lstat().st_mtime
    return 0.0
