"""What of the registered targets this machine can build for and run."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from pocketzoo.errors import ExportError, PocketzooError
from pocketzoo.optional import not_installed
from pocketzoo.zoo.gpu import Gpu, find_gpu
from pocketzoo.zoo.providers import available, package_of
from pocketzoo.zoo.registry import Registry, default_registry
from pocketzoo.zoo.specs import TargetSpec

# Distributions that bring a module that builds engines.
_DISTRIBUTIONS = {
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11"),
    "tensorrt_rtx": ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx"),
}


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
    gpu, providers = find_gpu(), available() if _found("onnxruntime") else []
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


def check_machine(target: TargetSpec, gpu: Gpu | None) -> None:
    """Raises:
    ExportError: this machine cannot build engines for the target; the hint says where they can be built.
    MissingDependencyError: the package that builds them is not installed.
    """
    graph = f"take the bundle there: pocketzoo export BUNDLE --to tensorrt --target {target.name}; here --to onnx works"
    if not target.engine:
        raise ExportError(f"target {target.name!r} has no engines", "try --target tensorrt-rtx")
    if target.machine and platform.machine() != target.machine:
        raise ExportError(
            f"engines for it are built on the device ({target.machine}), this is {platform.machine()}", graph
        )
    if not _found(target.engine):
        raise not_installed(target.engine)
    installed = installed_version(target.engine)
    if target.versions and int(installed.partition(".")[0] or 0) not in target.versions:
        wanted = " or ".join(map(str, target.versions))
        raise ExportError(
            f"target {target.name!r} wants {target.engine} {wanted}, here is {installed}",
            f"pip install '{target.engine}=={target.versions[-1]}.*', or take a target for {installed}",
        )
    if target.capability and gpu is not None and gpu.capability != target.capability:
        raise ExportError(
            f"engines for {target.name} are built on compute capability {target.capability}, here is {gpu}", graph
        )
    if gpu is None and target.engine == "tensorrt":
        raise ExportError(
            f"{target.engine} builds on the GPU it will run on, and none is found here",
            "check the driver with nvidia-smi; --to tensorrt-rtx builds without a GPU",
        )


def lacks_fp8(target: TargetSpec, gpu: Gpu | None) -> str:
    """Why an engine of a graph in fp8 cannot be built on this GPU; "" where it can, or is built for others too."""
    if target.fp8 is None or gpu is None or target.engine != "tensorrt" or target.machine:
        return ""
    least, has = (tuple(map(int, each.split("."))) for each in (target.fp8.capability, gpu.capability))
    return "" if has >= least else f"fp8 wants compute capability {target.fp8.capability}, here is {gpu}"


def installed_version(module: str) -> str:
    """Of a module that builds engines, without importing it where its distribution says so."""
    for name in _DISTRIBUTIONS.get(module, (module,)):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return str(__import__(module).__version__)


def _found(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:  # of the package it is in
        return False
