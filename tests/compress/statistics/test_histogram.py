"""Bins, ranges and what they lose, on a few values whose place can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.plans import Range
from pocketzoo.compress.statistics.histogram import BINS, SHRINK, VALUES, Histogram
from pocketzoo.compress.statistics.range_losses import RangeLosses


def filled(*chunks: list[float] | np.ndarray) -> Histogram:
    made = Histogram()
    for chunk in chunks:
        made.add(np.asarray(chunk, np.float32))
    return made


def places(histogram: Histogram) -> dict[int, int]:
    """Bin, counted from zero -> how many values."""
    return {int(i) - BINS: int(histogram.counts[i]) for i in np.flatnonzero(histogram.counts)}


@pytest.mark.parametrize(
    ("chunks", "width", "counts"),
    [
        ([[2048.0]], 1.0, {2047: 1}),
        ([[-2048.0]], 1.0, {-2048: 1}),
        ([[2048.0, 0.5, -0.5, 0.0, 1.0, -1.0, -1.5]], 1.0, {2047: 1, 0: 2, -1: 2, 1: 1, -2: 1}),
        ([[2048.0, 0.5, 3.5], [4096.0]], 2.0, {0: 1, 1: 1, 1023: 1, 2047: 1}),
        ([[2048.0, -0.5, -3.5], [4097.0]], 4.0, {-1: 2, 511: 1, 1024: 1}),
        ([[2048.0, -2048.0], [-8192.0]], 4.0, {511: 1, -512: 1, -2048: 1}),
        ([[0.0, 0.0], [2048.0]], 1.0, {2047: 1}),
        ([[2048.0], [1.0], [100.0, 200.0]], 1.0, {2047: 1, 1: 1, 100: 1, 200: 1}),
    ],
)
def test_values_are_counted_in_bins_of_one_width(chunks, width, counts):
    found = filled(*chunks)
    assert (found.width, places(found)) == (width, counts)


def test_what_is_new_has_seen_nothing():
    new = Histogram()
    assert (new.width, new.low, new.high, new.counts.shape, int(new.counts.sum())) == (0.0, 0.0, 0.0, (4096,), 0)
    new.add(np.zeros(3, np.float32))
    assert (new.width, int(new.counts.sum())) == (0.0, 0)
    assert filled([1e-40]).width == 1e-30


@pytest.mark.parametrize(
    ("size", "taken"),
    [(VALUES, VALUES), (2 * VALUES - 1, 2 * VALUES - 1), (2 * VALUES, VALUES), (3 * VALUES + 5, VALUES + 2)],
)
def test_of_large_tensors_every_so_many_values_are_counted(size, taken):
    values = np.zeros(size, np.float32)
    values[0], values[1] = 2048.0, 5.5
    found = filled(values.reshape(1, -1))
    assert int(found.counts.sum()) == taken
    assert places(found).get(5, 0) == int(taken == size)


def test_centers_are_the_middles_of_bins():
    found = filled([2048.0])
    assert found.centers[[0, BINS - 1, BINS, BINS + 1, 2 * BINS - 1]].tolist() == [-2047.5, -0.5, 0.5, 1.5, 2047.5]


# -- ranges


def _counted(**counts: int) -> Histogram:
    """Bins of width 1, each with so many values: ``p3`` is that from 3 to 4, ``n1`` that from -1 to 0."""
    made = Histogram(width=1.0)
    for name, count in counts.items():
        place = int(name[1:]) if name[0] == "p" else -int(name[1:])
        made.counts[BINS + place] = count
    used = np.flatnonzero(made.counts) - BINS
    made.low, made.high = min(0.0, float(used[0])), max(0.0, float(used[-1]) + 1)
    return made


def _range(low: float, high: float) -> Range:
    return Range(low=low, high=high, magnitude=max(-low, high))


@pytest.mark.parametrize(
    ("counts", "percentile", "wanted"),
    [
        ({"p0": 80, "p5": 15, "p9": 5}, 80.0, _range(0.0, 0.5)),
        ({"p0": 80, "p5": 15, "p9": 5}, 90.0, _range(0.0, 5.5)),
        ({"p0": 80, "p5": 15, "p9": 5}, 96.0, _range(0.0, 9.5)),
        ({"p0": 80, "p5": 15, "p9": 5}, 100.0, _range(0.0, 9.5)),
        ({"n9": 4, "n2": 46, "p3": 46, "p7": 4}, 90.0, _range(-1.5, 3.5)),
        ({"n9": 6, "n2": 44, "p3": 44, "p7": 6}, 90.0, _range(-8.5, 7.5)),
        ({"n9": 5, "n2": 90, "p7": 5}, 80.0, _range(-1.5, 0.0)),
        ({"n9": 60, "n2": 40}, 70.0, _range(-8.5, 0.0)),
        ({"p3": 2, "p7": 8}, 60.0, _range(0.0, 7.5)),
    ],
)
def test_a_percentile_leaves_out_as_much_as_it_says(counts, percentile, wanted):
    """Half at each end where values have both signs, all at the upper end where they do not."""
    found = _counted(**counts).range(Int8Config(ranges="percentile", percentile=percentile))
    assert (found.low, found.high, found.magnitude) == pytest.approx((wanted.low, wanted.high, wanted.magnitude))


def test_a_percentile_goes_no_further_than_what_was_seen():
    """A bin's center may lie outside."""
    found = _counted(n3=10, p2=10)
    found.low, found.high = -2.2, 2.1
    assert found.range(Int8Config(ranges="percentile", percentile=100.0)) == _range(-2.2, 2.1)
    last = filled([2048.0])
    assert last.range(Int8Config(ranges="percentile", percentile=100.0)).high == 2047.5


