"""Token classification: a class for each token of a text, such as the names of people and places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pocketzoo.zoo.catalog.dataset import Dataset, Targets
from pocketzoo.zoo.catalog.task import MetricSpec
from pocketzoo.zoo.data.target_kinds import IGNORED
from pocketzoo.zoo.tasks.class_targets import with_tags
from pocketzoo.zoo.tasks.decoders.answers import TokenClasses
from pocketzoo.zoo.tasks.drawing import captioned
from pocketzoo.zoo.tasks.metrics.tokens import TokenAgreement, TokenClassScores


class TokenClassificationTask:
    """Answers are ``TokenClasses``, targets (N, T) their numbers, ``IGNORED`` where none is known.

    Where data has tags of words, a word's is that of its first token, and the others are not scored.
    """

    metric = MetricSpec(name="token accuracy", alongside=("entity f1",))

    def prepared(self, dataset: Dataset, labels: Sequence[str]) -> Dataset:
        """Tags of words, or of tokens; ``on_tokens`` puts the former on tokens."""
        return with_tags(dataset, labels)

    def scores(self, labels: Sequence[str]) -> TokenClassScores:
        return TokenClassScores(labels)

    def agreement(self) -> TokenAgreement:
        return TokenAgreement()

    def chance(self, targets: Targets) -> float:
        """The fraction of right answers of who always names the class that is most frequent."""
        known = targets[targets != IGNORED]
        return float(np.bincount(known).max() / len(known)) if len(known) else 0.0

    def rows(self, answers: TokenClasses, labels: Sequence[str], top: int) -> list[Mapping[str, Any]]:
        """``{"tokens": [the label of each]}``."""
        names = labels or [str(i) for i in range(answers.scores.shape[-1])]
        return [
            {"tokens": [names[int(i)] for i in classes[known]]}
            for classes, known in zip(answers.best, answers.known, strict=True)
        ]

    def draw(self, sample: Any, answer: Mapping[str, Any], target: Any, labels: Sequence[str]) -> str:
        names = [labels[int(i)] for i in target if i != IGNORED] if target is not None and labels else []
        return captioned(sample, " ".join(names), " ".join(answer["tokens"]))
