"""Pull models from the Hub: resolve, check, download, lock."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketzoo.core.errors import (
    BadReferenceError,
    HubConnectionError,
    LockError,
    UnknownNameError,
    UnsafeFileError,
    UnsupportedModelError,
)
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.bundles.repository_loader import LOADER, backbone_of
from pocketzoo.zoo.catalog.registry import Entry, Registry, default_registry
from pocketzoo.zoo.catalog.specs import LoaderSpec, Repository
from pocketzoo.zoo.hub.lock_file import NAME, Locked, LockedFile, read_lock, write_lock
from pocketzoo.zoo.hub.reference import HubRef, parse
from pocketzoo.zoo.hub.store import Store
from pocketzoo.zoo.hub.stored_files import Stored

if TYPE_CHECKING:
    from pocketzoo.zoo.hub.repositories import Remote


CONFIG = "config.json"
LARGEST = 64_000_000  # bytes of a file that is parsed as text


@dataclass(frozen=True, slots=True)
class Pulled:
    """A model of the Hub whose files are in the store."""

    ref: str  # as it was asked for
    pinned: str  # the same at its commit
    commit: str
    loader: str
    license: str
    files: tuple[Stored, ...]


def pull(
    refs: Iterable[str],
    *,
    locked: bool = False,
    lock: str | Path = NAME,
    registry: Registry | None = None,
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
    registry = registry or default_registry()
    entries = read_lock(Path(lock)) if locked else {}
    pulled: dict[str, Pulled] = {}
    for ref in map(hub_reference, list(refs) or list(entries)):
        found = _pulled(ref, ref.at(_locked(ref, entries, lock).commit) if locked else ref, registry, progress)
        for model in found if locked else ():
            if difference := _difference(_locked(model.ref, entries, lock), model):
                hint = f"if you trust it: pocketzoo update {ref}"
                raise LockError(f"{model.ref} differs from {lock}: {difference}", hint)
        pulled |= {model.ref: model for model in found}
    return list(pulled.values())


def lock(
    refs: Iterable[str],
    *,
    lock: str | Path = NAME,
    registry: Registry | None = None,
    progress: Progress = SILENT,
) -> list[Pulled]:
    """Pull models and pin them in a lock file; existing entries stay unchanged.

    Raises:
        HubError, UnsupportedModelError: as ``pull``.
        LockError: the lock file is damaged.
    """
    return _lock(refs, Path(lock), again=False, registry=registry or default_registry(), progress=progress)


def update(
    refs: Iterable[str],
    *,
    lock: str | Path = NAME,
    registry: Registry | None = None,
    progress: Progress = SILENT,
) -> list[Pulled]:
    """Move locked references to the latest commit of their branch or tag; all of them if ``refs`` is empty.

    Raises:
        LockError: a reference is not locked, or the lock file is damaged.
    """
    refs, known = [str(hub_reference(text)) for text in refs], read_lock(Path(lock))
    if missing := [ref for ref in refs if ref not in known]:
        raise LockError(f"{lock} does not have {missing[0]}", f"add it: pocketzoo lock {missing[0]}")
    return _lock(refs or known, Path(lock), again=True, registry=registry or default_registry(), progress=progress)


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


def remote_entry(kind: str, name: str, registry: Registry, progress: Progress = SILENT) -> Entry:
    """The backbone or head of a repository. A reference without a commit is the one zoo.lock holds, if it holds it."""
    ref = as_locked(hub_reference(name))
    wanted = "head" if kind == "head" else ""
    if kind not in ("backbone", "head") or ref.part != wanted:
        raise UnknownNameError(f"{name!r} is no {kind}", "hf://org/name is a backbone, hf://org/name#head its head")
    if ref.pinned and (known := registry.remote.get((kind, str(ref)))):
        return known
    repository, loader, _ = fetch_repository(replace(ref, part=""), registry, progress)
    if loader is LOADER:
        loader.backbone(repository)
    offer(repository, loader, registry)
    pinned = str(ref.at(repository.commit))
    if (kind, pinned) not in registry.remote:
        raise UnknownNameError(f"{name} has no head known to {loader.name}", "fit a new one: --head linear")
    return registry.remote[kind, pinned]


def adopt(bundle: Bundle, registry: Registry) -> None:
    """Make the Hub backbone of a bundle known from the files the bundle brought along: no network, no store."""
    name = bundle.manifest.model.backbone
    if not name.startswith("hf:") or ("backbone", name) in registry.remote:
        return
    ref = hub_reference(name)
    files = bundle.source_files()
    repository = Repository(
        repo_id=ref.repo_id,
        commit=ref.revision,
        license=bundle.manifest.license,
        config=_json(files[CONFIG], ref.repo_id),
        files=files,
    )
    loader: LoaderSpec = registry.get("loader", str(bundle.manifest.provenance.get("loader", "")))
    offer(repository, loader, registry)


def find_loader(repository: Repository, registry: Registry) -> LoaderSpec:
    """The first loader that reads a repository.

    Raises:
        UnsupportedModelError: none does; the message says why each does not.
    """
    reasons = []
    loaders: list[LoaderSpec] = [LOADER, *(entry.spec for entry in registry.entries("loader").values())]
    for loader in loaders:
        if not (reason := loader.refuses(repository)):
            return loader
        if loader is not LOADER:
            reasons.append(f"{loader.name}: {reason}")
    raise UnsupportedModelError(
        f"no plugin loads {repository.repo_id} ({'; '.join(reasons) or 'none is registered'})",
        "see what can be loaded: pocketzoo search WORDS",
    )


def as_locked(ref: HubRef) -> HubRef:
    """A reference without a commit at the one that zoo.lock holds, if it holds it."""
    if ref.pinned or not Path(NAME).is_file():
        return ref
    entry = read_lock(Path(NAME)).get(str(replace(ref, part="")))
    return ref.at(entry.commit) if entry else ref


def hub_reference(text: str) -> HubRef:
    """A reference to the Hub.

    Raises:
        BadReferenceError: it is another reference, or none.
    """
    ref = parse(text)
    if not isinstance(ref, HubRef):
        raise BadReferenceError(f"{text!r} is not a reference to the Hub", "write hf://org/name[@revision]")
    return ref


def fetch_repository(
    ref: HubRef, registry: Registry, progress: Progress
) -> tuple[Repository, LoaderSpec, tuple[Stored, ...]]:
    """Look a repository up, choose its loader, and bring what the loader wants into the store."""
    from pocketzoo.zoo.hub.download import fetch_files
    from pocketzoo.zoo.hub.repositories import look_up

    store = Store()
    listing = look_up(ref.repo_id, ref.revision, store, progress)
    known = store.known(listing.repo_id, listing.commit)
    remotes = {file.path: file for file in listing.files}
    config: dict[str, Any] = {}
    if CONFIG in remotes and remotes[CONFIG].size <= LARGEST:
        (file,) = fetch_files(listing, [remotes[CONFIG]], store)
        config = _json(store.blob(file.sha256), listing.repo_id)
    repository = Repository(
        repo_id=listing.repo_id,
        commit=listing.commit,
        sizes={file.path: file.size for file in listing.files},
        library=listing.library,
        task=listing.task,
        license=listing.license,
        config=config,
    )
    loader = find_loader(repository, registry)
    paths = [path for path in dict.fromkeys((CONFIG, *loader.wants(repository))) if path in remotes]
    for path in paths:
        if not path.endswith((".safetensors", ".onnx")) and remotes[path].size > LARGEST:
            raise UnsafeFileError(f"{path} of {ref.repo_id} has {remotes[path].size:,} bytes", "do not use this model")
    wanted = [remotes[path] for path in paths]
    _say_what_comes(ref, listing.commit, [file for file in wanted if file.path not in known], progress)
    stored = fetch_files(listing, wanted, store, progress)
    return (
        replace(
            repository,
            files={file.path: store.blob(file.sha256) for file in stored},
            digests={file.path: file.sha256 for file in stored},
        ),
        loader,
        tuple(stored),
    )


def _say_what_comes(ref: HubRef, commit: str, files: list[Remote], progress: Progress) -> None:
    if not files:
        return
    name = str(replace(ref, revision="main")) if ref.pinned else str(ref)
    progress.say(f"{name} at {commit[:12]} needs {len(files)} files, {sum(f.size for f in files):,} bytes:")
    for file in sorted(files, key=lambda f: -f.size):
        progress.say(f"  {file.size:>13,} bytes  {file.path}")


def offer(repository: Repository, loader: LoaderSpec, registry: Registry) -> None:
    """Put a repository's backbone and head into the registry, under their pinned names; a bundle is neither."""
    if loader is LOADER:
        return
    backbone = loader.backbone(repository)
    registry.remote["backbone", backbone.name] = Entry("backbone", backbone.name, backbone, loader.name)
    if (head := loader.head(repository)) is not None:
        registry.remote["head", head.name] = Entry("head", head.name, head, loader.name)


