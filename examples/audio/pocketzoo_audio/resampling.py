"""Sound at another rate, by band-limited interpolation.

Each sample is the sum of those around it, weighted by a sinc that is cut at the lower of the two rates' half and faded
out by a Kaiser window. Source: Smith & Gossett 1984, doi:10.1109/ICASSP.1984.1172555.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd

import numpy as np
import numpy.typing as npt

ZEROS = 64  # of the sinc, on each side
ROLLOFF = 0.945  # of the lower half rate that passes: the rest is where the filter falls
BETA = 14.77  # of the Kaiser window: about 140 dB
Floats = npt.NDArray[np.float64]


def resampled(x: npt.NDArray[np.float32], rate: int, wanted: int) -> npt.NDArray[np.float32]:
    """Samples (N,) of ``rate`` per second at ``wanted`` per second: (ceil(N * wanted / rate),)."""
    if rate == wanted:
        return x
    divisor = gcd(rate, wanted)
    up, down = wanted // divisor, rate // divisor
    count = -(-len(x) * up // down)
    weights, reach = _weights(up, down)
    padded = np.pad(x.astype(np.float64), reach)
    out = np.empty(-(-count // up) * up)
    # Sample i lies at i * down / up of those that are there: i // up strides of ``down``, and i % up parts of one.
    starts = np.arange(-(-count // up)) * down
    for part in range(up):
        first = starts + part * down // up
        rows = np.lib.stride_tricks.sliding_window_view(np.pad(padded, (0, down + 1)), 2 * reach + 1)[first]
        out[part::up] = rows @ weights[part]
    return out[:count].astype(np.float32)


@lru_cache(maxsize=8)
def _weights(up: int, down: int) -> tuple[Floats, int]:
    """For each of the ``up`` parts of a sample the weights of those around it, ``reach`` to each side and itself."""
    cutoff = ROLLOFF * min(1.0, up / down)
    width = ZEROS / cutoff
    reach = int(np.ceil(width)) + 1
    around = np.arange(-reach, reach + 1)
    parts = (np.arange(up) * down % up / up)[:, None]
    distance = around[None] - parts
    fade = np.i0(BETA * np.sqrt(np.clip(1 - (distance / width) ** 2, 0, None))) / np.i0(BETA)
    weights: Floats = cutoff * np.sinc(cutoff * distance) * np.where(np.abs(distance) < width, fade, 0.0)
    return weights / weights.sum(1, keepdims=True), reach  # what does not change stays as it is
