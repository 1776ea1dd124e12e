"""Make a package callable: ``pocketzoo.compress(...)`` works, and so does ``pocketzoo.compress.configs``.

Importing anything below ``pocketzoo.compress`` makes the import system bind that name to the package, whatever
``pocketzoo`` had there before, so a function of the same name would be there only until then.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


def make_callable(package: str, module: str, function: str) -> None:
    """Make calling ``package`` call ``module.function``, imported on the first call."""

    class Callable(ModuleType):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return getattr(import_module(module), function)(*args, **kwargs)

    sys.modules[package].__class__ = Callable
