"""onnxruntime's execution providers: which are available, and which package brings each."""

from __future__ import annotations

from pocketzoo.core.errors import DataError, MissingDependencyError, nearest
from pocketzoo.core.optional import require

CPU = "CPUExecutionProvider"
# What a user calls a provider -> onnxruntime's name for it, and the package that has it.
PROVIDERS = {
    "cpu": (CPU, "onnxruntime"),
    "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
    "tensorrt": ("TensorrtExecutionProvider", "onnxruntime-gpu"),
    "openvino": ("OpenVINOExecutionProvider", "onnxruntime-openvino"),
}


def installed_providers() -> list[str]:
    """The providers of this onnxruntime that pocketzoo knows, by their short names; "cpu" is always one of them.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
    """
    there = available()
    return [short for short, (name, _) in PROVIDERS.items() if name in there]


def provider_name(provider: str) -> str:
    """onnxruntime's name of a provider that is installed here, given by its short name or that one.

    Raises:
        DataError: no such provider.
        MissingDependencyError: this onnxruntime does not have it; the hint says which does, and what runs here.
    """
    name, package = PROVIDERS.get(provider, (provider, ""))
    there = available()
    if name in there:
        return name
    package = package or package_of(name)
    if not package:
        raise DataError(f"there is no provider {provider!r}", nearest(provider, PROVIDERS))
    here = ", ".join(installed_providers())
    raise MissingDependencyError(f"onnxruntime has no {name} here", f"pip install {package}; without it runs: {here}")


def available() -> list[str]:
    """onnxruntime's own names of the providers it has here.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
    """
    return list(require("onnxruntime", extra="edge").get_available_providers())


def package_of(name: str) -> str:
    """The package that brings a provider, by onnxruntime's name for it; "" for one that pocketzoo does not know."""
    return next((package for full, package in PROVIDERS.values() if full == name), "")
