"""The plans that a bundle saved, and who reads them: the compressor by its name, in a version that knows the plan."""

from __future__ import annotations

from typing import Any

from pocketzoo.core.errors import MissingPluginError, UnknownNameError
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.bundles.step_record import StepRecord
from pocketzoo.zoo.catalog.compressor import Compressor
from pocketzoo.zoo.catalog.described import SHIPS, how_to_install, missing, provider
from pocketzoo.zoo.catalog.registry import Registry


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
    if step.plan_version > compressor.plan_version:
        here = provider("compressor", name, registry)
        raise MissingPluginError(
            f"the plan of step {name!r} has version {step.plan_version}, {here} reads {compressor.plan_version}",
            how_to_install(step.provider or SHIPS),
        )
    return compressor


def saved_plan(bundle: Bundle, step: StepRecord, compressor: Compressor, graph: str = "") -> Any:
    """The plan of a step, or the one it has for another graph of the model, with its tensors.

    Raises:
        RecipeError: it is not a plan of this compressor.
        BundleError: the bundle lacks its tensors.
    """
    tensors = None
    if file := step.tensors.get(graph):
        from safetensors.numpy import load_file  # most plans have no tensors

        tensors = load_file(bundle.file(file))
    return compressor.read_plan(step.graphs[graph] if graph else step.plan, tensors, step.plan_version)
