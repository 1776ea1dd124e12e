"""Import a package that only an extra brings, or say which extra that is."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from pocketzoo.errors import MissingDependencyError


def require(module: str, *, extra: str) -> ModuleType:
    """Import ``module``.

    Raises:
        MissingDependencyError: it is not installed; the hint is the line that installs it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        # A package that is there but broken says so itself; only a missing one is ours to explain.
        if error.name is None or error.name.split(".")[0] != module.split(".", maxsplit=1)[0]:
            raise
        raise MissingDependencyError(
            f"this needs the package {module!r}, which is not installed",
            f"pip install 'pocketzoo[{extra}]'",
        ) from error
