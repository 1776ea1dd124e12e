"""The loss of token classification."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import Dataset, Targets
from pocketzoo.zoo.catalog.task import LossSettings, ModelFacts
from pocketzoo.zoo.data.target_kinds import IGNORED
from pocketzoo.zoo.tasks.training.classes import class_weights
from pocketzoo.zoo.tasks.training.first_output import first


class TokenClassTraining:
    """Cross entropy of each token whose class is known; targets are (N, T), ``IGNORED`` elsewhere.

    Those are the first tokens of words: neither the others nor what a text is filled up with are learned from.
    ``balanced`` gives all classes one weight.
    """

    def outputs(self, dataset: Dataset, model: ModelFacts) -> int:
        targets = dataset.split("train").targets
        if targets is None or targets.ndim != 2 or not (targets != IGNORED).any():
            raise DataError(
                f"{dataset.name} has no tags of words",
                "give a CoNLL file, a table with columns of words and tags, or an .npz with y of (texts, tokens)",
            )
        known = [split.targets.max() for split in dataset.splits.values() if split.targets is not None]
        count = len(dataset.labels) or 1 + int(max(known))
        if count < 2:
            raise DataError(f"{dataset.name} has one tag, and no other", "fit needs two or more")
        return count

    def begin(self, head: nn.Module, targets: Targets, settings: LossSettings) -> None:
        self.smoothing = settings.label_smoothing
        known = targets[targets != IGNORED]
        self.weights = class_weights(known, settings.outputs) if settings.balanced else None

    def loss(self, outputs: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        logits = first(outputs)
        wanted = targets[:, : logits.shape[1]].flatten()  # what stands after all texts of a batch may be missing of it
        return F.cross_entropy(
            logits.flatten(0, 1),
            wanted,
            weight=None if self.weights is None else self.weights.to(logits.device),
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=self.smoothing,
        )

    def weight(self, targets: Tensor) -> Tensor:
        known = targets[targets != IGNORED]
        if self.weights is None:
            return torch.tensor(float(len(known)))
        return self.weights.to(known.device)[known].sum()
