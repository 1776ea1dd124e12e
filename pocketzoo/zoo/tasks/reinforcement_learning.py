"""Reinforcement learning: the action to take in a state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pocketzoo.zoo.catalog.dataset import Dataset, Targets
from pocketzoo.zoo.catalog.task import MetricSpec
from pocketzoo.zoo.data.target_kinds import without_targets
from pocketzoo.zoo.tasks.decoders.answers import Classes
from pocketzoo.zoo.tasks.drawing import captioned
from pocketzoo.zoo.tasks.metrics.classification import ClassAgreement
from pocketzoo.zoo.tasks.metrics.embeddings import ReturnScores


class ReinforcementLearningTask:
    """Answers are ``Classes``, the actions; what they are worth is the return of episodes, which ``play`` measures."""

    metric = MetricSpec(name="return", unit="number")

    def prepared(self, dataset: Dataset, labels: Sequence[str]) -> Dataset:
        return without_targets(dataset)

    def scores(self, labels: Sequence[str]) -> ReturnScores:
        return ReturnScores()

    def agreement(self) -> ClassAgreement:
        return ClassAgreement()

    def chance(self, targets: Targets) -> float:
        return 0.0

    def rows(self, answers: Classes, labels: Sequence[str], top: int) -> list[Mapping[str, Any]]:
        """``{"action": ...}``, and the value of each action."""
        scores = answers.scores
        assert scores is not None  # by its decoder
        return [
            {"action": int(action), "values": [float(value) for value in row]}
            for action, row in zip(answers.classes, scores, strict=True)
        ]

    def draw(self, sample: Any, answer: Mapping[str, Any], target: Any, labels: Sequence[str]) -> str:
        return captioned(sample, "", f"action {answer['action']}")
