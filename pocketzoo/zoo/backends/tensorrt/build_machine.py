"""Whether this machine can build engines for a target, and the next step where it cannot."""

from __future__ import annotations

import platform
from importlib.util import find_spec

from pocketzoo.core.errors import ExportError
from pocketzoo.core.optional import not_installed, version_of_first
from pocketzoo.zoo.backends.tensorrt.facts import NvidiaFacts, facts_of
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
    facts = facts_of(target)
    if facts.machine and platform.machine() != facts.machine:
        raise ExportError(
            f"engines for it are built on the device ({facts.machine}), this is {platform.machine()}", graph
        )
    if not is_importable(facts.module):
        raise not_installed(facts.module)
    installed = installed_version(facts.module)
    if facts.versions and int(installed.partition(".")[0] or 0) not in facts.versions:
        versions = " or ".join(map(str, facts.versions))
        raise ExportError(
            f"target {target.name!r} wants {facts.module} {versions}, installed is {installed}",
            f"pip install '{facts.module}=={facts.versions[-1]}.*', or use a target for {installed}",
        )
    if facts.capability and gpu is not None and gpu.capability != facts.capability:
        raise ExportError(
            f"engines for {target.name} are built on compute capability {facts.capability}, this is {gpu}", graph
        )
    if gpu is None and facts.module == "tensorrt":
        raise ExportError(
            f"{facts.module} builds on the GPU it will run on, and none is found here",
            "check the driver with nvidia-smi; --to tensorrt-rtx builds without a GPU",
        )


def lacks_fp8(target: TargetSpec, gpu: Gpu | None) -> str:
    """Why an engine of a graph in fp8 cannot be built on this GPU; "" where it can, or is built for others too."""
    facts = target.facts
    if target.fp8 is None or gpu is None or not isinstance(facts, NvidiaFacts):
        return ""
    if facts.module != "tensorrt" or facts.machine:
        return ""
    least, has = (tuple(map(int, each.split("."))) for each in (facts.fp8_capability, gpu.capability))
    return "" if has >= least else f"fp8 needs compute capability {facts.fp8_capability}, this is {gpu}"


def installed_version(module: str) -> str:
    """Of a module that builds engines, without importing it where its distribution says so."""
    return version_of_first(*_DISTRIBUTIONS.get(module, (module,))) or str(__import__(module).__version__)


def is_importable(module: str) -> bool:
    """Whether there is such a module; it is not imported."""
    try:
        return find_spec(module) is not None
    except ImportError:  # of the package it is in
        return False
