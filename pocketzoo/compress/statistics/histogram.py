"""Histogram of an activation, and the quantization range chosen from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.plans import Range
from pocketzoo.core.arrays import Array

BINS = 2048  # on each side of zero
VALUES = 16384  # of one tensor and sample that enter the histogram, evenly spread; minimum and maximum see all

SHRINK = np.concatenate([np.linspace(1.0, 0.5, 26), np.linspace(0.48, 0.1, 20)])  # of the whole range, that are tried


@dataclass
class Histogram:
    """Counts of values in equal bins around zero. When a value lies outside, bins are merged in pairs."""

    width: float = 0.0  # of a bin; 0 until the first value that is not 0
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(2 * BINS, np.int64))
    low: float = 0.0  # zero is always representable, so it is always inside
    high: float = 0.0

    def add(self, values: Array) -> None:
        flat = values.ravel()
        self.low, self.high = min(self.low, float(flat.min())), max(self.high, float(flat.max()))
        reach = max(-self.low, self.high)
        if reach == 0.0:
            return
        if self.width == 0.0:
            self.width = max(reach / BINS, 1e-30)  # its inverse must stay finite for activations of a dead layer
        while self.width * BINS < reach:
            # Bins are merged outwards from the middle: the left half's first pair and the right half's.
            merged = self.counts.reshape(-1, 2).sum(1)
            self.counts[:] = 0
            self.counts[BINS // 2 : BINS // 2 + BINS] = merged
            self.width *= 2
        step = max(1, flat.size // VALUES)
        index = (flat[::step] * (1.0 / self.width)).astype(np.float32)
        index = np.clip(np.floor(index).astype(np.int64) + BINS, 0, 2 * BINS - 1)
        self.counts += np.bincount(index, minlength=2 * BINS)

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
        rules = [self._minmax(), self._percentile(config.percentile), self._least_divergence(), self._least_error()]
        values, counts = self._used()
        affine = min(rules, key=lambda r: _error(values, counts, r.low, r.high, 255))
        symmetric = min(rules, key=lambda r: _error(values, counts, -r.magnitude, r.magnitude, 254))
        return Range(low=affine.low, high=affine.high, magnitude=symmetric.magnitude)

    def _used(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        used = self.counts > 0
        return self.centers[used], self.counts[used]

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
        return self._search(lambda low, high, levels: _divergence(self._within(low, high), levels))

    def _within(self, low: float, high: float) -> tuple[npt.NDArray[np.float64], int, int]:
        """Counts of the bins between two values, and how many values lie below and above them."""
        first = int(np.clip(np.floor(low / self.width) + BINS, 0, 2 * BINS - 1))
        last = int(np.clip(np.ceil(high / self.width) + BINS, first + 1, 2 * BINS))
        inside = self.counts[first:last].astype(np.float64)
        return inside, int(self.counts[:first].sum()), int(self.counts[last:].sum())

    def _least_error(self) -> Range:
        """The range with the least mean squared error after 8-bit rounding and saturation (Sung et al. 2015)."""
        values, counts = self._used()
        return self._search(lambda low, high, levels: _error(values, counts, low, high, levels))

    def _search(self, loss: Callable[[float, float, int], float]) -> Range:
        """The range that loses least. First both ends shrink together, then each alone: they hardly interact."""
        best = (np.inf, self.low, self.high)
        for lows, highs in ((SHRINK, SHRINK), (SHRINK, None), (None, SHRINK)):
            base_low, base_high = best[1], best[2]
            for i in range(len(SHRINK)):
                low = base_low if lows is None else self.low * lows[i]
                high = base_high if highs is None else self.high * highs[i]
                lost = loss(low, high, 255)
                if lost < best[0]:
                    best = (lost, low, high)
        reach = max(-self.low, self.high)
        magnitude = min(SHRINK, key=lambda s: loss(-reach * s, reach * s, 254))
        return Range(low=float(best[1]), high=float(best[2]), magnitude=float(reach * magnitude))


def _error(
    values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], low: float, high: float, levels: int
) -> float:
    """Mean squared error of rounding ``values`` to ``levels`` steps between ``low`` and ``high``."""
    if high <= low:
        return float("inf")
    scale = (high - low) / levels
    zero = round(-low / scale)
    rounded = (np.clip(np.round(values / scale) + zero, 0, levels) - zero) * scale
    return float(np.dot(counts, (values - rounded) ** 2))


def _divergence(within: tuple[npt.NDArray[np.float64], int, int], levels: int) -> float:
    """Kullback-Leibler divergence of values saturated at the ends from the same told apart by ``levels`` only."""
    inside, below, above = within
    reference = inside.copy()
    reference[0] += below
    reference[-1] += above
    used = inside > 0
    if not used.any():
        return float("inf")
    level = np.arange(len(inside)) * min(levels, len(inside)) // len(inside)
    share = np.bincount(level, inside) / np.maximum(np.bincount(level, used), 1)
    told = np.where(used, share[level], 0.0)
    p, q = reference / reference.sum(), told / told.sum()
    seen = p > 0
    return float(np.sum(p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-12))))
