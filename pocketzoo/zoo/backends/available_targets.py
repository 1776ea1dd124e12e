"""Which registered targets this machine can build for and run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pocketzoo.core.errors import PocketzooError
from pocketzoo.zoo.backends.onnxruntime.providers import available, package_of
from pocketzoo.zoo.backends.tensorrt.build_machine import check_machine, is_importable
from pocketzoo.zoo.backends.tensorrt.identify_gpu import Gpu, find_gpu
from pocketzoo.zoo.catalog.registry import Registry, default_registry
from pocketzoo.zoo.catalog.specs import TargetSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """One target, and what this machine can do for it."""

    target: TargetSpec
    builds: bool  # what the target runs can be made here
    runs: bool
    why: str = ""  # not
    fix: str = ""


def list_targets(registry: Registry | None = None) -> list[Here]:
    """All targets in the order of their names. Nothing heavy is imported but onnxruntime, for its providers."""
    entries = (registry or default_registry()).entries("target").values()
    gpu, providers = find_gpu(), available() if is_importable("onnxruntime") else []
    return [here(entry.spec, gpu, providers) for entry in entries]


def here(target: TargetSpec, gpu: Gpu | None, providers: Sequence[str]) -> Here:
    """What a machine with this GPU and these providers of onnxruntime can do for a target."""
    if target.engine:
        try:
            check_machine(target, gpu)
        except PocketzooError as error:
            return Here(target=target, builds=False, runs=False, why=error.message, fix=error.hint)
        if gpu is None:
            return Here(
                target=target, builds=True, runs=False, why="no GPU", fix="copy the engine to a machine with one"
            )
        return Here(target=target, builds=True, runs=True)
    if target.provider in providers:
        return Here(target=target, builds=True, runs=True)
    package = package_of(target.provider) or "onnxruntime"
    why = f"onnxruntime has no {target.provider}" if providers else "onnxruntime is not installed"
    return Here(target=target, builds=True, runs=False, why=why, fix=f"pip install {package}")
