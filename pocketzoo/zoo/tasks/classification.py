"""Classification of whole samples: images, texts, rows of tables, sounds."""

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
from pocketzoo.zoo.tasks.decoders.answers import Classes
from pocketzoo.zoo.tasks.drawing import captioned
from pocketzoo.zoo.tasks.metrics.classification import ClassAgreement, ClassificationScores


class ClassificationTask:
    """One of several classes for each sample: answers are ``Classes``, targets their numbers (N,)."""

    metric = MetricSpec(name="accuracy")

    def prepared(self, dataset: Dataset, labels: Sequence[str]) -> Dataset:
        known = with_classes(dataset, labels)
        return known if holds(known, 1, "iu") and known.labels else without_targets(known)

    def scores(self, labels: Sequence[str]) -> ClassificationScores:
        return ClassificationScores(labels)

    def agreement(self) -> ClassAgreement:
        return ClassAgreement()

    def chance(self, targets: Targets) -> float:
        """The fraction of right answers of who always names the class that is most frequent."""
        return float(np.bincount(targets).max() / len(targets)) if len(targets) else 0.0

    def rows(self, answers: Classes, labels: Sequence[str], top: int) -> list[Mapping[str, Any]]:
        """``{"top": [{"label": ..., "probability": ...}, ...]}``, best first."""
        if not labels:
            raise DataError("the model has no classes", "fit a head with classes: pocketzoo fit ...")
        if answers.probabilities is None:
            return [{"top": [{"label": labels[int(each)]}]} for each in answers.classes]
        return [
            {"top": [{"label": labels[i], "probability": float(row[i])} for i in row.argsort()[::-1][:top]]}
            for row in answers.probabilities
        ]

    def errors(self, answers: Classes, targets: Targets) -> npt.NDArray[np.float64]:
        """How sure each wrong answer is (N,), 0 where it is right."""
        wrong = answers.classes != targets
        sure = np.ones(len(answers)) if answers.probabilities is None else answers.probabilities.max(-1)
        return np.where(wrong, sure, 0.0)

    def draw(self, sample: Any, answer: Mapping[str, Any], target: Any, labels: Sequence[str]) -> str:
        best = answer["top"][0]
        return captioned(sample, "" if target is None else labels[int(target)], best["label"], best.get("probability"))
