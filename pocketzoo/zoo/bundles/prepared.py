"""Bundles that are prepared once, of models that come as something else, and kept below ``home()`` under a key."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from pocketzoo.core.caching import caching
from pocketzoo.core.content_digests import MONTH, forget_unused
from pocketzoo.core.errors import BundleError, UnsafeFileError
from pocketzoo.core.files import home
from pocketzoo.zoo.bundles.bundle import Bundle, read_bundle
from pocketzoo.zoo.bundles.manifest import MANIFEST
from pocketzoo.zoo.hub.reference import HubRef
from pocketzoo.zoo.hub.store import Store
from pocketzoo.zoo.hub.store_layout import files_below, size_of

DIGITS = 16  # of a key, in a folder's name


def prepared(name: str, key: str) -> tuple[Path, Bundle | None]:
    """Where the bundle of a ``cache_key`` belongs, and the one that is there; None where it has yet to be made.

    What is damaged, or not to be looked up (``--no-cache``), is removed: it is ours to make again.
    """
    place = home() / "models" / f"{name}-{key[:DIGITS]}"
    if place.exists():
        if caching():
            try:
                bundle = read_bundle(place)
                with contextlib.suppress(OSError):  # a folder that may not be changed
                    os.utime(place)  # prune looks at it
                return place, bundle
            except (BundleError, UnsafeFileError):
                pass
        shutil.rmtree(place, ignore_errors=True)
    return place, None


def prune(keep: Sequence[tuple[str, str]] | None = None) -> int:
    """``Store.prune``, and what was made of its files: prepared models and digests that nothing asked for in a month.

    Returns bytes freed.
    """
    forget_unused()
    old = [place for place in _places() if time.time() - place.stat().st_mtime > MONTH]
    return Store().prune(keep) + sum(map(_remove, old))


def remove(ref: HubRef | str) -> int:
    """Remove a model from this disk: files of its repository at one commit or all, and bundles prepared of it.

    ``ref`` is a reference to the Hub, or the name under which a bundle was prepared. Returns bytes freed; 0 where
    nothing was stored.
    """
    if isinstance(ref, str):
        name, freed = ref, 0
    else:
        name, store = ref.repo_id.replace("/", "--"), Store()
        pins = [(pin.repo_id, pin.commit) for pin in store.pins()]
        if ref.pinned and (ref.repo_id, ref.revision) not in pins:
            return 0
        others = [(repo_id, commit) for repo_id, commit in pins if repo_id != ref.repo_id or not _at(commit, ref)]
        freed = store.prune(others) if len(others) < len(pins) else 0
    return freed + sum(_remove(place) for place in _places() if place.name[: -DIGITS - 1] == name)


def prepared_models() -> list[tuple[str, int]]:
    """The name of each prepared bundle, sorted, and its bytes."""
    return sorted((place.name[: -DIGITS - 1], _size(place)) for place in _places())


def _at(commit: str, ref: HubRef) -> bool:
    return commit == ref.revision or not ref.pinned


def _places() -> list[Path]:
    folder = home() / "models"
    return [each for each in folder.iterdir() if (each / MANIFEST).is_file()] if folder.is_dir() else []


def _remove(place: Path) -> int:
    size = _size(place)
    shutil.rmtree(place, ignore_errors=True)
    return size


def _size(place: Path) -> int:
    return sum(size_of(path) for path in files_below(place))
