"""The loss of regression."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import Dataset, Targets
from pocketzoo.zoo.catalog.task import LossSettings, ModelFacts
from pocketzoo.zoo.tasks.training.first_output import first


class ValueTraining:
    """Squared error, or another function of torch.nn.functional that the head names, in deviations of the targets.

    Targets are (N, outputs). Measured in their standard deviations, one learning rate fits numbers of any size. A head
    with a method ``standardize(offset, scale)`` is told them, and so starts where the targets are.
    """

    def outputs(self, dataset: Dataset, model: ModelFacts) -> int:
        targets = dataset.split("train").targets
        if targets is None or targets.dtype.kind != "f" or targets.ndim != 2:
            raise DataError(f"{dataset.name} has no regression targets", "give an .npz with y, or a .csv")
        return int(targets.shape[1])

    def begin(self, head: nn.Module, targets: Targets, settings: LossSettings) -> None:
        self.function = partial(getattr(F, settings.name or "mse_loss"), reduction="sum")
        wanted = torch.from_numpy(targets)
        self.offset, scale = wanted.mean(0), wanted.std(0, correction=0)
        self.scale = torch.where(scale > 0, scale, 1.0)
        if callable(standardize := getattr(head, "standardize", getattr(head, "standardise", None))):
            standardize(self.offset, self.scale)

    def loss(self, outputs: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        values = first(outputs)
        by, size = self.offset.to(values.device), self.scale.to(values.device)
        loss: Tensor = self.function((values - by) / size, (targets - by) / size)
        return loss

    def weight(self, targets: Tensor) -> Tensor:
        return torch.tensor(float(targets.numel()))
