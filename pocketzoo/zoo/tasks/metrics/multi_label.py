"""Metrics of any number of labels per sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import Targets
from pocketzoo.zoo.catalog.task import Estimate
from pocketzoo.zoo.tasks.decoders.answers import Labels
from pocketzoo.zoo.tasks.metrics.intervals import jackknife, proportion, ratio

Array = npt.NDArray[Any]


@dataclass
class MultiLabelScores:
    """Of answers to samples whose labels are known.

    Mean average precision over the labels that occur, F1 over all answers together and as a mean over labels, and the
    fractions of samples whose labels are all right, and of single answers that are. Mean average precision and F1 have
    the interval of a jackknife over groups of samples, fractions Wilson's.
    """

    labels: Sequence[str]
    probabilities: list[Array] = field(default_factory=list)  # (B, labels) each
    said: list[Array] = field(default_factory=list)
    targets: list[Array] = field(default_factory=list)

    def update(self, answers: Labels, targets: Targets) -> None:
        """Take in the answers to samples of these labels (B, labels), 0 or 1."""
        if targets.shape != answers.probabilities.shape or targets.shape[1] != len(self.labels):
            raise DataError(
                f"the model answers {answers.probabilities.shape[1]} labels, the data has targets {targets.shape}",
                f"give 0 or 1 for each of {len(self.labels)} labels",
            )
        self.probabilities.append(answers.probabilities.astype(np.float32))
        self.said.append(answers.said)
        self.targets.append(targets.astype(np.bool_))

    def merge(self, other: MultiLabelScores) -> None:
        """Take in what another has seen."""
        self.probabilities += other.probabilities
        self.said += other.said
        self.targets += other.targets

    def result(self) -> dict[str, Estimate]:
        """Raises DataError: nothing was seen, or no label is true of any sample."""
        if not sum(map(len, self.targets)):
            raise DataError("no sample was scored", "give at least five samples")
        scores, said, true = map(np.concatenate, (self.probabilities, self.said, self.targets))
        if not true.any():
            raise DataError("no label is true of any sample", "give samples that have labels")
        count = len(true)

        def precision_of(rows: Array) -> float:
            return _mean_precision(scores[rows], true[rows])

        all_rows = np.ones(count, np.bool_)
        return {
            "mean average precision": jackknife(precision_of(all_rows), count, precision_of, 0.0, 1.0),
            "f1": jackknife(_micro_f1(said, true), count, lambda rows: _micro_f1(said[rows], true[rows]), 0.0, 1.0),
            "macro f1": jackknife(
                _macro_f1(said, true), count, lambda rows: _macro_f1(said[rows], true[rows]), 0.0, 1.0
            ),
            "exact match": proportion(int((said == true).all(1).sum()), count),
            "label accuracy": proportion(int((said == true).sum()), true.size),
        }

    def details(self) -> Mapping[str, Any]:
        """The average precision of each label that occurs."""
        scores, true = np.concatenate(self.probabilities), np.concatenate(self.targets)
        return {
            "labels": {
                label: average_precision(scores[:, i], true[:, i])
                for i, label in enumerate(self.labels)
                if true[:, i].any()
            }
        }


def average_precision(scores: Array, true: Array) -> float:
    """The mean of the precision at the rank of each true sample, best first; samples of one score have one rank.

    As scikit-learn has it: no interpolation. "Introduction to Information Retrieval", Manning et al. 2008, 8.4.
    """
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(true[order])
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # of those with one score
    precision, recall = hits[last] / (last + 1), hits[last] / hits[-1]
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def _mean_precision(scores: Array, true: Array) -> float:
    used = np.flatnonzero(true.any(0))
    return float(np.mean([average_precision(scores[:, i], true[:, i]) for i in used])) if len(used) else np.nan


def _micro_f1(said: Array, true: Array) -> float:
    return float(2 * (said & true).sum() / max(int(said.sum() + true.sum()), 1))


def _macro_f1(said: Array, true: Array) -> float:
    used = true.any(0)
    both, either = (said & true).sum(0), said.sum(0) + true.sum(0)
    return float((2 * both[used] / np.maximum(either[used], 1)).mean()) if used.any() else np.nan


@dataclass
class LabelAgreement:
    """How many of the labels that either of two models says both say, over all samples.

    The F1 of one's answers if the other's were right, so that labels that neither says count nothing. The interval is
    that of a ratio estimator over samples. Where neither says any label, they agree.
    """

    both: list[Array] = field(default_factory=list)
    either: list[Array] = field(default_factory=list)

    def update(self, answers: Labels, reference: Labels) -> None:
        """Take in the answers of both to some samples."""
        ours, theirs = answers.said, reference.said
        self.both.append(2 * (ours & theirs).sum(1))
        self.either.append(ours.sum(1) + theirs.sum(1))

    def merge(self, other: LabelAgreement) -> None:
        """Take in what another has counted."""
        self.both += other.both
        self.either += other.either

    def result(self) -> dict[str, Estimate]:
        """Raises DataError: nothing was compared."""
        if not sum(map(len, self.both)):
            raise DataError("no answers were compared", "give samples")
        both, either = np.concatenate(self.both), np.concatenate(self.either)
        return {"agreement": ratio(both.tolist(), either.tolist(), 0.0, 1.0) if either.sum() else Estimate(1.0)}

    def about(self, value: float) -> str:
        """An agreement in words."""
        return f"{value:.1%} of the labels the same"
