"""Pull models from the Hub: resolve, check, download, lock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pocketzoo.core.errors import HubConnectionError, LockError
from pocketzoo.core.names import check_suffix
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.untrusted.exits import survives_exit
from pocketzoo.zoo.bundles.repository_loader import LOADER, backbone_of
from pocketzoo.zoo.bundles.work_folder import check_outside
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.hub.lock_file import NAME, Locked, LockedFile, read_lock, write_lock
from pocketzoo.zoo.hub.reference import HubRef
from pocketzoo.zoo.hub.store import Store
from pocketzoo.zoo.hub.stored_files import Stored
from pocketzoo.zoo.models.resolver import Fetched, Resolver, hub_reference


@dataclass(frozen=True, slots=True)
class Pulled:
    """A model of the Hub whose files are in the store."""

    ref: str  # as it was asked for
    pinned: str  # the same at its commit
    commit: str
    loader: str
    license: str
    files: tuple[Stored, ...]


@survives_exit
def pull(
    refs: Iterable[str],
    *,
    locked: bool = False,
    lock: str | Path = NAME,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> list[Pulled]:
    """Download models into the store. With ``locked`` exactly what the lock file pins, all of it if ``refs`` is empty.

    For a head that was pushed alone, its backbone is downloaded too: afterwards nothing is missing.

    Raises:
        BadReferenceError: a reference to something else than the Hub.
        HubError: the Hub does not give it.
        UnsupportedModelError: no loader reads it.
        LockError: with ``locked``, something differs from the lock file.
    """
    resolver = Resolver.of(registry)
    entries = read_lock(Path(lock)) if locked else {}
    pulled: dict[str, Pulled] = {}
    for ref in map(hub_reference, list(refs) or list(entries)):
        models = _pulled(ref, ref.at(_locked(ref, entries, lock).commit) if locked else ref, resolver, progress)
        for model in models if locked else ():
            if difference := _difference(_locked(model.ref, entries, lock), model):
                hint = f"if you trust it: pocketzoo update {ref}"
                raise LockError(f"{model.ref} differs from {lock}: {difference}", hint)
        pulled |= {model.ref: model for model in models}
    return list(pulled.values())


@survives_exit
def lock(
    refs: Iterable[str],
    *,
    lock: str | Path = NAME,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> list[Pulled]:
    """Pull models and pin them in a lock file; existing entries stay unchanged.

    Raises:
        HubError, UnsupportedModelError: as ``pull``.
        LockError: the lock file is damaged.
    """
    return _lock(refs, Path(lock), again=False, resolver=Resolver.of(registry), progress=progress)


@survives_exit
def update(
    refs: Iterable[str],
    *,
    lock: str | Path = NAME,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> list[Pulled]:
    """Move locked references to the latest commit of their branch or tag; all of them if ``refs`` is empty.

    Raises:
        LockError: a reference is not locked, or the lock file is damaged.
    """
    refs, known = [str(hub_reference(text)) for text in refs], read_lock(Path(lock))
    if missing := [ref for ref in refs if ref not in known]:
        raise LockError(f"{lock} does not have {missing[0]}", f"add it: pocketzoo lock {missing[0]}")
    return _lock(refs or known, Path(lock), again=True, resolver=Resolver.of(registry), progress=progress)


@survives_exit
def outdated(*, lock: str | Path = NAME, progress: Progress = SILENT) -> list[tuple[str, str, str]]:
    """Locked references whose branch or tag has moved: (reference, locked commit, commit now).

    Raises:
        HubError: the Hub does not answer, or this is offline: what was last seen is no answer here.
        LockError: there is no lock file, or it is damaged.
    """
    from pocketzoo.zoo.hub.http import is_offline
    from pocketzoo.zoo.hub.repositories import look_up

    moved, entries = [], read_lock(Path(lock)).values()
    if is_offline():
        raise HubConnectionError("checking for updates needs the Hub, and this is offline", "leave out --offline")
    for entry in entries:
        if (ref := hub_reference(entry.ref)).pinned:
            continue
        now = look_up(ref.repo_id, ref.revision, Store(), progress, fresh=True).commit
        if now != entry.commit:
            moved.append((entry.ref, entry.commit, now))
    return moved


def _pulled(ref: HubRef, at: HubRef, resolver: Resolver, progress: Progress) -> list[Pulled]:
    """A model, and the backbone that it needs if it is a head alone."""
    fetched = resolver.fetch(at, progress)
    models = [_of(str(ref), str(ref.at(fetched.repository.commit)), fetched)]
    if fetched.loader is LOADER and (needed := backbone_of(fetched.repository)):
        fetched = resolver.fetch(hub_reference(needed), progress)
        if fetched.loader is LOADER:
            fetched.loader.backbone(fetched.repository)  # says why it is none
        models.append(_of(needed, needed, fetched))
    return models


def _of(ref: str, pinned: str, fetched: Fetched) -> Pulled:
    repository = fetched.repository
    return Pulled(ref, pinned, repository.commit, fetched.loader.name, repository.license, fetched.files)


def _lock(refs: Iterable[str], path: Path, *, again: bool, resolver: Resolver, progress: Progress) -> list[Pulled]:
    check_suffix(path, [".lock", ".toml"], "a lock file")
    check_outside(path, "choose another place with --lock")
    entries = read_lock(path) if path.exists() else {}
    pulled = {}
    for ref in map(hub_reference, refs):
        at = ref if again or str(ref) not in entries else ref.at(entries[str(ref)].commit)
        for model in _pulled(ref, at, resolver, progress):
            files = tuple(LockedFile(path=f.path, size=f.size, sha256=f.sha256) for f in model.files)
            entries[model.ref] = Locked(ref=model.ref, commit=model.commit, file=files)
            pulled[model.ref] = model
    write_lock(path, entries.values())
    return list(pulled.values())


def _locked(ref: HubRef | str, entries: Mapping[str, Locked], path: str | Path) -> Locked:
    if str(ref) not in entries:
        raise LockError(f"{path} does not have {ref}", f"add it: pocketzoo lock {ref}")
    return entries[str(ref)]


def _difference(entry: Locked, model: Pulled) -> str:
    """The first thing in which a pulled model is not the locked one; empty if there is none."""
    expected = {file.path: file.sha256 for file in entry.file}
    actual = {file.path: file.sha256 for file in model.files}
    for path in sorted(expected.keys() | actual.keys()):
        if expected.get(path) != actual.get(path):
            return f"{path} is {actual.get(path, 'missing')[:12]}, not {expected.get(path, 'missing')[:12]}"
    return ""
