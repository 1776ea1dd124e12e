"""Targets of batches mixed by mixup or cutmix: two targets per sample, with their weights in the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Wanted = Sequence[tuple[float, Tensor]]  # targets of a batch and their fraction of its loss; several where it is mixed


def sum_of(wanted: Wanted, function: Callable[[Tensor], Tensor]) -> Tensor:
    """``function`` of the targets, in their fractions.

    Cross entropy is linear in the labels, so this is the loss of soft ones: with label smoothing, which is linear too,
    and with weights of classes. The squared error of mixed numbers differs from it by what no gradient sees.
    """
    found = [share * function(y) for share, y in wanted]
    return found[0] if len(found) == 1 else torch.stack(found).sum(0)
