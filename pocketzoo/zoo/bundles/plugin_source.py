"""What a plugin's code is, for keys: its distribution's version, and a digest of the source that it came with.

A version alone does not say it: a plugin that is being written is edited under one version, and its answers of before
are then those of another model.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

from pocketzoo.core.content_digests import content_digests
from pocketzoo.core.keys import digest_of
from pocketzoo.core.version import __version__
from pocketzoo.zoo.catalog.described import SHIPS
from pocketzoo.zoo.catalog.registry import Entry, Registry

_STARTED = time.time()
_ONLY_HERE = uuid4().hex  # stands for code whose source nothing tells: another process has another
_LEFT_OUT = ("__pycache__", ".git", ".venv", "node_modules")


def plugin_sources(registry: Registry, *entries: Entry) -> list[str]:
    """The ``plugin_source`` of each plugin that declares one of these entries, once."""
    declared: dict[str, list[Any]] = {}
    for entry in entries:
        declared.setdefault(entry.plugin, []).append(entry.spec)
    return [plugin_source(registry, plugin, *specs) for plugin, specs in sorted(declared.items())]


def plugin_source(registry: Registry, plugin: str, *specs: Any) -> str:
    """Origin and version of a plugin, with a digest of its package's files and of what ``specs`` build by.

    Code that this process may run in an earlier form than its files have now (they were edited since it began), or
    that has no files (a module made in memory), is not the same in any other process.
    """
    origin = next((each.origin for each in registry.manager.plugins if each.name == plugin), SHIPS)
    if origin == SHIPS:
        return f"{SHIPS} {__version__}"
    module: Any = registry.manager.hooks.get_plugin(plugin)
    modules = {module.__name__, *_named_by(specs)}
    modules = {name for name in modules if name.partition(".")[0] != SHIPS}
    files: dict[Path, None] = {}
    for name in sorted(modules):
        if not (known := _files(sys.modules.get(name) or (module if module.__name__ == name else None))):
            return f"{origin} {_ONLY_HERE} {id(module)}"
        files.update(dict.fromkeys(known))
    if any(_STARTED < file.stat().st_mtime <= time.time() for file in files):
        return f"{origin} {_ONLY_HERE} {digest_of(list(files))}"
    names = [file.name for file in files]
    return f"{origin} {digest_of(names, content_digests(list(files)))}"


def _named_by(values: Iterable[Any]) -> Iterator[str]:
    """The modules of the functions and classes that specs hold."""
    for value in values:
        if callable(value):
            yield getattr(value, "__module__", None) or type(value).__module__
        elif hasattr(value, "__dataclass_fields__"):
            yield from _named_by(getattr(value, name) for name in value.__dataclass_fields__)


def _files(module: ModuleType | None) -> list[Path]:
    """The files of the package that a module is in; of one that is in none, its own."""
    if module is None or not getattr(module, "__file__", None):
        return []
    path = Path(str(module.__file__))
    root = path.parent
    package = module.__name__ if hasattr(module, "__path__") else module.__name__.rpartition(".")[0]
    if not package:
        return [path]
    while "." in package and (root.parent / "__init__.py").is_file():
        root, package = root.parent, package.rpartition(".")[0]
    # Below the root alone: the root itself may well stand in an environment called .venv.
    return sorted(p for p in root.rglob("*") if p.is_file() and not set(p.relative_to(root).parts) & set(_LEFT_OUT))
