"""How near answers are to those of a reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.zoo.data import Batches
from pocketzoo.zoo.preprocess import Array
from pocketzoo.zoo.runtimes import Runner
from pocketzoo.zoo.specs import PER_TOKEN, TextSpec

CLOSE = 0.05  # standard deviations of the reference that a number may be off


def answers(runner: Runner, x: Array, data: Batches, returns: str) -> Array:
    """One row an answer: those of the samples, or of the tokens that a text has."""
    out: Array = runner.logits(x)
    if returns not in PER_TOKEN:
        return out
    return out[x != data.spec.pad] if isinstance(data.spec, TextSpec) else out.reshape(-1, out.shape[-1])


def same(given: Array, wanted: Array, returns: str) -> npt.NDArray[np.bool_]:
    """Which rows (N, C) give the answer of the reference's (N,): ``Measurement.agreement`` is their share."""
    if returns == "embedding":
        return np.asarray(nearest_neighbours(given) == nearest_neighbours(wanted))
    if returns == "values":
        return np.asarray((np.abs(given - wanted) <= CLOSE * wanted.std(0)).all(-1))
    return np.asarray(given.argmax(-1) == wanted.argmax(-1))


def nearest_neighbours(vectors: Array) -> npt.NDArray[np.intp]:
    """For each vector (N, C) the other one of the largest cosine: (N,)."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    return np.asarray(cosines.argmax(-1))


def r2(out: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> float:
    """The coefficient of determination of numbers (N, outputs), averaged over the outputs.

    1 is exact, and 0 what the mean of the wanted numbers scores. An output that never changes counts 1 if it is met.
    """
    missed = np.square(out - wanted, dtype=np.float64).sum(0)
    spread = np.square(wanted - wanted.mean(0), dtype=np.float64).sum(0)
    shares = np.where(spread > 0, missed / np.where(spread > 0, spread, 1.0), missed > 0)
    return float(1 - shares.mean())


def sqnr(out: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> float:
    """The ratio of signal to error in dB, 10 log10(|wanted|^2 / |wanted - out|^2).

    Infinite where both are equal, and -infinite where ``out`` is of another shape, or not finite.
    """
    if out.shape != wanted.shape or not np.isfinite(out).all():
        return -np.inf
    noise = float(np.square(out.astype(np.float64) - wanted).sum())
    return decibels(float(np.square(wanted.astype(np.float64)).sum()), noise)


def decibels(signal: float, noise: float) -> float:
    """The ratio of two sums of squares in dB."""
    if noise == 0:
        return np.inf
    return float(10 * np.log10(signal / noise)) if signal > 0 else -np.inf
