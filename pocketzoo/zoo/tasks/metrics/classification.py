"""Metrics of one class per sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import Targets
from pocketzoo.zoo.catalog.task import Estimate
from pocketzoo.zoo.tasks.decoders.answers import Classes
from pocketzoo.zoo.tasks.metrics.intervals import mean, proportion

TOP = 5
RANKED = 10  # answers that a recommendation shows; counted with more than twice as many classes
BINS = 15  # of the calibration error, as in Guo et al. 2017


@dataclass
class ClassificationScores:
    """Of answers to samples whose classes are known.

    Accuracy, precision, recall and F1 (means over the classes that occur), and the expected calibration error. With
    more than ``TOP`` classes also the fraction of samples whose class is among the first answers. With more than twice
    ``RANKED`` also recall and normalized discounted cumulative gain of that many answers, of which one is right
    (Jarvelin and Kekalainen 2002, doi:10.1145/582415.582418). The calibration error is that of Guo et al. 2017
    (arXiv:1706.04599). Fractions have Wilson's interval, the gain Student's, precision, F1 and the calibration error
    none.
    """

    labels: Sequence[str]
    counts: npt.NDArray[np.int64] = field(init=False)  # (C, C), row by true class
    near: int = 0  # right answers that are among the TOP first
    shown: int = 0  # right answers that are among the RANKED first
    gain: float = 0.0  # of those, 1 / log2(rank + 1)
    gain_squares: float = 0.0
    ranked: int = 0  # samples whose answers are ranked
    certain: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((3, BINS)))  # count, certainty, right

    def __post_init__(self) -> None:
        self.counts = np.zeros((len(self.labels), len(self.labels)), np.int64)

    def update(self, answers: Classes, targets: Targets) -> None:
        """Take in the answers to samples of these classes (B,)."""
        check_classes(answers, targets, len(self.labels))
        np.add.at(self.counts, (targets, answers.classes), 1)
        if answers.scores is not None:
            own = np.take_along_axis(answers.scores, targets[:, None], 1)
            before = (answers.scores > own).sum(-1)
            gains = 1 / np.log2(before[before < RANKED] + 2)
            self.ranked += len(before)
            self.near += int((before < TOP).sum())
            self.shown += len(gains)
            self.gain += float(gains.sum())
            self.gain_squares += float(np.square(gains).sum())
        if answers.probabilities is not None:
            certainty = answers.probabilities.max(-1)
            place = np.minimum((certainty * BINS).astype(int), BINS - 1)
            right = answers.classes == targets
            for row, value in zip(self.certain, (np.ones(len(place)), certainty, right), strict=True):
                np.add.at(row, place, value)

    def merge(self, other: ClassificationScores) -> None:
        """Take in what another has counted."""
        self.counts = self.counts + other.counts
        self.certain = self.certain + other.certain
        for name in ("near", "shown", "gain", "gain_squares", "ranked"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def samples(self) -> int:
        """How many were counted."""
        return int(self.counts.sum())

    def result(self) -> dict[str, Estimate]:
        """Raises DataError: nothing was counted."""
        if not self.samples:
            raise DataError("no sample was scored", "give each class at least five samples")
        right, seen, said = self.counts.diagonal(), self.counts.sum(1), self.counts.sum(0)
        used = np.flatnonzero(seen)
        recall = right / np.maximum(seen, 1)
        precision = right / np.maximum(said, 1)
        f1 = 2 * right / np.maximum(seen + said, 1)
        count, certainty, hits = self.certain
        error = float(np.abs(certainty - hits).sum() / max(count.sum(), 1))
        ranked = self.ranked == self.samples
        return {
            "accuracy": proportion(int(right.sum()), self.samples),
            **({f"top-{TOP}": proportion(self.near, self.samples)} if ranked and len(self.labels) > TOP else {}),
            **(self._ranking() if ranked and len(self.labels) > 2 * RANKED else {}),
            "precision": Estimate(float(precision[used].mean())),
            "recall": Estimate(float(recall[used].mean())),
            "f1": Estimate(float(f1[used].mean())),
            **({"calibration error": Estimate(error)} if count.sum() else {}),
        }

    def _ranking(self) -> dict[str, Estimate]:
        return {
            f"recall@{RANKED}": proportion(self.shown, self.samples),
            f"ndcg@{RANKED}": mean(self.gain, self.gain_squares, self.samples, 0.0, 1.0),
        }

    def details(self) -> Mapping[str, Any]:
        """The recall of each class, and the counts of the answers for each."""
        seen = self.counts.sum(1)
        used = [int(i) for i in np.flatnonzero(seen)]
        return {
            "classes": {self.labels[i]: float(self.counts[i, i] / seen[i]) for i in used},
            "confusion": {
                self.labels[i]: {self.labels[int(j)]: int(self.counts[i, j]) for j in self.counts[i].nonzero()[0]}
                for i in used
            },
        }

    def confusion(self) -> npt.NDArray[np.int64]:
        """Counts (classes, classes), row by true class."""
        return self.counts


@dataclass
class ClassAgreement:
    """How often two models answer the same class, with Wilson's interval."""

    same: int = 0
    count: int = 0

    def update(self, answers: Classes, reference: Classes) -> None:
        """Take in the answers of both to some samples."""
        self.same += int((answers.classes == reference.classes).sum())
        self.count += len(reference)

    def merge(self, other: ClassAgreement) -> None:
        """Take in what another has counted."""
        self.same, self.count = self.same + other.same, self.count + other.count

    def result(self) -> dict[str, Estimate]:
        """Raises DataError: nothing was compared."""
        if not self.count:
            raise DataError("no answers were compared", "give samples")
        return {"agreement": proportion(self.same, self.count)}

    def about(self, value: float) -> str:
        """An agreement in words."""
        return f"equal predictions for {value:.1%} of the samples"


def check_classes(answers: Classes, targets: Targets, count: int) -> None:
    """Raises DataError: the answers are not to samples of such classes."""
    if targets.shape != answers.classes.shape or targets.dtype.kind not in "iu":
        raise DataError(
            f"{len(answers)} samples were answered, and the classes are {targets.dtype} of shape {targets.shape}",
            "give one class per sample",
        )
    columns = count if answers.scores is None else answers.scores.shape[1]
    most = max(int(answers.classes.max(initial=0)), int(targets.max(initial=0)))
    if most >= count or columns != count:
        raise DataError(f"the model answers {max(columns, most + 1)} classes, and has {count} labels", "correct them")