def _asking(loss, asked):
    """Losses of many ranges from that of one; what is asked for goes to ``asked``."""

    def losses(lows, highs, levels):
        asked.append(list(zip(lows.tolist(), highs.tolist(), levels.tolist(), strict=True)))
        return np.array([loss(*each) for each in asked[-1]], np.float64)

    return losses


def test_the_search_shrinks_both_ends_then_each_alone():
    """Losses with one best answer that is none of the first: all that is asked for, in its order."""
    found = _counted(n8=1, p15=1)
    assert (found.low, found.high) == (-8.0, 16.0)
    asked = []

    def loss(low: float, high: float, levels: int) -> float:
        return abs(low - -4.0) + abs(high - 16 * 0.7) if levels == 255 else abs(high - 16 * 0.3)

    best = found._search(_asking(loss, asked), 0.0)
    assert (best.low, best.high) == pytest.approx((-4.0, 11.2))
    assert best.magnitude == pytest.approx(16 * float(min(SHRINK, key=lambda s: abs(s - 0.3))))
    n = len(SHRINK)
    first, lows, highs = asked
    np.testing.assert_allclose(first[:n], [(-8 * s, 16 * s, 255) for s in SHRINK])
    np.testing.assert_allclose(first[n:], [(-16 * s, 16 * s, 254) for s in SHRINK])
    after_both = min(SHRINK, key=lambda s: abs(-8 * s + 4) + abs(16 * s - 11.2))
    np.testing.assert_allclose(lows, [(-8 * s, 16 * after_both, 255) for s in SHRINK])
    np.testing.assert_allclose(highs, [(-4.0, 16 * s, 255) for s in SHRINK], atol=1e-9)
    again = found._search(_asking(lambda low, high, levels: 1.0, []), 0.0)
    assert (again.low, again.high, again.magnitude) == (-8.0, 16.0, 16.0), "of equals the widest"


@pytest.mark.parametrize("counts", [{"p0": 3, "p15": 1}, {"n16": 1, "n1": 3}])
def test_values_of_one_sign_have_one_end_to_shrink(counts):
    """Both ends together are that one, so nothing is asked twice."""
    found, asked = _counted(**counts), []
    best = found._search(_asking(lambda low, high, levels: abs(high - low - 8.0), asked), 0.0)
    assert len(asked) == 1
    assert (best.high - best.low, best.magnitude) == pytest.approx((8.0, 4.0), abs=0.2)


def test_of_losses_that_rounding_tells_apart_the_first_is_taken():
    found = _counted(n8=1, p15=1)
    losses = _asking(lambda low, high, levels: 1.0 - 1e-9 * (high < 15.0), [])
    assert found._search(losses, 1e-8) == _range(-8.0, 16.0)
    assert found._search(losses, 1e-10).high < 15.0


@pytest.mark.parametrize(
    ("ranges", "rule"),
    [("minmax", "_minmax"), ("percentile", "_percentile"), ("entropy", "_least_divergence"), ("mse", "_least_error")],
)
def test_each_rule_is_the_one_that_is_named(ranges, rule, monkeypatch):
    wanted = _range(-0.25, 0.5)
    found = filled([-1.0, 2.0])
    monkeypatch.setattr(Histogram, rule, lambda self, *given: wanted)
    assert found.range(Int8Config(ranges=ranges)) is wanted


def test_auto_takes_the_range_and_the_magnitude_that_err_least_each():
    """They need not be of one rule, and no rule has ones that err less."""
    generator = np.random.default_rng(2)
    for values in (generator.standard_t(2, 3000), generator.normal(size=999), generator.exponential(size=4000)):
        found = filled(values)
        losses, best = RangeLosses(found.counts, found.width), found.range(Int8Config())
        rules = [found.range(Int8Config(ranges=name)) for name in ("minmax", "percentile", "entropy", "mse")]

        def error(low, high, levels, losses=losses):
            return losses.squared_errors(np.array([low]), np.array([high]), np.array([levels]))[0]

        assert error(best.low, best.high, 255) == min(error(r.low, r.high, 255) for r in rules)
        assert error(-best.magnitude, best.magnitude, 254) == min(error(-r.magnitude, r.magnitude, 254) for r in rules)


def test_least_error_rounds_in_255_steps_and_symmetric_ones_in_254():
    found = filled(np.random.default_rng(0).standard_t(3, size=3000))
    losses, best = RangeLosses(found.counts, found.width), found.range(Int8Config(ranges="mse"))
    reach = max(-found.low, found.high)
    symmetric = losses.squared_errors(-reach * SHRINK, reach * SHRINK, np.full(len(SHRINK), 254))
    assert best.magnitude == pytest.approx(reach * SHRINK[symmetric.argmin()])
    lost = losses.squared_errors(np.array([best.low]), np.array([best.high]), np.array([255]))
    assert lost <= losses.squared_errors(found.low * SHRINK, found.high * SHRINK, np.full(len(SHRINK), 255)).min()


def test_what_is_discounted_was_never_counted():
    """Whatever came first, down to the counts of bins that were merged since."""
    generator = np.random.default_rng(5)
    near, far = (generator.normal(0, scale, 3000).astype(np.float32) for scale in (1.0, 30.0))
    both = filled(near, far)
    fewer = both.copy()
    fewer.discount(far)
    expected = Histogram(both.width, low=both.low, high=both.high)
    expected.add(near)
    assert np.abs(fewer.counts - expected.counts).sum() <= 2  # the ends of the first were on the edge of its bins
    assert both.counts.sum() == 6000
