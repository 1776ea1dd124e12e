"""Open a Hub repository: a bundle, or a backbone."""

from __future__ import annotations

from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.renamed import keywords_renamed
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.bundles.repository_loader import LOADER
from pocketzoo.zoo.catalog.registry import Entry
from pocketzoo.zoo.models.hub_bundle import unpack
from pocketzoo.zoo.models.resolver import Resolver, hub_reference


@keywords_renamed(registry="resolver")
def open_remote(name: str, resolver: Resolver, progress: Progress = SILENT) -> Bundle | Entry:
    """What a repository holds: the bundle that it is, or that its head belongs to, else its backbone.

    Raises:
        HubError: the Hub does not give it.
        BundleError: it is damaged.
        UnknownNameError: the reference names a part of a repository that is not a bundle.
    """
    ref = resolver.lock.pin(hub_reference(name))
    fetched = resolver.fetch(ref, progress)
    if fetched.loader is LOADER:
        return unpack(fetched.repository, resolver, progress)
    return resolver.entry("backbone", str(ref.at(fetched.repository.commit)), progress)  # it is known now
