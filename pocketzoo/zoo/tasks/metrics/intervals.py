"""Confidence intervals of 95%, and the estimates they belong to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from pocketzoo.zoo.catalog.task import Estimate

Z = 1.959963984540054  # the normal distribution's quantile of 97.5%
# Student's quantiles of 97.5% with so many degrees of freedom; between them the next smaller one is taken.
STUDENT = {
    1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228, 11: 2.201,
    12: 2.179, 13: 2.160, 14: 2.145, 15: 2.131, 17: 2.110, 19: 2.093, 21: 2.080, 25: 2.060, 30: 2.042, 40: 2.021,
    60: 2.000, 120: 1.980,
}  # fmt: skip
GROUPS = 20  # that the jackknife leaves out one after the other


def proportion(successes: float, count: int) -> Estimate:
    """A fraction, with the interval of Wilson 1927 (doi:10.1080/01621459.1927.10502953)."""
    value = successes / count
    center = (value + Z**2 / (2 * count)) / (1 + Z**2 / count)
    reach = Z / (1 + Z**2 / count) * math.sqrt(value * (1 - value) / count + Z**2 / (4 * count**2))
    return Estimate(value, max(min(center - reach, value), 0.0), min(max(center + reach, value), 1.0))


def mean(total: float, squares: float, count: int, low: float = -math.inf, high: float = math.inf) -> Estimate:
    """A mean, of the sum of its values and of their squares, with Student's interval, cut off at ``low`` and ``high``.

    Student 1908 (doi:10.1093/biomet/6.1.1).
    """
    value = total / count
    if count < 2:
        return Estimate(value)
    error = math.sqrt(max(squares - count * value**2, 0.0) / (count - 1) / count)
    return bounded(value, error * student(count - 1), low, high)


def ratio(tops: Sequence[float], bottoms: Sequence[float], low: float = -math.inf, high: float = math.inf) -> Estimate:
    """The sum of ``tops`` by that of ``bottoms``, one of each per sample, with the interval of a ratio estimator.

    What belongs to one sample, such as the tokens of a text, is not independent; samples are. Cochran 1977, "Sampling
    Techniques", 6.4.
    """
    top, bottom = np.asarray(tops, np.float64), np.asarray(bottoms, np.float64)
    value, count = float(top.sum() / bottom.sum()), len(top)
    if count < 2:
        return Estimate(value)
    residuals = top - value * bottom
    error = math.sqrt(float(np.square(residuals).sum()) / (count * (count - 1))) / float(bottom.mean())
    return bounded(value, error * student(count - 1), low, high)


def jackknife(
    value: float,
    count: int,
    without: Callable[[npt.NDArray[np.bool_]], float],
    low: float = -math.inf,
    high: float = math.inf,
) -> Estimate:
    """A value of ``count`` samples with the interval of the delete-a-group jackknife: every ``GROUPS``-th is a group.

    ``without(kept)`` is the value of the samples that are kept. Shao and Tu 1995, "The Jackknife and Bootstrap", 5.2.
    """
    if count < 2:
        return Estimate(value)
    groups = min(GROUPS, count)
    number = np.arange(count) % groups
    values = np.array([without(number != group) for group in range(groups)])
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return Estimate(value)
    error = math.sqrt((len(values) - 1) / len(values) * float(np.square(values - values.mean()).sum()))
    return bounded(value, error * student(len(values) - 1), low, high)


def bounded(value: float, reach: float, low: float, high: float) -> Estimate:
    """A value with an interval that reaches as far to both sides, within what is possible."""
    if not math.isfinite(value) or not math.isfinite(reach):
        return Estimate(value)
    return Estimate(value, max(value - reach, low), min(value + reach, high))


def student(freedom: int) -> float:
    """Student's quantile of 97.5%, rounded up."""
    return STUDENT[max(k for k in STUDENT if k <= freedom)] if freedom <= 120 else 1.980
