from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.reports.measured.number_format import (
    Number,
    decimals,
    kilobytes,
    milliseconds,
    percent,
    plain,
    points,
    short,
    times,
)


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (short(0), "0"),
        (short(999), "999"),
        (short(999.6), "1.00 k"),
        (short(3_520), "3.52 k"),
        (short(367_338), "367 k"),
        (short(999_999), "1.00 M"),
        (short(37_160_448), "37.2 M"),
        (short(4_089_184_256), "4.09 G"),
        (kilobytes(312), "0.3 KB"),
        (kilobytes(99_949), "99.9 KB"),
        (kilobytes(99_951), "100 KB"),
        (kilobytes(1_513_487), "1,513 KB"),
        (milliseconds(0.0126), "0.013 ms"),
        (milliseconds(0.7687), "0.77 ms"),
        (milliseconds(20.13), "20.1 ms"),
        (milliseconds(1234.5), "1,234 ms"),
        (percent(0.97772, 359), "97.8%"),
        (percent(0.97772, 50_000), "97.77%"),
        (times(0.966), "0.97x"),
        (times(0.996), "1.0x"),
        (times(5.883), "5.9x"),
        (times(9.96), "10x"),
        (points(-0.0056), "-0.6"),
        (points(0.0126), "+1.3"),
        (points(-0.0004), "0.0"),
        (plain(True), "yes"),
        (plain(2026), "2026"),
        (plain(1_464_344), "1,464,344"),
        (plain(1.9775372e-07), "1.978e-07"),
    ],
)
def test_numbers_are_written_short(shown: str, text: str) -> None:
    assert shown.replace("\u00a0", " ").replace("\u00d7", "x").replace("\u2212", "-") == text


@given(st.floats(1, 1e12))
def test_a_short_number_is_right_to_half_a_percent(value: float) -> None:
    digits, _, prefix = short(value).partition("\u00a0")
    scale = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[prefix]
    assert float(digits.replace(",", "")) * scale == pytest.approx(value, rel=0.005, abs=0.5)


def test_a_column_has_decimals_for_its_smallest_number() -> None:
    assert [decimals(v) for v in ([], [0.0], [1513, 248], [37.2, 18.7], [0.77, 20.0], [0.05, 3.0])] == [
        0,
        0,
        0,
        1,
        2,
        3,
    ]


def test_a_number_carries_its_exact_value_and_place() -> None:
    number = Number(0.1 + 0.2, 'a."b<', 3)
    assert number.shown("0.3 <") == (
        '<span data-bundle="3" data-key="a.&#34;b&lt;" data-value="0.30000000000000004">0.3 &lt;</span>'
    )
