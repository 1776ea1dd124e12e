"""What a cell of a table says: a number, or that there is none."""

from __future__ import annotations

import math
from typing import Any

# What programs write for a value that is not there: spreadsheets, R, pandas, SQL.
LACKING = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none"})

LARGEST = 3.4028234e38  # that float32 holds


def cell(value: Any) -> float:
    """The number that a cell holds; NaN where it is empty, or says that the value is missing.

    Raises:
        ValueError: it holds something else.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in LACKING):
        return math.nan
    try:
        if isinstance(value, str) and "_" in value:  # 1_000, as Python writes it, and no table
            raise TypeError
        number = float(value)
    except (TypeError, OverflowError) as error:  # OverflowError: a whole number of more than 308 digits
        raise ValueError(f"{value!r} is not a number") from error
    if math.isfinite(number) and abs(number) > LARGEST:
        raise ValueError(f"{value!r} is not a number that float32 holds")
    return number


def is_number(value: Any) -> bool:
    """Whether a cell holds a number, or says that there is none."""
    try:
        return not math.isinf(cell(value))
    except ValueError:
        return False
