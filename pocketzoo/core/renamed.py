"""Names of the previous release that still work in this one: each is read as its new name, with a warning.

The command line shows the warning as one line on stderr. Bundles are not users: what an old one says is converted
without a word (``zoo/bundles/format_1.py``).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import wraps
from typing import Any, TypeVar, cast

from pocketzoo.core.errors import RecipeError

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])


class RenamedWarning(FutureWarning):
    """A name of the previous release was used; the next one will not know it."""


def warn_renamed(old: str, new: str, stacklevel: int = 2) -> None:
    """Say that ``old`` is called ``new`` now."""
    text = f"{old!r} was renamed to {new!r}; the old name works in this release only"
    warnings.warn(text, RenamedWarning, stacklevel=stacklevel + 1)


def renamed(**names: str) -> Callable[[C], C]:
    """Decorate a dataclass whose fields were renamed, ``old="new"``: the constructor and attributes take both.

    ``core.typed`` reads both as well, so that recipes and options of the previous release keep working.
    """

    def decorate(cls: C) -> C:
        construct = cls.__init__  # type: ignore[misc]

        @wraps(construct)
        def init(self: object, *args: Any, **values: Any) -> None:
            construct(self, *args, **with_new_names(cls, values))

        def alias(old: str, new: str) -> property:
            def read(self: object) -> Any:
                warn_renamed(old, new)
                return getattr(self, new)

            return property(read, doc=f"The former name of ``{new}``.")

        cls.__init__ = init  # type: ignore[misc]
        setattr(cls, "RENAMED", names)  # noqa: B010 - mypy knows no such attribute of a type
        for old, new in names.items():
            setattr(cls, old, alias(old, new))
        return cls

    return decorate


class ReadByKey:
    """A frozen record that was a plain mapping in the previous release: ``row["bytes"]`` reads ``row.bytes``."""

    __slots__ = ()

    def __getitem__(self, name: str) -> Any:
        if name not in self.keys():
            raise KeyError(name)
        warn_renamed(f"{type(self).__name__}[{name!r}]", f"{type(self).__name__}.{name}")
        return getattr(self, name)

    def get(self, name: str, default: Any = None) -> Any:
        """As of a mapping."""
        return self[name] if name in self.keys() else default

    def keys(self) -> list[str]:
        """The names of its fields."""
        return [field.name for field in fields(self)]  # type: ignore[arg-type]


def keywords_renamed(**names: str) -> Callable[[F], F]:
    """Decorate a function whose arguments were renamed, ``old="new"``: by keyword it takes both."""

    def decorate(function: F) -> F:
        @wraps(function)
        def call(*args: Any, **keywords: Any) -> Any:
            for old in names.keys() & keywords.keys():
                if names[old] in keywords:
                    raise TypeError(
                        f"{function.__name__}() got {old!r} and {names[old]!r}, which are the same argument"
                    )
                warn_renamed(old, names[old])
                keywords[names[old]] = keywords.pop(old)
            return function(*args, **keywords)

        return cast("F", call)

    return decorate


def with_new_names(cls: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """Fields for ``cls`` by their new names.

    Raises:
        RecipeError: a field is given by both its names.
    """
    names: Mapping[str, str] = getattr(cls, "RENAMED", {})
    known = dict(data)
    for old in names.keys() & data.keys():
        if names[old] in data:
            raise RecipeError(f"{old!r} and {names[old]!r} are the same field", f"leave out {old!r}")
        warn_renamed(old, names[old], stacklevel=3)
        known[names[old]] = known.pop(old)
    return known
