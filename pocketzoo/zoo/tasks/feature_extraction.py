"""Feature extraction: an embedding of each sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pocketzoo.zoo.catalog.dataset import Dataset, Targets
from pocketzoo.zoo.catalog.task import MetricSpec
from pocketzoo.zoo.data.target_kinds import without_targets
from pocketzoo.zoo.tasks.decoders.answers import Embeddings
from pocketzoo.zoo.tasks.drawing import sample_html
from pocketzoo.zoo.tasks.metrics.embeddings import NeighborAgreement, Unscored


class FeatureExtractionTask:
    """Answers are ``Embeddings``; no data set has targets for them."""

    metric = MetricSpec(name="retrieval")

    def prepared(self, dataset: Dataset, labels: Sequence[str]) -> Dataset:
        return without_targets(dataset)

    def scores(self, labels: Sequence[str]) -> Unscored:
        return Unscored("embeddings")

    def agreement(self) -> NeighborAgreement:
        return NeighborAgreement()

    def chance(self, targets: Targets) -> float:
        return 0.0

    def rows(self, answers: Embeddings, labels: Sequence[str], top: int) -> list[Mapping[str, Any]]:
        """``{"embedding": [...]}``."""
        return [{"embedding": [float(value) for value in row]} for row in answers.vectors]

    def draw(self, sample: Any, answer: Mapping[str, Any], target: Any, labels: Sequence[str]) -> str:
        return sample_html(sample)
