"""What cells of tables say: numbers, or that there is none."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.zoo.data.processors.table_cells import cell


@given(st.floats(allow_nan=False, width=32))
def test_a_number_is_itself_however_it_is_written(number):
    assert cell(number) == cell(repr(number)) == cell(f" {number!r} ") == number


@pytest.mark.parametrize("value", [None, "", "  ", "NA", "n/a", "NaN", "nan", "null", "None", "#N/A", float("nan")])
def test_what_says_that_there_is_none(value):
    assert math.isnan(cell(value))


@pytest.mark.parametrize("value", ["tall", "1,5", "1 2", "-", "0x10", b"", [1], {}, object(), 10**400])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match=r"number|float"):
        cell(value)
