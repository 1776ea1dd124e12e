"""Text generation: what token comes next. And text to text, whose first token a graph of its own gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import Dataset, Targets
from pocketzoo.zoo.catalog.specs import WINDOW
from pocketzoo.zoo.catalog.task import Metric, MetricSpec, ModelFacts
from pocketzoo.zoo.data.target_kinds import IGNORED, without_targets
from pocketzoo.zoo.data.token_windows import as_windows
from pocketzoo.zoo.tasks.decoders.answers import NextTokens
from pocketzoo.zoo.tasks.drawing import captioned
from pocketzoo.zoo.tasks.metrics.embeddings import Unscored
from pocketzoo.zoo.tasks.metrics.tokens import LikelihoodScores, TokenAgreement


class TextGenerationTask:
    """Answers are ``NextTokens``, targets (N, T) the ids that follow, ``IGNORED`` where none is known."""

    metric = MetricSpec(name="log_likelihood", unit="nats", alongside=("perplexity",))

    def prepared(self, dataset: Dataset, labels: Sequence[str]) -> Dataset:
        """Texts as they are, to calibrate on and to compare models: ``as_examples`` has targets."""
        return without_targets(dataset)

    def scores(self, labels: Sequence[str]) -> Metric:
        return LikelihoodScores()

    def agreement(self) -> TokenAgreement:
        return TokenAgreement()

    def chance(self, targets: Targets) -> float:
        """The log likelihood of who knows how frequent each token is."""
        often = np.bincount(targets[targets != IGNORED]).astype(np.float64)
        often = often[often > 0] / max(often.sum(), 1.0)
        return float((often * np.log(often)).sum())

    def rows(self, answers: NextTokens, labels: Sequence[str], top: int) -> list[Mapping[str, Any]]:
        raise DataError("a language model writes texts", "pocketzoo generate MODEL TEXT")

    def draw(self, sample: Any, answer: Mapping[str, Any], target: Any, labels: Sequence[str]) -> str:
        return captioned(sample, "", str(answer.get("text", "")))


class TextToTextTask(TextGenerationTask):
    """As ``TextGeneration``, of answers to a text; no data set has targets for them."""

    def scores(self, labels: Sequence[str]) -> Metric:
        return Unscored("answers to texts")


def as_examples(dataset: Dataset, model: ModelFacts) -> Dataset:
    """Texts, or rows of token ids, as windows of tokens with those that follow.

    Raises:
        DataError: the model reads no texts, or the data has none.
    """
    if not hasattr(model.input, "vocabulary"):
        raise DataError(f"{model.name} does not read text", "compare it: pocketzoo bench")
    return as_windows(without_targets(dataset), model.input, model.generation, model.files, model.window or WINDOW)