def _pulled(ref: HubRef, at: HubRef, registry: Registry, progress: Progress) -> list[Pulled]:
    """A model, and the backbone that it needs if it is a head alone."""
    repository, loader, stored = fetch_repository(replace(at, part=""), registry, progress)
    offer(repository, loader, registry)  # so that a model that cannot be built is found now
    pinned = str(ref.at(repository.commit))
    found = [Pulled(str(ref), pinned, repository.commit, loader.name, repository.license, stored)]
    if loader is LOADER and (needed := backbone_of(repository)):
        backbone = hub_reference(needed)
        repository, loader, stored = fetch_repository(backbone, registry, progress)
        if loader is LOADER:
            loader.backbone(repository)  # says why it is none
        offer(repository, loader, registry)
        found.append(Pulled(needed, needed, repository.commit, loader.name, repository.license, stored))
    return found


def _lock(refs: Iterable[str], path: Path, *, again: bool, registry: Registry, progress: Progress) -> list[Pulled]:
    entries = read_lock(path) if path.exists() else {}
    pulled = {}
    for ref in map(hub_reference, refs):
        at = ref if again or str(ref) not in entries else ref.at(entries[str(ref)].commit)
        for found in _pulled(ref, at, registry, progress):
            files = tuple(LockedFile(path=f.path, size=f.size, sha256=f.sha256) for f in found.files)
            entries[found.ref] = Locked(ref=found.ref, commit=found.commit, file=files)
            pulled[found.ref] = found
    write_lock(path, entries.values())
    return list(pulled.values())


def _locked(ref: HubRef | str, entries: Mapping[str, Locked], path: str | Path) -> Locked:
    if str(ref) not in entries:
        raise LockError(f"{path} does not have {ref}", f"add it: pocketzoo lock {ref}")
    return entries[str(ref)]


def _difference(entry: Locked, found: Pulled) -> str:
    """The first thing in which a pulled model is not the locked one; empty if there is none."""
    wanted = {file.path: file.sha256 for file in entry.file}
    given = {file.path: file.sha256 for file in found.files}
    for path in sorted(wanted.keys() | given.keys()):
        if wanted.get(path) != given.get(path):
            return f"{path} is {given.get(path, 'missing')[:12]}, not {wanted.get(path, 'missing')[:12]}"
    return ""


def _json(path: Path, repo_id: str) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UnsafeFileError(
            f"{CONFIG} of {repo_id} is not valid JSON: {error}", "tell the repository's author"
        ) from error
    return data if isinstance(data, dict) else {}
