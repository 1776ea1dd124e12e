"""Resolve a name to a spec: from a plugin, or from a Hub repository for ``hf://...``."""

from __future__ import annotations

from typing import Any

from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.zoo.catalog.registry import Entry, Registry
from pocketzoo.zoo.models.pull import remote_entry


def resolve_entry(kind: str, name: str, registry: Registry, progress: Progress = SILENT) -> Entry:
    """What is called ``name``; a repository of the Hub is fetched when it is not stored.

    Raises:
        UnknownNameError: there is none; the hint is the nearest name.
        HubError: the Hub does not give the repository.
    """
    return remote_entry(kind, name, registry, progress) if name.startswith("hf:") else registry.entry(kind, name)


def resolve_spec(kind: str, name: str, registry: Registry, progress: Progress = SILENT) -> Any:
    """The spec of ``resolve_entry``."""
    return resolve_entry(kind, name, registry, progress).spec
