"""Hold the numbers of a settings class to their ranges: just inside works, just outside is refused."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

import pytest

from pocketzoo.core.errors import RecipeError

Table = Mapping[str, tuple[Any, str]]  # field -> its default, and its range as "[1, inf)"


def check_ranges(
    cls: type, table: Table, base: Mapping[str, Any], needs: Mapping[str, Mapping[str, Any]], free: Collection[str] = ()
) -> None:
    """``base`` is the least that the class asks for, ``needs`` what goes with a field; ``free`` have no range."""
    default = cls(**base)
    numbers = {
        f.name
        for f in fields(cls)
        if any(word in str(f.type) for word in ("int", "float")) and "tuple" not in str(f.type)
    }
    assert set(table) | set(free) == numbers
    for name, (value, interval) in table.items():
        if name not in base:
            assert getattr(default, name) == value, f"the default of {name}"
        whole = "int" in str(next(f.type for f in fields(cls) if f.name == name))
        others = {**base, **needs.get(name, {})}
        low, high = (float(end) for end in interval[1:-1].split(", "))
        for end, closed, outside in ((low, interval[0] == "[", -math.inf), (high, interval[-1] == "]", math.inf)):
            if math.isinf(end):
                refuse(cls, others, name, end, skip=whole)
                continue
            inside = end - math.copysign(1, outside) if whole else math.nextafter(end, -outside)
            beyond = end + math.copysign(1, outside) if whole else math.nextafter(end, outside)
            as_said = int if whole else float
            cls(**{**others, name: as_said(inside)})
            refuse(cls, others, name, as_said(beyond))
            if closed:
                cls(**{**others, name: as_said(end)})
            else:
                refuse(cls, others, name, as_said(end))
        refuse(cls, others, name, math.nan)


def refuse(cls: type, others: Mapping[str, Any], name: str, value: float, *, skip: bool = False) -> None:
    """``skip`` for what is no value of that field: an infinite integer."""
    if not skip:
        with pytest.raises(RecipeError, match=name) as error:
            cls(**{**others, name: value})
        assert error.value.hint
