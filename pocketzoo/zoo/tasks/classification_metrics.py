"""Classification metrics, accumulated over batches. numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import Array
from pocketzoo.core.numerics import predicted, softmax
from pocketzoo.zoo.catalog.dataset import Targets

TOP = 5
RANKED = 10  # answers that a recommendation shows; counted with more than twice as many classes
BINS = 15  # of the calibration error, as in Guo et al. 2017


@dataclass
class ClassCounts:
    """Of answers to samples whose classes are known."""

    labels: Sequence[str]
    confusion: npt.NDArray[np.int64] = field(init=False)  # (C, C), row by true class
    near: int = 0  # right answers that are among the TOP first
    shown: int = 0  # right answers that are among the RANKED first
    gain: float = 0.0  # of those, 1 / log2(rank + 1)
    certain: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((3, BINS)))  # count, certainty, right

    def __post_init__(self) -> None:
        self.confusion = np.zeros((len(self.labels), len(self.labels)), np.int64)

    def add(self, logits: Array, targets: Targets) -> None:
        """Take the answers (B, C) to samples of these classes (B,) in."""
        answers = predicted(logits)
        np.add.at(self.confusion, (targets, answers), 1)
        own = np.take_along_axis(logits, targets[:, None], 1)
        before = (logits > own).sum(-1)
        self.near += int((before < TOP).sum())
        self.shown += int((before < RANKED).sum())
        self.gain += float((1 / np.log2(before[before < RANKED] + 2)).sum())
        certainty = softmax(logits).max(-1)
        place = np.minimum((certainty * BINS).astype(int), BINS - 1)
        for row, value in zip(self.certain, (np.ones(len(place)), certainty, answers == targets), strict=True):
            np.add.at(row, place, value)

    @property
    def samples(self) -> int:
        """How many were counted."""
        return int(self.confusion.sum())

    def scores(self) -> dict[str, Any]:
        """Accuracy, precision, recall and F1 (means over the classes that occur), and the expected calibration error.

        With more than ``TOP`` classes also the fraction of samples whose class is among the first answers. With more
        than twice ``RANKED`` also recall and normalized discounted cumulative gain of that many answers, of which one
        is right (Jarvelin and Kekalainen 2002, doi:10.1145/582415.582418). "classes" has the recall of each,
        "confusion" the counts of answers for each. The calibration error is that of Guo et al. 2017 (arXiv:1706.04599),
        of probabilities by softmax.
        """
        right, seen, said = self.confusion.diagonal(), self.confusion.sum(1), self.confusion.sum(0)
        used = [int(i) for i in np.flatnonzero(seen)]
        recall = right / np.maximum(seen, 1)
        precision = right / np.maximum(said, 1)
        f1 = 2 * right / np.maximum(seen + said, 1)
        count, certainty, hits = self.certain
        return {
            "samples": self.samples,
            "accuracy": float(right.sum() / self.samples),
            **({f"top-{TOP}": self.near / self.samples} if len(self.labels) > TOP else {}),
            **(self._ranked() if len(self.labels) > 2 * RANKED else {}),
            "precision": float(precision[used].mean()),
            "recall": float(recall[used].mean()),
            "f1": float(f1[used].mean()),
            "calibration error": float(np.abs(certainty - hits).sum() / max(count.sum(), 1)),
            "classes": {self.labels[i]: float(recall[i]) for i in used},
            "confusion": {
                self.labels[i]: {self.labels[int(j)]: int(self.confusion[i, j]) for j in self.confusion[i].nonzero()[0]}
                for i in used
            },
        }

    def _ranked(self) -> dict[str, float]:
        return {f"recall@{RANKED}": self.shown / self.samples, f"ndcg@{RANKED}": self.gain / self.samples}
