"""The loss of multi-label classification."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import Dataset, Targets
from pocketzoo.zoo.catalog.task import LossSettings, ModelFacts
from pocketzoo.zoo.tasks.training.first_output import first


class LabelTraining:
    """Binary cross entropy of each label on its own; targets are 0 or 1 for each, (N, labels)."""

    def outputs(self, dataset: Dataset, model: ModelFacts) -> int:
        targets = dataset.split("train").targets
        if not dataset.labels or targets is None or targets.ndim != 2:
            raise DataError(
                f"{dataset.name} does not say of each label whether it is true",
                "give an .npz whose y is (samples, labels) of 0 and 1, or a .csv with several label columns: "
                "--label-column a,b,c",
            )
        return int(targets.shape[1])

    def begin(self, head: nn.Module, targets: Targets, settings: LossSettings) -> None:
        self.smoothing = settings.label_smoothing

    def loss(self, outputs: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        logits = first(outputs)
        wanted = targets.to(logits.dtype) * (1 - self.smoothing) + self.smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")

    def weight(self, targets: Tensor) -> Tensor:
        return torch.tensor(float(targets.numel()))
