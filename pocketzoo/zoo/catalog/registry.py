"""The registry: specs by kind and name, globs, duplicates. Plugins are asked once per kind, on first use."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

from pocketzoo.core.errors import DuplicateNameError, PluginError, UnknownNameError, nearest
from pocketzoo.core.names import RULE, is_name
from pocketzoo.zoo.catalog import specs
from pocketzoo.zoo.catalog.glob_index import Names
from pocketzoo.zoo.catalog.kinds import KINDS
from pocketzoo.zoo.catalog.plugin_manager import BUILT_IN, TURNED_OFF, Plugin, PluginManager, create_manager, why
from pocketzoo.zoo.catalog.spec_fields import check_spec

LONGEST, SAID = 200, 3  # characters of a reason, and plugins, that a hint has
MANY = 1000  # specs of a plugin: what is within more of them is looked at only when one is asked for


class Entry(NamedTuple):  # a dataclass of 10,000 takes three times as long to make
    """A spec and the plugin that declared it."""

    kind: str
    name: str
    spec: Any
    plugin: str


class _Declared(NamedTuple):
    """What the plugins declare of one kind."""

    entries: Mapping[str, Entry]  # by name, sorted
    failed: Mapping[str, tuple[str, ...]]  # plugin -> why its hook, or specs of it, were left out


@dataclass(frozen=True, slots=True, eq=False)
class Registry:
    """All specs that the plugins of one manager declare: facts that do not change, and no input or output.

    What a reference to the Hub stands for is not known here: a ``zoo.models.resolver.Resolver`` finds it.
    """

    manager: PluginManager
    # A plugin is asked once per kind, when that kind is first looked at, and its answer is kept.
    _kinds: dict[str, _Declared] = field(default_factory=dict, init=False, repr=False)
    _names: dict[str, Names] = field(default_factory=dict, init=False, repr=False)

    def entries(self, kind: str) -> Mapping[str, Entry]:
        """All specs of one kind by name, sorted; read-only.

        Raises:
            DuplicateNameError: two plugins declare one name.
        """
        return self._declared(kind).entries

    def _declared(self, kind: str) -> _Declared:
        if kind not in KINDS:
            raise UnknownNameError(f"there is no kind {kind!r}", nearest(kind, KINDS))
        if kind not in self._kinds:
            self._kinds[kind] = _collect(kind, self.manager)
        return self._kinds[kind]

    def get(self, kind: str, name: str) -> Any:
        """The spec called ``name``.

        Raises:
            UnknownNameError: there is none; the hint is the nearest name.
        """
        return self.entry(kind, name).spec

    def entry(self, kind: str, name: str) -> Entry:
        """What is called ``name``. Repositories of the Hub are found by ``zoo.models.resolver``.

        Raises:
            UnknownNameError: there is none; the hint is the nearest name.
        """
        entries = self.entries(kind)
        if name not in entries:
            raise UnknownNameError(f"no {kind} is called {name!r}", self.hint(nearest(name, entries), kind))
        if len(entries) > MANY:
            check_spec(entries[name].spec)
        return entries[name]

    def hint(self, hint: str, *kinds: str) -> str:
        """A hint for who lacks something of these kinds, with the plugins that might declare it, were they in use.

        Of each that is broken, or whose hook is, it says why.
        """
        reasons = {plugin.name: plugin.reason for plugin in self.manager.plugins if plugin.reason}
        broken = {name: reason for name, reason in reasons.items() if reason != TURNED_OFF}
        for kind in kinds:
            failed = self._declared(kind).failed
            broken |= {name: _shortened(reasons) for name, reasons in failed.items() if name not in broken}
        if not broken:
            return hint
        said = [f"{name} ({reason[:LONGEST]}{'...' * (len(reason) > LONGEST)})" for name, reason in broken.items()]
        more = f" and {len(said) - SAID} more" if len(said) > SAID else ""
        return "; ".join(filter(None, [hint, f"not in use: {', '.join(said[:SAID])}{more} (see pocketzoo plugins)"]))

    def why_not_in_use(self, distribution: str) -> str:
        """Why a distribution that is installed declares nothing; "" where it is not installed, or in use."""
        for plugin in self.plugins():
            if plugin.reason and distribution in (plugin.name, plugin.origin.rpartition(" ")[0]):
                return f"its plugin {plugin.name} is not in use: {plugin.reason}"
        return ""

    def find(self, pattern: str = "*", kind: str | None = None) -> Iterator[Entry]:
        """Entries whose name matches a glob, over one kind or all of them."""
        for each in KINDS if kind is None else [kind]:
            entries = self.entries(each)
            if each not in self._names:
                self._names[each] = Names(entries)
            yield from map(entries.__getitem__, self._names[each].matching(pattern))

    def plugins(self) -> tuple[Plugin, ...]:
        """Every plugin that was found, with the reasons where it, or a part of it, cannot be used. Asks all hooks."""
        failed: dict[str, list[str]] = {}
        used: set[str] = set()
        for kind in KINDS:
            try:
                declared = self._declared(kind)
            except DuplicateNameError as error:  # who looks for the reason gets it
                failed.setdefault(error.plugin, []).append(why(error))
                continue
            used |= {entry.plugin for entry in declared.entries.values()}
            for name, reasons in declared.failed.items():
                failed.setdefault(name, []).extend(reasons)
        return tuple(
            p if p.reason else replace(p, reason=" | ".join(failed.get(p.name, ())), partly=p.name in {*failed} & used)
            for p in self.manager.plugins
        )


def _collect(kind: str, manager: PluginManager) -> _Declared:
    entries: dict[str, Entry] = {}
    spelled: dict[str, str] = {}  # a name in lower case -> as it is: some file systems do not tell them apart
    failed: dict[str, tuple[str, ...]] = {}
    types = _types(kind)
    # Asked one by one, in the order they were loaded, so that each spec is known by its plugin.
    for hook in getattr(manager.hooks.hook, _hook(kind)).get_hookimpls():
        plugin, reasons = hook.plugin_name, []
        try:
            declared = list(hook.function())
        except (Exception, SystemExit) as error:  # a broken plugin is reported, not fatal
            declared, reasons = [], [why(error)]
        deep = len(declared) <= MANY
        for spec in declared:
            try:
                name = _checked(kind, spec, types, deep=deep).name
            except (Exception, SystemExit) as error:  # what else the plugin declares may be fine
                reasons.append(why(error))
                continue
            if (other := spelled.setdefault(name.lower(), name)) in entries:
                raise _duplicate(kind, name, entries[other], plugin)
            entries[name] = Entry(kind, name, spec, plugin)
        if reasons:
            failed[plugin] = tuple(f"{_hook(kind)}: {reason}" for reason in reasons)
    return _Declared(MappingProxyType({name: entries[name] for name in sorted(entries)}), failed)


def _shortened(reasons: tuple[str, ...]) -> str:
    return reasons[0] + (f" | and {len(reasons) - 1} more" if len(reasons) > 1 else "")


def _duplicate(kind: str, name: str, first: Entry, plugin: str) -> DuplicateNameError:
    shown = f"{kind} {name!r}" if name == first.name else f"{kind} {name!r}, but for its case {first.name!r},"
    if first.plugin == plugin:
        error = DuplicateNameError(f"{shown} is declared twice by {plugin}", "rename one of them")
    else:
        which = plugin if first.plugin in BUILT_IN else "one of them"
        error = DuplicateNameError(
            f"{shown} is declared by two plugins: {first.plugin} and {plugin}",
            f"uninstall {which}, or leave it out with POCKETZOO_PLUGINS",
        )
    error.plugin = plugin
    return error


def _types(kind: str) -> tuple[type[Any], ...]:
    from pocketzoo.zoo.catalog.backend import BackendSpec
    from pocketzoo.zoo.catalog.compressor import GraphCompressor, ModuleCompressor
    from pocketzoo.zoo.catalog.processor import ProcessorSpec
    from pocketzoo.zoo.catalog.task import DecoderSpec, TaskSpec

    return {
        "backbone": (specs.BackboneSpec,),
        "head": (specs.HeadSpec,),
        "compressor": (ModuleCompressor, GraphCompressor),
        "exporter": (specs.ExporterSpec,),
        "target": (specs.TargetSpec,),
        "dataset": (specs.DatasetSpec,),
        "loader": (specs.LoaderSpec,),
        "task": (TaskSpec,),
        "decoder": (DecoderSpec,),
        "processor": (ProcessorSpec,),
        "backend": (BackendSpec,),
    }[kind]


def _checked(kind: str, spec: Any, types: tuple[type[Any], ...], *, deep: bool) -> Any:
    """The spec itself, if it is one of its kind and has a name that can be part of a file's."""
    if not isinstance(spec, types):
        wanted = " or ".join(each.__name__ for each in types)
        name = getattr(spec, "name", None)
        shown = f"{type(spec).__name__} {name!r}" if isinstance(name, str) else reprlib.repr(spec)
        raise PluginError(f"{shown} is not a {wanted}", f"return instances of {wanted}")
    if not is_name(spec.name):
        raise PluginError(f"a {kind} cannot be called {spec.name!r}", RULE)
    check_spec(spec, deep=deep)
    return spec


def _hook(kind: str) -> str:
    return f"pocketzoo_{kind}s"


@cache
def default_registry() -> Registry:
    """The registry of this environment: built-in and installed plugins."""
    return Registry(create_manager())


def list_specs(pattern: str = "*", kind: str | None = None, registry: Registry | None = None) -> list[Entry]:
    """Registered specs whose name matches a glob, of one kind or all."""
    return list((registry or default_registry()).find(pattern, kind))


def list_plugins(registry: Registry | None = None) -> tuple[Plugin, ...]:
    """Every plugin that was found, with the reason where one cannot be used."""
    return (registry or default_registry()).plugins()
