"""The loss of classification."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import Dataset, Targets
from pocketzoo.zoo.catalog.task import LossSettings, ModelFacts
from pocketzoo.zoo.tasks.training.first_output import first


class ClassTraining:
    """Cross entropy, or another function of torch.nn.functional that the head names; targets are classes (N,).

    Label smoothing is that of Szegedy et al. 2015 (arXiv:1512.00567). ``balanced`` gives all classes one weight.
    """

    def outputs(self, dataset: Dataset, model: ModelFacts) -> int:
        if not dataset.labels:
            raise DataError(
                f"{dataset.name} has no classes",
                "make one sub-folder per class, or name the label column of a table: --label-column",
            )
        if len(dataset.labels) == 1:
            raise DataError(
                f"{dataset.name} has one class, {dataset.labels[0]!r}", "fit needs two or more labeled classes"
            )
        return len(dataset.labels)

    def begin(self, head: nn.Module, targets: Targets, settings: LossSettings) -> None:
        function: Callable[..., Tensor] = partial(getattr(F, settings.name or "cross_entropy"), reduction="sum")
        if settings.label_smoothing:
            function = partial(function, label_smoothing=settings.label_smoothing)
        self.function = function
        self.weights = class_weights(targets, settings.outputs) if settings.balanced else None

    def loss(self, outputs: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        logits = first(outputs)
        if self.weights is None:
            return self.function(logits, targets)
        return self.function(logits, targets, weight=self.weights.to(logits.device))

    def weight(self, targets: Tensor) -> Tensor:
        if self.weights is None:
            return torch.tensor(float(len(targets)))
        return self.weights.to(targets.device)[targets].sum()


def class_weights(targets: Targets, count: int) -> Tensor:
    """What a sample of each class counts (count,): all classes together alike, all samples 1 on average."""
    seen = np.bincount(targets, minlength=count)
    return torch.tensor(len(targets) / np.maximum(seen, 1) / max(int((seen > 0).sum()), 1), dtype=torch.float32)
