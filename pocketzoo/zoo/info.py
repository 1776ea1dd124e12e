"""Everything known of one name or bundle, as plain data."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from pocketzoo.errors import UnknownNameError, nearest
from pocketzoo.zoo.bundle import read_bundle
from pocketzoo.zoo.kinds import KINDS
from pocketzoo.zoo.registry import Registry, default_registry
from pocketzoo.zoo.typed import to_plain


def info(reference: str | Path, *, registry: Registry | None = None) -> dict[str, Any]:
    """The manifest of a bundle, or the specs registered under a name. Nothing is downloaded or built.

    Raises:
        BundleError: the path is no bundle, or is damaged.
        UnknownNameError: neither a path nor a registered name; the hint is the nearest one.
    """
    path = Path(reference)
    if path.exists() or len(path.parts) > 1:
        return {"bundle": str(path), **to_plain(read_bundle(path).manifest)}
    registry = registry or default_registry()
    name = str(reference)
    found = [entry for kind in KINDS if (entry := registry.entries(kind).get(name))]
    if not found:
        known = [n for kind in KINDS for n in registry.entries(kind)]
        raise UnknownNameError(f"{name!r} is neither a bundle nor a registered name", nearest(name, known))
    return {"name": name, **{e.kind: {"plugin": e.plugin, **_facts(e.spec)} for e in found}}


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
        elif f.name not in ("name", "config", "plan_type") and not callable(value):
            facts[f.name] = to_plain(value)
    return facts
