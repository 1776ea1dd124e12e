"""A metric as it was measured: which way is better, in its unit, and better than what for sure."""

from __future__ import annotations

import pytest

from pocketzoo.zoo.bundles.metric_value import MetricValue


@pytest.mark.parametrize(
    ("higher", "value", "low", "high", "other", "beats"),
    [
        (True, 0.5, None, None, 0.4, True),
        (True, 0.5, None, None, 0.5, False),
        (True, 0.5, 0.45, 0.55, 0.4, True),
        (True, 0.5, 0.35, 0.65, 0.4, False),
        (False, 3.0, 2.5, 3.5, 4.0, True),
        (False, 3.0, 1.5, 4.5, 4.0, False),
        (False, 3.0, None, None, 2.0, False),
    ],
)
def test_it_is_better_by_its_whole_interval(higher, value, low, high, other, beats):
    metric = MetricValue(name="m", value=value, low=low, high=high, higher_is_better=higher)
    assert metric.beats(other) is beats


@pytest.mark.parametrize(
    ("unit", "shown", "titled"),
    [("", "314.2%", "m"), ("number", "3.142", "m"), ("degrees", "3.142 degrees", "m, degrees")],
)
def test_it_is_shown_in_its_unit(unit, shown, titled):
    metric = MetricValue(name="m", value=3.1416, unit=unit)
    assert (metric.shown(metric.value), metric.titled) == (shown, titled)
