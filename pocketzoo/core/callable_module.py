"""Make a package callable: ``pocketzoo.compress(...)`` works, and so does ``pocketzoo.compress.configs``.

Importing anything below ``pocketzoo.compress`` makes the import system bind that name to the package, whatever
``pocketzoo`` had there before, so a function of the same name would be there only until then.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspect import Signature


def make_callable(package: str, module: str, function: str) -> None:
    """Make calling ``package`` call ``module.function``, whose signature and docstring it has too.

    The module is imported when one of the three is first asked for.
    """

    def find() -> Any:
        return getattr(import_module(module), function)

    class Callable(ModuleType):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return find()(*args, **kwargs)

        @property
        def __signature__(self) -> Signature:
            from inspect import signature  # not needed for a call

            return signature(find())

        @property
        def __doc__(self) -> str | None:  # type: ignore[override]
            text: str | None = find().__doc__
            return text

    sys.modules[package].__class__ = Callable
