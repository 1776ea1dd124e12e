"""The plans that a bundle saved, and who reads them: the compressor by its name, in a version that knows the plan."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from typing import Any

from pocketzoo.core.errors import MissingPluginError, RecipeError, UnknownNameError, guarded
from pocketzoo.core.optional import version_of_first
from pocketzoo.core.reading.tensor_files import read_arrays
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.bundles.step_record import StepRecord
from pocketzoo.zoo.catalog.compressor import Compressor
from pocketzoo.zoo.catalog.described import SHIPS, how_to_install, missing, provider
from pocketzoo.zoo.catalog.registry import Registry

DAMAGED = "the manifest was changed, or is damaged: compress the model again"


def find_compressor(step: StepRecord, registry: Registry) -> Compressor:
    """The compressor that took a step, if it reads the version of its plan.

    Raises:
        MissingPluginError: no plugin here declares it, or one that is older than the plan.
    """
    name = step.compressor
    try:
        compressor: Compressor = registry.get("compressor", name)
    except UnknownNameError as error:
        raise missing("compressor", name, step.provider, registry, error.hint) from error
    here = provider("compressor", name, registry)
    older = step.plan_version < compressor.plan_version and compressor.upgrade is None
    if older or step.plan_version > compressor.plan_version:
        raise MissingPluginError(
            f"the plan of step {name!r} is {step.provider or SHIPS}'s, of version {step.plan_version}; "
            f"{here} reads version {compressor.plan_version}",
            how_to_install(step.provider or SHIPS) if step.provider != here else DAMAGED,
        )
    return of_plugin(compressor, here)


def saved_plan(bundle: Bundle, step: StepRecord, compressor: Compressor, graph: str = "") -> Any:
    """The plan of a step, or the one it has for another graph of the model, with its tensors.

    Raises:
        MissingPluginError: the version of its plugin that is installed does not read it.
        RecipeError: it is not a plan of this compressor, though of the same version.
        PluginError: the plugin fails at it.
        BundleError: the bundle lacks its tensors.
    """
    tensors = None
    if file := step.tensors.get(graph):
        tensors = read_arrays(bundle.file(file))
    try:
        return compressor.read_plan(step.graphs[graph] if graph else step.plan, tensors, step.plan_version)
    except RecipeError as error:
        name, _, written = step.provider.partition(" ")
        installed = version_of_first(name) or "of unknown version"
        if not written or installed == written:
            raise
        here = f"{name} {installed}"
        raise MissingPluginError(
            f"the plan of step {step.compressor!r} is {step.provider}'s, and {here} does not read it: {error.message}",
            how_to_install(step.provider),
        ) from error


def of_plugin(compressor: Compressor, owner: str) -> Compressor:
    """A compressor whose functions name its plugin (``described.provider``) where they fail; one that ships stays."""
    if owner == SHIPS:
        return compressor
    functions = {
        f.name: getattr(compressor, f.name) for f in fields(compressor) if f.name not in ("config", "plan_type")
    }
    named: dict[str, Any] = {
        name: partial(guarded, f"{name} of the compressor {compressor.name!r} of {owner}", function)
        for name, function in functions.items()
        if callable(function)
    }
    return replace(compressor, **named)
