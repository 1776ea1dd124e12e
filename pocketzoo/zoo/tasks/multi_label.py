"""Multi-label classification: any number of labels for each sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import Dataset, Targets
from pocketzoo.zoo.catalog.task import MetricSpec
from pocketzoo.zoo.data.target_kinds import holds, without_targets
from pocketzoo.zoo.tasks.class_targets import with_classes
from pocketzoo.zoo.tasks.decoders.answers import Labels
from pocketzoo.zoo.tasks.drawing import captioned
from pocketzoo.zoo.tasks.metrics.multi_label import LabelAgreement, MultiLabelScores

NONE = "none"  # what is said of a sample without labels


class MultiLabelTask:
    """Answers are ``Labels``, targets (N, labels) of 0 and 1."""

    metric = MetricSpec(name="mean average precision", alongside=("f1",))

    def prepared(self, dataset: Dataset, labels: Sequence[str]) -> Dataset:
        known = with_classes(dataset, labels)
        return known if holds(known, 2, "iu") and known.labels else without_targets(known)

    def scores(self, labels: Sequence[str]) -> MultiLabelScores:
        return MultiLabelScores(labels)

    def agreement(self) -> LabelAgreement:
        return LabelAgreement()

    def chance(self, targets: Targets) -> float:
        """The mean frequency of the labels that occur, which is the precision of answers in any order."""
        often = targets.mean(0) if len(targets) else np.zeros(1)
        return float(often[often > 0].mean()) if (often > 0).any() else 0.0

    def rows(self, answers: Labels, labels: Sequence[str], top: int) -> list[Mapping[str, Any]]:
        """``{"labels": [those that are said], "top": [{"label": ..., "probability": ...}, ...]}``, best first."""
        if not labels:
            raise DataError("the model has no labels", "fit a head with labels: pocketzoo fit ...")
        return [
            {
                "labels": [labels[int(i)] for i in np.flatnonzero(said)],
                "top": [{"label": labels[i], "probability": float(row[i])} for i in row.argsort()[::-1][:top]],
            }
            for row, said in zip(answers.probabilities, answers.said, strict=True)
        ]

    def errors(self, answers: Labels, targets: Targets) -> npt.NDArray[np.float64]:
        """How far the probabilities of wrong labels are from right, summed (N,)."""
        wrong = answers.said != targets.astype(np.bool_)
        return np.asarray((wrong * np.abs(answers.probabilities - targets)).sum(1))

    def draw(self, sample: Any, answer: Mapping[str, Any], target: Any, labels: Sequence[str]) -> str:
        right = "" if target is None else ", ".join(labels[int(i)] for i in np.flatnonzero(target)) or NONE
        return captioned(sample, right, ", ".join(answer["labels"]) or NONE)
