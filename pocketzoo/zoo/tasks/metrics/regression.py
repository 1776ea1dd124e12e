"""Metrics of numbers, and the agreement of two models that output them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.errors import DataError
from pocketzoo.core.numerics import r2
from pocketzoo.zoo.catalog.dataset import Targets
from pocketzoo.zoo.catalog.task import Estimate
from pocketzoo.zoo.tasks.decoders.answers import Values
from pocketzoo.zoo.tasks.metrics.intervals import Z, bounded, mean

Array = npt.NDArray[Any]


@dataclass
class _Pairs:
    """Numbers (N, outputs), and what they are held against."""

    values: list[Array] = field(default_factory=list)
    references: list[Array] = field(default_factory=list)

    def add(self, values: Array, references: Array, what: str) -> None:
        if values.shape != references.shape:
            raise DataError(
                f"the model outputs {_columns(values)} numbers per sample, {what} {_columns(references)}",
                "give other data",
            )
        self.values.append(values)
        self.references.append(references)

    def extend(self, other: _Pairs) -> None:
        self.values += other.values
        self.references += other.references

    def whole(self) -> tuple[Array, Array]:
        if not sum(map(len, self.values)):
            raise DataError("no sample was scored", "give at least five samples")
        return np.concatenate(self.values), np.concatenate(self.references)


def _columns(array: Array) -> str:
    return str(array.shape[1]) if array.ndim == 2 else f"an array of shape {array.shape}, not"


@dataclass
class RegressionScores:
    """R2 (mean over the outputs), mean absolute error, and root mean squared error (mean over the outputs).

    The interval of R2 and of the root is by the delta method on their means (Casella and Berger 2002, "Statistical
    Inference", 5.5.4), that of the mean absolute error Student's.
    """

    pairs: _Pairs = field(default_factory=_Pairs)

    def update(self, answers: Values, targets: Targets) -> None:
        """Take in the answers to samples of these numbers (B, outputs)."""
        self.pairs.add(answers.values, targets, "the data has")

    def merge(self, other: RegressionScores) -> None:
        """Take in what another has seen."""
        self.pairs.extend(other.pairs)

    def result(self) -> dict[str, Estimate]:
        """Raises DataError: nothing was seen."""
        values, targets = self.pairs.whole()
        errors = values.astype(np.float64) - targets
        absolute = np.abs(errors).mean(1)
        return {
            "r2": r2_estimate(values, targets),
            "mean absolute error": mean(float(absolute.sum()), float(np.square(absolute).sum()), len(absolute), 0.0),
            "root mean squared error": _root(errors),
        }


def r2_estimate(values: Array, targets: Array) -> Estimate:
    """R2 of numbers (N, outputs), averaged over the outputs, with its interval.

    1 - R2 is a ratio of two means for each output: of squared errors, and of squares around the mean. A sample's part
    in that ratio is (e^2 - (1 - R2) d^2) / mean(d^2), whose standard error is that of R2.
    """
    value, count = r2(values, targets), len(values)
    errors = np.square(values.astype(np.float64) - targets)
    spread = np.square(targets - targets.mean(0), dtype=np.float64)
    used = spread.mean(0) > 0
    if count < 3 or not used.any() or not np.isfinite(value):
        return Estimate(value)
    errors, spread = errors[:, used], spread[:, used]
    parts = (errors - errors.mean(0) / spread.mean(0) * spread) / spread.mean(0)
    reach = Z * float((parts.sum(1) / targets.shape[1]).std(ddof=1)) / np.sqrt(count)
    return bounded(value, float(reach), -np.inf, 1.0)


def _root(errors: Array) -> Estimate:
    squares = np.square(errors)
    roots = np.sqrt(squares.mean(0))
    value = float(roots.mean())
    if len(errors) < 2 or not (roots > 0).all():
        return Estimate(value)
    parts = (squares / (2 * roots)).mean(1)
    return bounded(value, Z * float(parts.std(ddof=1)) / float(np.sqrt(len(errors))), 0.0, np.inf)


@dataclass
class ValueAgreement:
    """How much of what varies in the reference's numbers a model has as well, 0 to 1.

    It is R2 with the reference's answers in place of targets, and 0 where that is below: 1 where all are equal, 0 where
    they are no nearer than the mean. Two models that are both near to the truth are near to each other: the roots of
    what is missing to 1 add up at the most, so that it is high whichever of the two is better.
    """

    pairs: _Pairs = field(default_factory=_Pairs)

    def update(self, answers: Values, reference: Values) -> None:
        """Take in the answers of both to some samples."""
        self.pairs.add(answers.values, reference.values, "the reference")

    def merge(self, other: ValueAgreement) -> None:
        """Take in what another has seen."""
        self.pairs.extend(other.pairs)

    def result(self) -> dict[str, Estimate]:
        """Raises DataError: nothing was compared."""
        found = r2_estimate(*self.pairs.whole())
        low, high = (None if end is None else max(end, 0.0) for end in (found.low, found.high))
        return {"agreement": Estimate(max(found.value, 0.0) if np.isfinite(found.value) else 0.0, low, high)}

    def about(self, value: float) -> str:
        """An agreement in words."""
        return f"{value:.1%} of the variance of its numbers the same"
