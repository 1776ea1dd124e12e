"""Regression: numbers for each sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.zoo.catalog.dataset import Dataset, Targets
from pocketzoo.zoo.catalog.task import MetricSpec
from pocketzoo.zoo.data.target_kinds import holds, without_targets
from pocketzoo.zoo.tasks.decoders.answers import Values
from pocketzoo.zoo.tasks.drawing import captioned
from pocketzoo.zoo.tasks.metrics.regression import RegressionScores, ValueAgreement


class RegressionTask:
    """Answers are ``Values``, targets (N, outputs) of float32."""

    metric = MetricSpec(name="r2")

    def prepared(self, dataset: Dataset, labels: Sequence[str]) -> Dataset:
        return dataset if not dataset.labels and holds(dataset, 2, "f") else without_targets(dataset)

    def scores(self, labels: Sequence[str]) -> RegressionScores:
        return RegressionScores()

    def agreement(self) -> ValueAgreement:
        return ValueAgreement()

    def chance(self, targets: Targets) -> float:
        """What the mean of the targets scores."""
        return 0.0

    def rows(self, answers: Values, labels: Sequence[str], top: int) -> list[Mapping[str, Any]]:
        """``{"values": [...]}``."""
        return [{"values": [float(value) for value in row]} for row in answers.values]

    def errors(self, answers: Values, targets: Targets) -> npt.NDArray[np.float64]:
        """The largest error of each sample (N,), in standard deviations of the targets."""
        spread = targets.std(0, dtype=np.float64)
        return np.asarray((np.abs(answers.values - targets) / np.where(spread > 0, spread, 1.0)).max(1))

    def draw(self, sample: Any, answer: Mapping[str, Any], target: Any, labels: Sequence[str]) -> str:
        return captioned(sample, "" if target is None else _words(target), _words(answer["values"]))


def _words(values: Any) -> str:
    return ", ".join(f"{float(value):.4g}" for value in values)
