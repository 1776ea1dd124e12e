"""Optimizers and learning-rate schedules by name; a learning rate for each block of the backbone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from pocketzoo.core.renamed import keywords_renamed
from pocketzoo.train.settings import TrainConfig
from pocketzoo.zoo.models.backbone_blocks import BackboneBlock


def build_optimizer(head: nn.Module, body: Sequence[BackboneBlock], config: TrainConfig) -> torch.optim.Optimizer:
    """Over the parameters of ``head`` and of the blocks of ``body`` that learn, which stand in the order they run.

    The last block learns at ``backbone_rate`` times the head's rate, and each one before it ``layer_decay`` times
    slower (discriminative fine-tuning, Howard & Ruder 2018, arXiv:1801.06146). Biases and norms are not decayed (He et
    al. 2019, arXiv:1812.01187, section 3.1).
    """
    rates = [config.backbone_rate * config.layer_decay ** (len(body) - 1 - i) for i in range(len(body))]
    groups: list[dict[str, Any]] = []
    learning = [*(block.parameters for block in body), list(head.parameters())]
    for parameters, share in zip(learning, [*rates, 1.0], strict=True):
        for decays in (True, False):
            chosen = [p for p in parameters if (p.ndim > 1) == decays]
            decay = config.weight_decay if decays else 0.0
            if chosen:
                rate = config.learning_rate * share
                groups.append({"params": chosen, "lr": rate, "highest": rate, "weight_decay": decay})
    match config.optimizer:
        case "adamw":
            return torch.optim.AdamW(groups)  # arXiv:1711.05101
        case "adam":
            return torch.optim.Adam(groups)
        case "sgd":
            return torch.optim.SGD(groups, momentum=config.momentum)
        case "rmsprop":
            return torch.optim.RMSprop(groups, momentum=config.momentum)


@keywords_renamed(optimiser="optimizer")
def set_rate(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int, steps: int) -> None:
    """Give every group its rate for ``step`` (from 0) of ``steps``: a linear warm-up, then the schedule."""
    for group in optimizer.param_groups:
        group["lr"] = group["highest"] * _share(config, step, steps)


def _share(config: TrainConfig, step: int, steps: int) -> float:
    """Of the highest rate."""
    warm = round(config.warm_up * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    done = (step - warm) / max(steps - warm, 1)
    match config.schedule:
        case "cosine":
            return (1 + math.cos(math.pi * done)) / 2
        case "linear":
            return 1 - done
        case "step":
            return float(0.1 ** int(3 * done))
        case "constant":
            return 1.0
