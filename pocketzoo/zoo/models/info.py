"""The ``info`` function: details of a registered name or a bundle, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pocketzoo.core.errors import UnknownNameError, nearest
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.typed import to_plain
from pocketzoo.core.untrusted.exits import survives_exit
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.bundles.manifest import MANIFEST, Manifest
from pocketzoo.zoo.catalog.head_task import possible_tasks
from pocketzoo.zoo.catalog.kinds import KINDS
from pocketzoo.zoo.catalog.registry import Entry, Registry
from pocketzoo.zoo.models.open_remote import open_remote
from pocketzoo.zoo.models.resolver import Resolver, is_path


@survives_exit
def info(
    reference: str | Path, *, registry: Registry | Resolver | None = None, progress: Progress = SILENT
) -> dict[str, Any]:
    """The manifest of a bundle, or the specs registered under a name. Nothing is built; a model of the Hub is pulled.

    Raises:
        BundleError: the path is not a bundle, or is damaged.
        HubError: the Hub does not give the model.
        UnknownNameError: neither a path nor a registered name; the hint is the nearest one.
    """
    resolver, name = Resolver.of(registry), str(reference)
    if name.startswith("hf:"):
        opened = open_remote(name, resolver, progress)
        if isinstance(opened, Entry):
            head = resolver.known("head", f"{opened.name}#head")
            return _of(opened.name, [opened, *([head] if head else [])], resolver.registry)
        return {"bundle": str(opened.path), **_of_manifest(opened.manifest)}
    path = Path(name.removeprefix("file:"))
    entries = [entry for kind in KINDS if (entry := resolver.registry.entries(kind).get(name))]
    if entries and not (path / MANIFEST).is_file():  # a plugin's own folder is called as what it declares
        return _of(name, entries, resolver.registry)
    if is_path(name):
        return {"bundle": str(path), **_of_manifest(read_bundle(path).manifest)}
    known = [n for kind in KINDS for n in resolver.registry.entries(kind)]
    raise UnknownNameError(
        f"{name!r} is neither a bundle nor a registered name", resolver.registry.hint(nearest(name, known), *KINDS)
    )


def _of_manifest(manifest: Manifest) -> dict[str, Any]:
    """A manifest, and where and when it was last measured, on data if it ever was."""
    rows = [row for row in manifest.measurements if not row.made_samples] or manifest.measurements
    last = rows[-1].measured if rows else None
    return {**to_plain(manifest), "measured": to_plain(last)}


def _of(name: str, entries: list[Entry], registry: Registry) -> dict[str, Any]:
    return {"name": name, **{e.kind: {"plugin": e.plugin, **_facts_of(e, registry)} for e in entries}}


def _facts_of(entry: Entry, registry: Registry) -> dict[str, Any]:
    """A spec's facts; of a head without its loss, where its task has one of its own."""
    facts = _facts(entry.spec)
    if entry.kind == "head" and entry.spec.loss:
        tasks = possible_tasks(entry.spec, registry)
        if tasks and not any("loss" in task.settings for task in tasks):
            del facts["loss"]
    return facts


def _facts(spec: Any) -> dict[str, Any]:
    """A spec's fields that are data; what can be called is code and is left out."""
    facts = {}
    for f in fields(spec):
        value = getattr(spec, f.name)
        if f.name == "weights" and value is not None:
            facts["weights"] = to_plain(value.file)
        elif f.name == "labels" and value is not None:
            facts["labels"] = list(value())
        elif f.name == "options" and value is not None:
            facts["options"] = to_plain(value())
        elif f.name == "files" and isinstance(value, Mapping):  # of a repository, in the store
            facts["files"] = {name: str(path) for name, path in value.items()}
        elif f.name not in ("name", "config", "plan_type") and not callable(value):
            facts[f.name] = to_plain(value)
    return facts
