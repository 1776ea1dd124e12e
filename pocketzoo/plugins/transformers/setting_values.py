"""Kinds of values that a repository's settings may have: each a function that says whether one is of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Fits = Callable[[Any], bool]
HINT = "choose another repository, or a copy of this one without it"


def whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def flag(value: Any) -> bool:
    return isinstance(value, bool)


def several(fits: Fits) -> Fits:
    return lambda value: isinstance(value, list | tuple) and all(map(fits, value))


def one_of(*words: str) -> Fits:
    return lambda value: isinstance(value, str) and value in words


def either(*kinds: Fits) -> Fits:
    return lambda value: any(fits(value) for fits in kinds)
