"""What back ends built of a bundle's graphs, as far as it may be loaded here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pocketzoo.core.errors import PluginError, UnknownNameError
from pocketzoo.zoo.backends.open_backend import backend_named, backend_of
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.bundles.manifest import FileEntry
from pocketzoo.zoo.catalog.backend import BackendSpec
from pocketzoo.zoo.catalog.registry import Registry


@dataclass(frozen=True, slots=True)
class BuiltFile:
    """A file that a back end loads."""

    path: Path
    entry: FileEntry
    backend: BackendSpec
    others: tuple[Path, ...] = ()  # that belong to it


def built_files(bundle: Bundle, registry: Registry) -> list[BuiltFile]:
    """All of them, parts of generation aside. An engine that was not built on this machine is left out.

    So is what was built by a back end that no plugin here declares.
    """
    files: list[BuiltFile] = []
    for name, entry in bundle.built().items():
        try:
            backend = _builder(entry, registry)
        except (UnknownNameError, PluginError):
            continue
        if backend is None or entry.graph or (backend.built_here is not None and not backend.built_here(entry.sha256)):
            continue
        others = tuple(bundle.path / other for other, each in bundle.manifest.files.items() if each.of == name)
        files.append(BuiltFile(bundle.path / name, entry, backend, others))
    return files


def _builder(entry: FileEntry, registry: Registry) -> BackendSpec | None:
    """Who built a file; earlier versions did not say, and had one back end for each target with engines."""
    if entry.backend:
        return backend_named(entry.backend, registry)
    return backend_of(registry.get("target", entry.target), registry)[0]
