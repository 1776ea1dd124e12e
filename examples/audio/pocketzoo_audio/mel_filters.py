"""Filters of the mel scale, triangles on the frequencies of a Fourier transform.

Sources: Stevens, Volkmann & Newman 1937, doi:10.1121/1.1915893, for the scale; Davis & Mermelstein 1980,
doi:10.1109/TASSP.1980.1163420, for triangles on it; O'Shaughnessy 1987, "Speech Communication", p. 150, for the
formula that HTK and Kaldi use; Slaney 1998, "Auditory Toolbox" (Interval Research report 1998-010), for the scale that
is linear below 1 kHz, and for triangles of equal area.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
LINEAR = 1000.0  # Hz, below which Slaney's scale is linear: 3 mels in 200 Hz
STEP = np.log(6.4) / 27  # of the logarithm of the frequency, a mel above


def slaney_filters(bins: int, mels: int, rate: int, high: float = 8000.0) -> Floats:
    """(bins, mels): triangles between frequencies that are equally far apart on Slaney's scale, of area 1."""
    ends = _slaney_hertz(np.linspace(0.0, _slaney_mels(np.array([high]))[0], mels + 2))
    filters = _triangles(np.linspace(0, rate // 2, bins), ends)
    scaled: Floats = filters * (2 / (ends[2:] - ends[:-2]))
    return scaled


def kaldi_filters(bins: int, mels: int, rate: int, low: float = 20.0) -> Floats:
    """(bins, mels): triangles on the mel scale itself, of height 1, from ``low`` to half the rate."""
    ends = np.linspace(_mels(np.array([low]))[0], _mels(np.array([rate // 2]))[0], mels + 2)
    return _triangles(_mels(rate / ((bins - 1) * 2) * np.arange(bins)), ends)


def _triangles(points: Floats, ends: Floats) -> Floats:
    """Of each three ends in a row the triangle over them, at the points."""
    left, middle, right = ends[:-2], ends[1:-1], ends[2:]
    up = (points[:, None] - left) / (middle - left)
    down = (right - points[:, None]) / (right - middle)
    return np.maximum(0.0, np.minimum(up, down))


def _mels(hertz: Floats) -> Floats:
    mels: Floats = 1127.0 * np.log(1.0 + hertz / 700.0)
    return mels


def _slaney_mels(hertz: Floats) -> Floats:
    above = 15.0 + np.log(np.maximum(hertz, LINEAR) / LINEAR) / STEP
    return np.where(hertz < LINEAR, hertz * 3 / 200, above)


def _slaney_hertz(mels: Floats) -> Floats:
    above = LINEAR * np.exp(STEP * (np.maximum(mels, 15.0) - 15.0))
    return np.where(mels < 15.0, mels * 200 / 3, above)
