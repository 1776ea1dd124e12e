"""Open a Hub repository: a bundle, or a backbone."""

from __future__ import annotations

from dataclasses import replace

from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.bundles.repository_loader import LOADER
from pocketzoo.zoo.catalog.registry import Entry, Registry
from pocketzoo.zoo.models.hub_bundle import unpack
from pocketzoo.zoo.models.pull import as_locked, fetch_repository, hub_reference, offer, remote_entry


def open_remote(name: str, registry: Registry, progress: Progress = SILENT) -> Bundle | Entry:
    """What a repository holds: the bundle that it is, or that its head belongs to, else its backbone.

    Raises:
        HubError: the Hub does not give it.
        BundleError: it is damaged.
        UnknownNameError: the reference names a part of a repository that is not a bundle.
    """
    ref = as_locked(hub_reference(name))
    repository, loader, _ = fetch_repository(replace(ref, part=""), registry, progress)
    if loader is LOADER:
        return unpack(repository, registry, progress)
    offer(repository, loader, registry)
    return remote_entry("backbone", str(ref.at(repository.commit)), registry, progress)  # it is known now
