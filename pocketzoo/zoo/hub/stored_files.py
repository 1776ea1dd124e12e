"""Queries about stored files: which exist, what pins them, which are damaged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of a repository whose bytes are in the store."""

    path: str  # in the repository
    sha256: str
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class Pin:
    """A commit of a repository, with those of its files that are in the store."""

    repo_id: str
    commit: str
    files: tuple[Stored, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something ``verify`` found."""

    path: Path
    what: str
