"""What ranges lose, from running sums, against the sums over all bins that define it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketzoo.compress.statistics.range_losses import RangeLosses


def squared_error(values, counts, low, high, levels):
    """Rounding each value to ``levels`` steps between two ends, written out."""
    if high <= low:
        return np.inf
    scale = (high - low) / levels
    zero = round(-low / scale)
    rounded = (np.clip(np.round(values / scale) + zero, 0, levels) - zero) * scale
    return float(np.dot(counts, (values - rounded) ** 2))


def divergence(counts, width, low, high, levels):
    """Of what is saturated at the ends from what ``levels`` tell of it, written out bin by bin."""
    half = len(counts) // 2
    first = int(np.clip(np.floor(low / width) + half, 0, 2 * half - 1))
    last = int(np.clip(np.ceil(high / width) + half, first + 1, 2 * half))
    inside = counts[first:last].astype(np.float64)
    reference = inside.copy()
    reference[0] += counts[:first].sum()
    reference[-1] += counts[last:].sum()
    if not inside.any():
        return np.inf
    level = np.arange(len(inside)) * min(levels, len(inside)) // len(inside)
    each = np.bincount(level, inside) / np.maximum(np.bincount(level, inside > 0), 1)
    told = np.where(inside > 0, each[level], 0.0)
    p, q = reference / reference.sum(), told / told.sum()
    seen = p > 0
    return float(np.sum(p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-12))))


def centers(counts, width):
    return (np.arange(len(counts)) - len(counts) // 2 + 0.5) * width


def one(losses, low, high, levels):
    """A loss of one range."""
    return losses(np.array([low]), np.array([high]), np.array([levels]))[0]


@st.composite
def cases(draw):
    half = draw(st.sampled_from([2, 5, 64, 300]))
    few = draw(st.lists(st.tuples(st.integers(0, 2 * half - 1), st.integers(1, 10**6)), min_size=1, max_size=12))
    counts = np.zeros(2 * half, np.int64)
    for place, count in few:
        counts[place] += count
    if draw(st.booleans()):
        counts += np.random.default_rng(draw(st.integers(0, 99))).poisson(draw(st.floats(0.1, 50)), 2 * half)
    width = draw(st.sampled_from([1e-30, 1e-3, 1.0, 37.5]))
    ends = st.just(0.0) | st.floats(1e-3, 1.3)  # of tinier ranges the sums below overflow
    ranges = draw(st.lists(st.tuples(ends, ends, st.sampled_from([3, 254, 255])), min_size=1, max_size=6))
    low, high, levels = (np.array(each) for each in zip(*ranges, strict=True))
    return counts, width, -low * half * width, high * half * width, levels


@settings(deadline=None, max_examples=200)
@given(cases())
def test_losses_of_many_ranges_are_those_of_each_bin_by_bin(case):
    counts, width, low, high, levels = case
    losses = RangeLosses(counts, width)
    errors, divergences = losses.squared_errors(low, high, levels), losses.divergences(low, high, levels)
    for i, (a, b, steps) in enumerate(zip(low, high, levels, strict=True)):
        wanted = squared_error(centers(counts, width), counts, a, b, steps)
        assert errors[i] == pytest.approx(wanted, rel=1e-9, abs=losses.error_noise)
        assert divergences[i] == pytest.approx(divergence(counts, width, a, b, steps), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("counts", "low", "high", "levels", "wanted"),
    [
        ({0.5: 1}, 0.0, 4.0, 4, 0.25),
        ({1.5: 3}, 0.0, 4.0, 1, 3 * 1.5**2),
        ({3.5: 2}, 0.0, 2.0, 2, 2 * 1.5**2),
        ({-1.5: 2}, 0.0, 2.0, 4, 2 * 1.5**2),
        ({-3.5: 1, 3.5: 2}, -2.0, 2.0, 4, 3 * 1.5**2),
        ({-1.5: 4, 0.5: 5, 1.5: 6}, -1.5, 2.0, 7, 0.0),
        ({0.5: 1}, 1.0, 1.0, 4, np.inf),
        ({0.5: 1}, 1.0, 0.0, 4, np.inf),
    ],
)
def test_the_error_of_rounding_is_counted(counts, low, high, levels, wanted):
    bins = np.zeros(8, np.int64)
    for center, count in counts.items():
        bins[int(center + 3.5)] = count
    assert one(RangeLosses(bins, 1.0).squared_errors, low, high, levels) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize(
    ("counts", "low", "high", "levels", "p", "q"),
    [
        ([0, 0, 2, 2, 4, 4, 0, 0], -2, 2, 2, [2, 2, 4, 4], [2, 2, 4, 4]),
        ([0, 0, 1, 3, 4, 4, 0, 0], -2, 2, 2, [1, 3, 4, 4], [2, 2, 4, 4]),
        ([0, 0, 1, 3, 4, 4, 0, 0], -2, 2, 9, [1, 3, 4, 4], [1, 3, 4, 4]),
        ([2, 3, 1, 3, 4, 4, 0, 0], -2, 2, 4, [6, 3, 4, 4], [1, 3, 4, 4]),
        ([0, 0, 1, 3, 4, 4, 3, 4], -2, 2, 4, [1, 3, 4, 11], [1, 3, 4, 4]),
        ([0, 0, 4, 0, 2, 6, 0, 0], -2, 2, 2, [4, 0, 2, 6], [4, 0, 4, 4]),
        ([0, 3, 0, 4, 2, 6, 0, 0], -2, 2, 2, [3, 4, 2, 6], [0, 4, 4, 4]),
        ([0, 3, 3, 1, 2, 0, 2, 0], -2.5, 1.5, 2, [3, 3, 1, 2, 2], [7 / 3, 7 / 3, 7 / 3, 2, 0]),
        ([0, 1, 0, 0, 5, 2, 0, 0], 0.2, 0.9, 3, [8], [5]),
    ],
)
def test_the_divergence_is_that_of_two_distributions(counts, low, high, levels, p, q):
    p, q = np.array(p) / np.sum(p), np.array(q) / np.sum(q)
    wanted = sum(a * np.log(a / max(b, 1e-12)) for a, b in zip(p, q, strict=True) if a)
    losses = RangeLosses(np.array(counts, np.int64), 1.0)
    assert one(losses.divergences, low, high, levels) == pytest.approx(wanted, abs=1e-12)


def test_nothing_inside_is_no_range():
    losses = RangeLosses(np.array([4, 0, 0, 0, 0, 5]), 1.0)
    assert one(losses.divergences, -1.0, 1.0, 2) == np.inf
