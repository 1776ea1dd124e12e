from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.reports.charts.svg import shorten, text_width, tick_decimals, ticks


@pytest.mark.parametrize(
    ("low", "high", "count", "expected", "places"),
    [
        (0.0, 0.89, 8, [0.0, 0.2, 0.4, 0.6, 0.8], 1),
        (0.9671, 0.9802, 5, [0.970, 0.975, 0.980], 3),
        (0.0, 45.0, 8, [0, 10, 20, 30, 40], 0),
        (0.0, 1.0, 1, [0, 1], 0),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, count: int, expected: list[float], places: int) -> None:
    found = ticks(low, high, count)
    assert found == pytest.approx(expected)
    assert tick_decimals(found) == places


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.integers(2, 10))
def test_ticks_lie_inside_and_are_told_apart_by_their_decimals(low: float, span: float, count: int) -> None:
    found = ticks(low, low + span, count)
    slack = span * 1e-5
    assert 0 < len(found) <= count + 1
    assert low - slack <= found[0]
    assert found[-1] <= low + span + slack
    assert len({f"{tick:.{tick_decimals(found)}f}" for tick in found}) == len(found)


@given(st.text(max_size=60), st.floats(20, 300))
def test_a_shortened_text_fits_and_keeps_its_ends(text: str, width: float) -> None:
    short = shorten(text, width, 12)
    assert text_width(short, 12) <= width
    if short not in (text, "\u2026"):
        start, _, end = short.partition("\u2026")
        assert text.startswith(start)
        assert end == "" or text.endswith(end)


def test_the_end_of_a_layer_is_kept_before_its_beginning() -> None:
    assert shorten("features.stage4.block2.project.conv", 150, 12) == "feature\u2026k2.project.conv"
