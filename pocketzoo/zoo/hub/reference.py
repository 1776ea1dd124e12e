"""Parse model references such as hf://org/name@revision#part. Standard library."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from pocketzoo.core.errors import BadReferenceError

COMMIT = re.compile(r"[0-9a-f]{40}")
# What the Hub allows: letters, digits, "-", "_", "."; no "--" or "..", neither "-" nor "." at an end, nor ".git" at the
# last one; 96 characters.
_NAME = r"(?!.*(?:--|\.\.))[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
REPOSITORY = re.compile(rf"{_NAME}(?:/{_NAME})?(?<!\.git)")
_REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_./+-]{0,254}")


@dataclass(frozen=True, slots=True)
class HubRef:
    """A repository of the Hub, at a branch, tag or commit, or a part of it."""

    repo_id: str  # "org/name", or "name" for the oldest ones
    revision: str = "main"
    part: str = ""  # a file, or "head"

    @property
    def pinned(self) -> bool:
        """Whether it names a commit, so that it means the same bytes for ever."""
        return COMMIT.fullmatch(self.revision) is not None

    def at(self, commit: str) -> HubRef:
        """The same at a commit."""
        return HubRef(self.repo_id, commit, self.part)

    def __str__(self) -> str:
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return f"hf://{self.repo_id}{revision}{f'#{self.part}' if self.part else ''}"


@dataclass(frozen=True, slots=True)
class PathRef:
    """A bundle on this disk."""

    path: Path

    def __str__(self) -> str:
        return f"file:{self.path}"


@dataclass(frozen=True, slots=True)
class NameRef:
    """A registered name."""

    name: str

    def __str__(self) -> str:
        return self.name


Reference = HubRef | PathRef | NameRef


def parse(text: str) -> Reference:
    """Read a reference.

    ==================================  =======================================================
    ``hf://org/name``                   the branch ``main`` of a repository
    ``hf://org/name@v1.0``              a branch, a tag or a commit (40 hex digits: pinned)
    ``hf://org/name#head``              the head alone
    ``hf://org/name@v1.0#onnx/m.onnx``  one file
    ``file:path/to/bundle``             a bundle on this disk, whatever it is called
    ``tinynet``                         a registered name
    ==================================  =======================================================

    Raises:
        BadReferenceError: none of these.
    """
    if text.startswith("file:"):
        path = text.removeprefix("file:")
        if not path:
            raise BadReferenceError("'file:' has no path", "write file:PATH")
        return PathRef(Path(path))
    if not text.startswith("hf:"):
        if not text:
            raise BadReferenceError("a reference cannot be empty", "give a name, hf://org/name or file:PATH")
        return NameRef(text)
    rest, sharp, part = text.removeprefix("hf:").removeprefix("//").partition("#")
    repo_id, at, revision = rest.partition("@")
    if not text.startswith("hf://") or not REPOSITORY.fullmatch(repo_id):
        raise BadReferenceError(f"{text!r} does not name a repository", "write hf://org/name[@revision][#part]")
    if at and not _REVISION.fullmatch(revision):
        raise BadReferenceError(f"{text!r} has no revision after the @", "give a branch, a tag or a commit")
    if sharp and not is_inside(part):
        raise BadReferenceError(f"{text!r} has no part after the #", "give a file of the repository, or head")
    return HubRef(repo_id, revision or "main", part)


def is_inside(path: str) -> bool:
    """Whether a repository's path stays in the folder it is unpacked to, on every system, and prints as it is."""
    parts = path.replace("\\", "/").split("/")
    control = any(unicodedata.category(c) in ("Cc", "Cs") for c in path)  # Cs: what no file name can be encoded from
    # Windows drops dots and spaces at an end, so that ".. " climbs as well, and takes "C:" for a disk.
    return not control and all(part.rstrip(". ") and part[1:2] != ":" for part in parts)
