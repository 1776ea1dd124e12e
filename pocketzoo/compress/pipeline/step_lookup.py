"""Which compressor takes a step: the one that it names; for a bare config, the one that alone declares its type."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import is_dataclass
from typing import Any

from pocketzoo.core.errors import RecipeError
from pocketzoo.zoo.bundles.saved_plans import of_plugin
from pocketzoo.zoo.catalog.compressor import Compressor, Step
from pocketzoo.zoo.catalog.described import provider
from pocketzoo.zoo.catalog.registry import Registry


def compressors_of(steps: Iterable[Any], registry: Registry) -> tuple[tuple[Compressor, Any], ...]:
    """The compressor and the config of each step: ``Step``, or a bare config.

    Raises:
        UnknownNameError: no compressor is called as a step says.
        RecipeError: the config is not one of that compressor, or a bare one is of none or of several.
    """
    pairs = [_named(step, registry) if isinstance(step, Step) else _of_type(step, registry) for step in steps]
    return tuple((of_plugin(c, provider("compressor", c.name, registry)), config) for c, config in pairs)


def _named(step: Step, registry: Registry) -> tuple[Compressor, Any]:
    compressor: Compressor = registry.get("compressor", step.compressor)
    if step.config is None:
        return compressor, compressor.config()
    if not isinstance(step.config, compressor.config):
        raise RecipeError(
            f"{step.compressor} takes a {compressor.config.__name__}, not {_shown(step.config)}",
            f"write Step({step.compressor!r}, {compressor.config.__name__}(...))",
        )
    return compressor, step.config


def _of_type(config: Any, registry: Registry) -> tuple[Compressor, Any]:
    known = [entry.spec for entry in registry.entries("compressor").values()]
    declared: list[Compressor] = [spec for spec in known if spec.config is type(config)]
    if len(declared) == 1:
        return declared[0], config
    kind = type(config).__name__
    if declared:
        names = " and ".join(compressor.name for compressor in declared)
        raise RecipeError(
            f"{kind} is the config of several compressors: {names}",
            "say which: " + " or ".join(f"Step({c.name!r}, {kind}(...))" for c in declared),
        )
    if isinstance(config, type) and any(spec.config is config for spec in known):
        raise RecipeError(f"{config.__name__} is a class, not a config", f"write {config.__name__}()")
    related = [spec.name for spec in known if isinstance(config, spec.config)]
    hint = f"or, if it is meant for {related[0]}: Step({related[0]!r}, {kind}(...))" if related else ""
    raise RecipeError(
        f"no compressor is configured by {kind}",
        registry.hint(f"use the config class of a registered one {hint}".strip(), "compressor"),
    )


def _shown(config: Any) -> str:
    return f"a {type(config).__name__}" if is_dataclass(config) and not isinstance(config, type) else repr(config)
