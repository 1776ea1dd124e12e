"""Import late: optional packages, or an error that names the extra to install; and what is called by its name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

from pocketzoo.core.errors import MissingDependencyError
from pocketzoo.core.telemetry import switch_off

# Which extra brings a package; the empty one is the base install.
EXTRAS = {
    "torch": "compress",
    "onnx": "compress",
    "ml_dtypes": "compress",
    "onnxscript": "compress",
    "onnxruntime": "edge",
    "safetensors": "compress",
    "PIL": "data",
    "tokenizers": "text",
    "model_signing": "sign",
    "OpenSSL": "sign",
    "transformers": "transformers",
    "timm": "timm",
    "peft": "lora",
    "kornia": "augment",
    "tensorboard": "tensorboard",
    "gymnasium": "gym",
    "datasets": "datasets",
    "pyarrow": "datasets",
    "sklearn": "demo",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt-rtx",
    "numpy": "",
    "rich": "",
    "huggingface_hub": "",
}


def missing(error: BaseException | None) -> MissingDependencyError | None:
    """The error to show for a failed import of a package that an extra brings; None if ``error`` is something else.

    Heavy modules import their packages plainly at the top, so this is how the command line explains a missing one. The
    import may have failed inside a library that wraps it, so causes are looked at as well.
    """
    while error is not None:
        name = (error.name or "").split(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if name in EXTRAS:
            return not_installed(name)
        error = error.__cause__ or error.__context__
    return None


def require(module: str, *, extra: str | None = None) -> ModuleType:
    """Import ``module``, which ``extra`` brings; by default the one that ``EXTRAS`` says.

    Raises:
        MissingDependencyError: it is not installed; the hint is the line that installs it.
    """
    switch_off(module)
    try:
        return import_module(module)
    except ImportError as error:
        # A package that is there but broken says so itself; only a missing one is ours to explain.
        if error.name is None or error.name.split(".")[0] != module.split(".", maxsplit=1)[0]:
            raise
        raise not_installed(module, extra=extra) from error


def not_installed(module: str, *, extra: str | None = None) -> MissingDependencyError:
    """The error for a package that is not there, with the line that installs it; one of a plugin is its own line."""
    name = module.split(".", maxsplit=1)[0]
    if extra is None and name not in EXTRAS:
        package = name
    else:
        extra = EXTRAS[name] if extra is None else extra
        package = f"'pocketzoo[{extra}]'" if extra else "'pocketzoo'"
    return MissingDependencyError(
        f"this needs the package {module!r}, which is not installed", f"pip install {package}"
    )


def version_of_first(*distributions: str) -> str:
    """The version of the first of these distributions that is installed, unimported; "" where none is."""
    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""


@cache  # a spec is the same each time it is declared
def lazily(module: str, name: str) -> Callable[..., Any]:
    """A function that calls ``name`` of ``module``, which is imported then: specs name what they build or open."""

    def call(*arguments: Any) -> Any:
        return getattr(import_module(module), name)(*arguments)

    return call
