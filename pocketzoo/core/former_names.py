"""How a module finds names of the last release: the table (``moved.py``) is loaded when one is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def names_before(module: str) -> Callable[[str], Any]:
    """``__getattr__`` of a module: for names that it, or the module whose place it took, had in the last release."""

    def find(name: str) -> Any:
        if name.startswith("__") and name != "__all__":  # the import system asks every module for __path__
            raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name)
        from pocketzoo.core.moved import former_name  # start-up must not wait for a table that few need

        return former_name(module, name)

    return find
