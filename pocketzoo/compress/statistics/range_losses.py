"""What quantization ranges lose on a histogram: many ranges at once, from sums that are made once.

A range of L steps cuts the bins into L + 1 cells, and what a cell loses follows from how many values are in it and from
their sum. With running sums over the bins a range costs 256 look-ups instead of a pass over all bins. Counts and places
of bins are whole numbers, so the sums are exact as long as they are below 2^53.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEAST_FRACTION = 1e-12  # that a bin is taken to have where a range has nothing: its logarithm is finite
DIVERGENCE_NOISE = 1e-12  # differences below are rounding


class RangeLosses:
    """Losses of ranges for values that were counted in bins of one width, as many below zero as above.

    Ranges are arrays (K,): their lower ends, their upper ends, and how many steps each has.
    """

    def __init__(self, counts: Ints, width: float) -> None:
        self.counts, self.width, self.half = counts.astype(np.float64), width, len(counts) // 2
        place = 2.0 * np.arange(len(counts)) - len(counts) + 1  # centers of bins, in halves of a width
        self.below = _running(self.counts)
        self._sums = _running(self.counts * place)
        self._squares = float(self.counts @ (place * place))
        self._used = _running(self.counts > 0)
        self._logs = _running(_x_log_x(self.counts))
        self.total = float(self.below[-1])

    @property
    def error_noise(self) -> float:
        """What rounding makes of equal squared errors."""
        return float(self.total * (self.width * len(self.counts)) ** 2 * 2.0**-50)

    def squared_errors(self, low: Floats, high: Floats, levels: Ints) -> Floats:
        """Sum of squared errors of rounding each bin's center to steps from ``low`` to ``high``, where it saturates.

        With cells 0 ... L that are rounded to q_k, and N_k and S_k values and their sum below cell k, summation by
        parts makes of sum_k (q_k^2 n_k - 2 q_k s_k) what needs no more than N_k and S_k.
        """
        empty = high <= low
        scale = np.where(empty, 1.0, (high - low) / levels)
        zero = np.round(-low / scale)
        step = 2 * scale / self.width  # of q, in halves of a width
        cells = np.arange(1, int(levels.max()) + 1)[None, :] - zero[:, None]
        edges = (cells - 0.5) * (scale / self.width)[:, None]
        edges += self.half - 0.5
        at = np.clip(np.ceil(edges, out=edges), 0, len(self.counts), out=edges).astype(np.intp)
        if (levels != levels[0]).any():
            at[cells > (levels - zero)[:, None]] = 0  # beyond the last cell: nothing lies below
        top = (levels - zero) * step
        growth = 2 * cells - 1  # q_k^2 - q_(k-1)^2, in steps
        squares = top**2 * self.total - step**2 * np.einsum("kl,kl->k", growth, self.below.take(at))
        products = top * self._sums[-1] - step * self._sums.take(at).sum(1)
        losses = (self.width / 2) ** 2 * (self._squares + squares - 2 * products)
        return np.where(empty, np.inf, np.maximum(losses, 0.0))

    def divergences(self, low: Floats, high: Floats, levels: Ints) -> Floats:
        """Kullback-Leibler divergence of values saturated at the ends from the same told apart by ``levels`` only.

        Each level's values count as spread evenly over those of its bins that have some.
        """
        first = np.clip(np.floor(low / self.width) + self.half, 0, len(self.counts) - 1).astype(np.int64)
        last = np.clip(np.ceil(high / self.width) + self.half, first + 1, len(self.counts)).astype(np.int64)
        bins = last - first
        levels = np.minimum(levels, bins)
        starts = np.arange(int(levels.max()) + 1.0) * (bins / levels)[:, None]
        starts += first[:, None] - 1e-6  # or rounding would move a level that begins where a bin does
        at = np.minimum(np.ceil(starts, out=starts), last[:, None], out=starts).astype(np.intp)
        values, used = np.diff(self.below.take(at), axis=1), np.diff(self._used.take(at), axis=1)
        inside = self.below[last] - self.below[first]
        told = values / (np.maximum(used, 1, out=used) * np.maximum(inside, 1)[:, None])
        logs = np.log(np.maximum(told, LEAST_FRACTION, out=told))  # of a level without values it is multiplied by none
        cross = np.einsum("kl,kl->k", values, logs)
        own = self._logs[last] - self._logs[first]
        ends = ((first, self.below[first], 0), (last - 1, self.total - self.below[last], levels - 1))
        for place, outside, level in ends:  # what lies outside is added to the last bin inside
            count = self.counts[place]
            log = np.where(count > 0, logs[np.arange(len(logs)), level], np.log(LEAST_FRACTION))
            cross += outside * log
            own += _x_log_x(count + outside) - _x_log_x(count)
        losses = (own - cross) / self.total - np.log(self.total)
        losses = np.where(bins == 1, 0.0, np.maximum(losses, 0.0))  # one bin holds all
        return np.where(inside == 0, np.inf, losses)


def _running(values: npt.NDArray[Any]) -> Floats:
    """Sums of all before each place, and of all."""
    sums = np.zeros(len(values) + 1)
    np.cumsum(values, out=sums[1:])
    return sums


def _x_log_x(x: Floats) -> Floats:
    return np.asarray(x * np.log(np.maximum(x, 1.0)), np.float64)
