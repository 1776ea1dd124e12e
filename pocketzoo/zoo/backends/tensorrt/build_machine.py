"""Whether this machine can build engines for a target, and the next step where it cannot."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from pocketzoo.core.errors import ExportError
from pocketzoo.core.optional import not_installed
from pocketzoo.zoo.backends.tensorrt.identify_gpu import Gpu
from pocketzoo.zoo.catalog.specs import TargetSpec

# Distributions that bring a module that builds engines.
_DISTRIBUTIONS = {
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11"),
    "tensorrt_rtx": ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx"),
}


def check_machine(target: TargetSpec, gpu: Gpu | None) -> None:
    """Raises:
    ExportError: this machine cannot build engines for the target; the hint says where they can be built.
    MissingDependencyError: the package that builds them is not installed.
    """
    graph = f"copy the bundle there: pocketzoo export BUNDLE --to tensorrt --target {target.name}; here --to onnx works"
    if not target.engine:
        raise ExportError(f"target {target.name!r} has no engines", "try --target tensorrt-rtx")
    if target.machine and platform.machine() != target.machine:
        raise ExportError(
            f"engines for it are built on the device ({target.machine}), this is {platform.machine()}", graph
        )
    if not is_importable(target.engine):
        raise not_installed(target.engine)
    installed = installed_version(target.engine)
    if target.versions and int(installed.partition(".")[0] or 0) not in target.versions:
        versions = " or ".join(map(str, target.versions))
        raise ExportError(
            f"target {target.name!r} wants {target.engine} {versions}, installed is {installed}",
            f"pip install '{target.engine}=={target.versions[-1]}.*', or use a target for {installed}",
        )
    if target.capability and gpu is not None and gpu.capability != target.capability:
        raise ExportError(
            f"engines for {target.name} are built on compute capability {target.capability}, this is {gpu}", graph
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
    return "" if has >= least else f"fp8 needs compute capability {target.fp8.capability}, this is {gpu}"


def installed_version(module: str) -> str:
    """Of a module that builds engines, without importing it where its distribution says so."""
    for name in _DISTRIBUTIONS.get(module, (module,)):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return str(__import__(module).__version__)


def is_importable(module: str) -> bool:
    """Whether there is such a module; it is not imported."""
    try:
        return find_spec(module) is not None
    except ImportError:  # of the package it is in
        return False
