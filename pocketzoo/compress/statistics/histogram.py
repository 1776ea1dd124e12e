"""Histogram of an activation, and the quantization range chosen from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.plans import Range
from pocketzoo.compress.statistics.range_losses import DIVERGENCE_NOISE, RangeLosses
from pocketzoo.core.arrays import Array

BINS = 2048  # on each side of zero
STEPS = np.array([255, 254])  # of a range, and of a symmetric one
VALUES = 16384  # of one tensor and sample that enter the histogram, evenly spread; minimum and maximum see all

Losses = Callable[
    [npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int64]], npt.NDArray[np.float64]
]  # of ranges: their lower and upper ends, and their steps
SHRINK = np.concatenate([np.linspace(1.0, 0.5, 26), np.linspace(0.48, 0.1, 20)])  # of the whole range, that are tried


@dataclass
class Histogram:
    """Counts of values in equal bins around zero. When a value lies outside, bins are merged in pairs."""

    width: float = 0.0  # of a bin; 0 until the first value that is not 0
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(2 * BINS, np.int64))
    low: float = 0.0  # zero is always representable, so it is always inside
    high: float = 0.0

    def add(self, values: Array) -> None:
        """Count the values of one sample."""
        rows = values.reshape(1, -1)
        self.add_samples(rows, rows.min(1), rows.max(1))

    def add_samples(self, rows: Array, lows: Array, highs: Array) -> None:
        """Count those of some samples (S, N), whose least and largest are ``lows`` and ``highs`` (S,).

        It is as if they came one after the other, in far fewer steps where N is small.
        """
        widths = []
        for low, high in zip(lows.tolist(), highs.tolist(), strict=True):
            self.low, self.high = min(self.low, low), max(self.high, high)
            widths.append(self._widened(self.width))
            self.width = widths[-1]
        zeros = widths.count(0.0)
        if zeros == len(widths):
            return
        step = max(1, rows.shape[1] // VALUES)
        inverse = np.array([1.0 / width for width in widths[zeros:]]).astype(rows.dtype)
        index = (rows[zeros:, ::step] * inverse[:, None]).astype(np.float32)
        places = np.clip(np.floor(index, out=index).astype(np.int64), -BINS, BINS - 1)
        if widths[zeros] != self.width:  # bins of the first rows were merged, for the last
            places >>= np.array([round(math.log2(self.width / width)) for width in widths[zeros:]])[:, None]
        self.counts += np.bincount(places.ravel() + BINS, minlength=2 * BINS)

    def copy(self) -> Histogram:
        """One that changes by itself."""
        return Histogram(self.width, self.counts.copy(), self.low, self.high)

    def discount(self, values: Array) -> None:
        """Take out what ``add`` counted of a sample; ``low`` and ``high`` stay.

        A value that was the largest so far when it came may be in the bin beside its own, which then keeps it.
        """
        if self.width and values.size:
            own = Histogram(self.width, low=self.low, high=self.high)
            own.add(values)
            self.counts = np.maximum(self.counts - own.counts, 0)

    def _widened(self, width: float) -> float:
        """What ``width`` is once ``low`` and ``high`` lie in the bins; what was counted is merged in pairs for it."""
        reach = max(-self.low, self.high)
        if width == 0.0:
            return 0.0 if reach == 0.0 else max(reach / BINS, 1e-30)  # of a dead layer: its inverse must stay finite
        while width * BINS < reach:
            # Bins are merged outwards from the middle: the left half's first pair and the right half's.
            merged = self.counts.reshape(-1, 2).sum(1)
            self.counts[:] = 0
            self.counts[BINS // 2 : BINS // 2 + BINS] = merged
            width *= 2
        return width

    @property
    def centers(self) -> npt.NDArray[np.float64]:
        return np.asarray((np.arange(2 * BINS) - BINS + 0.5) * self.width, np.float64)

    def range(self, config: Int8Config) -> Range:
        """The range that the config's rule picks; "auto" the one with the least squared error. It always holds zero."""
        if config.ranges == "minmax" or self.width == 0.0:
            return self._minmax()
        if config.ranges == "percentile":
            return self._percentile(config.percentile)
        if config.ranges == "entropy":
            return self._least_divergence()
        if config.ranges == "mse":
            return self._least_error()
        losses = self._losses()
        rules = [self._minmax(), self._percentile(config.percentile),
                 self._search(losses.divergences, DIVERGENCE_NOISE),
                 self._search(losses.squared_errors, losses.error_noise)]  # fmt: skip
        low, high, magnitude = np.array([(rule.low, rule.high, rule.magnitude) for rule in rules]).T
        errors = losses.squared_errors(
            np.concatenate([low, -magnitude]), np.concatenate([high, magnitude]), np.repeat(STEPS, len(rules))
        ).reshape(2, -1)
        affine, symmetric = (rules[_first_least(each, losses.error_noise)] for each in errors)
        return Range(low=affine.low, high=affine.high, magnitude=symmetric.magnitude)

    def _losses(self) -> RangeLosses:
        return RangeLosses(self.counts, self.width)

    def _minmax(self) -> Range:
        return Range(low=self.low, high=self.high, magnitude=max(-self.low, self.high))

    def _percentile(self, percentile: float) -> Range:
        share = self.counts.cumsum() / self.counts.sum()
        tail = (1 - percentile / 100) / 2 if self.low < 0 else 1 - percentile / 100
        low = float(self.centers[np.searchsorted(share, tail, side="right")])
        high = float(self.centers[min(int(np.searchsorted(share, 1 - tail)), 2 * BINS - 1)])
        low, high = max(self.low, min(0.0, low)), min(self.high, max(0.0, high))  # a bin's center may lie outside
        return Range(low=low, high=high, magnitude=max(-low, high))

    def _least_divergence(self) -> Range:
        """The range whose levels tell most of how values are distributed (Migacz 2017)."""
        return self._search(self._losses().divergences, DIVERGENCE_NOISE)

    def _least_error(self) -> Range:
        """The range with the least mean squared error after 8-bit rounding and saturation (Sung et al. 2015)."""
        losses = self._losses()
        return self._search(losses.squared_errors, losses.error_noise)

    def _search(self, losses: Losses, noise: float) -> Range:
        """The range that loses least. First both ends shrink together, then each alone: they hardly interact.

        Of ranges whose losses differ by no more than ``noise`` it is the first.
        """
        reach, tried = max(-self.low, self.high), len(SHRINK)
        both = losses(
            np.concatenate([self.low * SHRINK, -reach * SHRINK]),
            np.concatenate([self.high * SHRINK, reach * SHRINK]),
            np.repeat(STEPS, tried),
        )
        at = _first_least(both[:tried], noise)
        least, low, high = float(both[at]), self.low * SHRINK[at], self.high * SHRINK[at]
        magnitude = reach * SHRINK[_first_least(both[tried:], noise)]
        if self.low < 0.0 < self.high:  # else one end alone is both ends
            steps = np.full(tried, STEPS[0])
            alone = losses(self.low * SHRINK, np.full(tried, high), steps)
            at = _first_least(alone, noise)
            if alone[at] < least - noise:
                least, low = float(alone[at]), self.low * SHRINK[at]
            alone = losses(np.full(tried, low), self.high * SHRINK, steps)
            at = _first_least(alone, noise)
            if alone[at] < least - noise:
                high = self.high * SHRINK[at]
        return Range(low=float(low), high=float(high), magnitude=float(magnitude))


def _first_least(losses: npt.NDArray[np.float64], noise: float) -> int:
    """The place of the least of some losses; of equals the first."""
    return int(np.argmax(losses <= losses.min() + noise))
