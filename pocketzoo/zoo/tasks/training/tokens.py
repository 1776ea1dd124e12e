"""The loss of language models."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from pocketzoo.zoo.catalog.dataset import Dataset, Targets
from pocketzoo.zoo.catalog.task import LossSettings, ModelFacts
from pocketzoo.zoo.data.target_kinds import IGNORED
from pocketzoo.zoo.tasks.training.first_output import first


class TokenTraining:
    """Cross entropy with the tokens that follow, (N, T) with ``IGNORED`` where none is known."""

    def outputs(self, dataset: Dataset, model: ModelFacts) -> int:
        return int(model.input.vocabulary)

    def begin(self, head: nn.Module, targets: Targets, settings: LossSettings) -> None:
        self.smoothing = settings.label_smoothing

    def loss(self, outputs: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        return next_token_loss(first(outputs), targets, self.smoothing)

    def weight(self, targets: Tensor) -> Tensor:
        return (targets != IGNORED).sum().float()


def next_token_loss(out: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy of logits (B, T, vocabulary) with the tokens that follow (B, T or more), summed over those known.

    What stands after all texts of a batch may be missing of ``out``.
    """
    targets = y[:, : out.shape[1]].flatten()
    return F.cross_entropy(
        out.flatten(0, 1), targets, ignore_index=IGNORED, reduction="sum", label_smoothing=label_smoothing
    )
