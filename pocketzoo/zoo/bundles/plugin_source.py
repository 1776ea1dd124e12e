"""What a plugin's code is, for keys: its distribution's version, and a digest of the source that it runs.

A version alone does not say it: a plugin that is being written is edited under one version, and its answers of before
are then those of another model. Of what ships the versions count, of the libraries that it stands on as well.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any
from uuid import uuid4

from pocketzoo.core.content_digests import content_digests
from pocketzoo.core.keys import digest_of
from pocketzoo.zoo.bundles.bill_of_materials import packages
from pocketzoo.zoo.bundles.imported_code import imported_code
from pocketzoo.zoo.catalog.described import SHIPS
from pocketzoo.zoo.catalog.registry import Entry, Registry

_STARTED = time.time()
_ONLY_HERE = uuid4().hex  # stands for code whose source nothing tells: another process has another


def plugin_sources(registry: Registry, *entries: Entry) -> list[str]:
    """The ``plugin_source`` of what ships, and of each plugin that declares one of these entries, once."""
    declared: dict[str, list[Any]] = {}
    for entry in entries:
        if _origin(registry, entry.plugin) != SHIPS:
            declared.setdefault(entry.plugin, []).append(entry.spec)
    return [_shipped(), *(plugin_source(registry, plugin, *specs) for plugin, specs in sorted(declared.items()))]


def plugin_source(registry: Registry, plugin: str, *specs: Any) -> str:
    """Origin and version of a plugin, with a digest of its ``imported_code`` and that of what ``specs`` build by.

    Code that this process may run in an earlier form than its files have now (they were edited since it began), or
    that has no files (a module made in memory), is not the same in any other process.
    """
    origin = _origin(registry, plugin)
    if origin == SHIPS:
        return _shipped()
    module: Any = registry.manager.hooks.get_plugin(plugin)
    code, libraries = imported_code(module, _named_by(specs), origin)
    if not all(code.values()) or module.__name__.partition(".")[0] not in code:
        return f"{origin} {_ONLY_HERE} {id(module)}"
    files = [file for _, each in sorted(code.items()) for file in each]
    if any(_STARTED < file.stat().st_mtime <= time.time() for file in files):
        return f"{origin} {_ONLY_HERE} {digest_of(files)}"
    names = [file.name for file in files]
    return f"{origin} {digest_of(sorted(code), names, content_digests(files), libraries)}"


def _origin(registry: Registry, plugin: str) -> str:
    return next((each.origin for each in registry.manager.plugins if each.name == plugin), SHIPS)


def _shipped() -> str:
    return f"{SHIPS} {digest_of(packages())}"


def _named_by(values: Iterable[Any]) -> Iterator[str]:
    """The modules of the functions and classes that specs hold."""
    for value in values:
        if isinstance(value, partial):
            yield from _named_by((value.func, *value.args, *value.keywords.values()))
        elif callable(value):
            yield getattr(value, "__module__", None) or type(value).__module__
            yield type(getattr(value, "__self__", None)).__module__  # of a bound method: the class may be another's
        elif is_dataclass(value):
            yield from _named_by(getattr(value, field.name) for field in fields(value))
        elif isinstance(value, Mapping):
            yield from _named_by(value.values())
        elif isinstance(value, (list, tuple, set, frozenset)):
            yield from _named_by(value)
