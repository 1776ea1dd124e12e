"""Build the plugin manager from built-in plugins and entry points; keep broken plugins with their error."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

import pluggy

from pocketzoo.core.errors import PluginError, PocketzooError, in_a_line
from pocketzoo.core.names import RULE, is_name
from pocketzoo.core.renamed import keywords_renamed
from pocketzoo.zoo.catalog import hookspecs

GIVEN = "given"  # the origin of plugins that a caller passes as modules
BUILT_IN = (
    "tinynet",
    "mlp",
    "heads",
    "tasks",
    "processors",
    "compressors",
    "exporters",
    "targets",
    "backends",
    "datasets",
    "timm",
    "transformers",
)

TURNED_OFF = "turned off by POCKETZOO_PLUGINS"


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin that was found. ``reason`` says why it, or a part of it, is not in use, and is empty for one that is."""

    name: str
    origin: str  # "pocketzoo" or the distribution and version it came with
    reason: str = ""
    partly: bool = False  # whether something else of it is in use


@dataclass(frozen=True, slots=True)
class PluginManager:
    """The hooks, and every plugin that was found, in the order they were loaded."""

    hooks: pluggy.PluginManager
    plugins: tuple[Plugin, ...]


def wanted(environ: str | None) -> frozenset[str] | None:
    """The third-party plugins that POCKETZOO_PLUGINS admits: None for all of them, empty for none."""
    if environ is None:
        return None
    return frozenset(name.strip() for name in environ.split(",") if name.strip())


@keywords_renamed(found="points")
def create_manager(points: Iterable[EntryPoint] | None = None, extra: Sequence[ModuleType] = ()) -> PluginManager:
    """Load the built-in plugins, then ``extra``, then those of ``points`` (default: the installed entry points)."""
    hooks = pluggy.PluginManager(hookspecs.PROJECT)
    hooks.add_hookspecs(hookspecs)
    plugins = []
    for name in BUILT_IN:
        module = import_module(f"pocketzoo.plugins.{name}")
        _register(hooks, module, name)
        plugins.append(Plugin(name, "pocketzoo"))
    for module in extra:
        _register(hooks, module, module.__name__)
        plugins.append(Plugin(module.__name__, GIVEN))
    admitted = wanted(os.environ.get("POCKETZOO_PLUGINS"))
    for point in entry_points(group=hookspecs.PROJECT) if points is None else points:
        origin = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"
        if admitted is not None and point.name not in admitted:
            plugins.append(Plugin(point.name, origin, TURNED_OFF))
            continue
        reason = ""
        # Third-party code may fail in any way; it must not take the command line down, so its reason is kept and shown.
        try:
            _register(hooks, point.load(), point.name)
        except (Exception, SystemExit) as error:  # a script without __main__ guard may call sys.exit
            reason = why(error)
        plugins.append(Plugin(point.name, origin, reason))
    return PluginManager(hooks, tuple(plugins))


def why(error: BaseException) -> str:
    """Why a plugin or one of its hooks is not in use, in one line: what was wrong, and where it is known what to do."""
    if isinstance(error, PocketzooError):
        return " ".join(f"{error.message}; {error.hint}".removesuffix("; ").split())
    return in_a_line(error)


def _register(hooks: pluggy.PluginManager, module: object, name: str) -> None:
    """Register one plugin and check it at once: only ``check_pending`` notices a misspelt hook."""
    if not is_name(name):
        raise PluginError(f"a plugin cannot be called {name!r}", RULE)
    if hooks.has_plugin(name):
        raise PluginError(f"a plugin named {name!r} is already loaded", "rename its entry point")
    try:
        hooks.register(module, name)
        hooks.check_pending()
    except pluggy.PluginValidationError as error:
        if hooks.has_plugin(name):  # pluggy stores a plugin before it validates it
            hooks.unregister(name=name)
        raise PluginError(
            str(error).replace("\n", " "), "compare it with pocketzoo/zoo/catalog/hookspecs.py"
        ) from error
    if not hooks.get_hookcallers(hooks.get_plugin(name)):
        hooks.unregister(name=name)
        raise PluginError(f"plugin {name!r} implements no hook", "mark its functions with @pocketzoo.hookimpl")
