"""What a bundle keeps of a thing that a plugin brought: its name, its config, and the package to install for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pocketzoo.core.errors import MissingPluginError, RecipeError, UnknownNameError
from pocketzoo.core.typed import from_plain, to_plain

if TYPE_CHECKING:  # a manifest has such, and is read without plugins
    from pocketzoo.zoo.catalog.registry import Registry

SHIPS = "pocketzoo"  # the provider of what ships


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A processor, decoder or compressor by its name, with the config of one model, and who provides it."""

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)  # plain data
    provider: str = ""  # distribution and version: "pocketzoo-audio 1.2.0"; "" where nobody noted it


def describe(kind: str, name: str, config: Any, registry: Registry) -> Described:
    """A registered thing with a config, as a bundle keeps it.

    Raises:
        UnknownNameError: none is called so.
    """
    return Described(
        name=name, config={} if config is None else to_plain(config), provider=provider(kind, name, registry)
    )


def provider(kind: str, name: str, registry: Registry) -> str:
    """The distribution and version that declares something: "pocketzoo" for what ships."""
    plugin = registry.entry(kind, name).plugin
    origin = next((each.origin for each in registry.manager.plugins if each.name == plugin), SHIPS)
    return origin if " " in origin or origin == SHIPS else plugin  # of a module that was given, its name


def spec_of(described: Described, kind: str, registry: Registry) -> tuple[Any, Any]:
    """The spec of what was described, and its config; None where it has none.

    What a bundle of before did not name is of the first spec whose ``earlier`` reads its config.

    Raises:
        MissingPluginError: no plugin here declares it, or another version that does not read its config.
    """
    if not described.name:
        return _earlier(described, kind, registry)
    try:
        spec = registry.get(kind, described.name)
    except UnknownNameError as error:
        raise missing(kind, described.name, described.provider, registry, error.hint) from error
    if spec.config is None:
        return spec, None
    try:
        return spec, from_plain(spec.config, described.config)
    except RecipeError as error:
        here = provider(kind, described.name, registry)
        if here == described.provider or not described.provider:
            raise
        raise MissingPluginError(
            f"the {kind} {described.name!r} of {here} does not read what {described.provider} wrote: {error.message}",
            how_to_install(described.provider),
        ) from error


def _earlier(described: Described, kind: str, registry: Registry) -> tuple[Any, Any]:
    for entry in registry.entries(kind).values():
        earlier = getattr(entry.spec, "earlier", None)
        if callable(earlier) and (config := earlier(described.config)) is not None:
            return entry.spec, config
    raise MissingPluginError(
        f"no {kind} here reads {', '.join(described.config) or 'nothing'}, and it has no name",
        registry.hint("pip install --upgrade pocketzoo", kind),
    )


def missing(kind: str, name: str, wrote: str, registry: Registry, hint: str = "") -> MissingPluginError:
    """The error for something that a bundle needs and no plugin here declares; ``wrote`` is as ``provider``."""
    if not wrote or wrote == SHIPS:
        upgrade = registry.hint(how_to_install(wrote), kind) if wrote else hint or "install the plugin that declares it"
        return MissingPluginError(f"no {kind} is called {name!r} here", upgrade)
    if why := registry.why_not_in_use(wrote.rpartition(" ")[0] or wrote):
        return MissingPluginError(
            f"the {kind} {name!r} is of {wrote}, and {why}", f"mend that, or: {how_to_install(wrote)}"
        )
    return MissingPluginError(f"the {kind} {name!r} is of {wrote}, which is not installed", how_to_install(wrote))


def how_to_install(wrote: str) -> str:
    """The command that installs what ``provider`` names, in the version that wrote a bundle."""
    name, _, version = wrote.partition(" ")
    if name == SHIPS:
        return "pip install --upgrade pocketzoo"
    return f"pip install '{name}=={version}'" if version else f"install the plugin {name}"
