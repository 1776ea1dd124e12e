"""Intervals of 95% over sources: photos or documents are drawn again, each with all of its samples.

Samples of one source say much the same, so that an interval over samples would promise too much.
"""

from __future__ import annotations

import numpy as np

DRAWS, SEED = 2000, 0
Interval = tuple[float, float]


def drawn_means(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The mean of ``values`` (N,), (DRAWS,), over sources ``ids`` (N,) drawn with replacement."""
    sources, place = np.unique(ids, return_inverse=True)
    sums, counts = np.bincount(place, values), np.bincount(place).astype(np.float64)
    chosen = np.random.default_rng(SEED).integers(0, len(sources), (DRAWS, len(sources)))
    means: np.ndarray = sums[chosen].sum(1) / counts[chosen].sum(1)
    return means


def of_mean(values: np.ndarray, ids: np.ndarray) -> Interval:
    """Of the mean of ``values`` (N,)."""
    low, high = np.quantile(drawn_means(values, ids), [0.025, 0.975])
    return float(low), float(high)


def of_sqnr(signal: np.ndarray, noise: np.ndarray, ids: np.ndarray) -> Interval:
    """In dB, of the energies (N,) of samples and of their errors."""
    with np.errstate(divide="ignore"):
        drawn = 10 * np.log10(drawn_means(signal, ids) / drawn_means(noise, ids))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)
