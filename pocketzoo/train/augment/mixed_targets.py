"""Targets of batches mixed by mixup or cutmix: two targets per sample, with their weights in the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Wanted = Sequence[tuple[float, Tensor]]  # targets of a batch and their fraction of its loss; several where it is mixed


def sum_of(targets: Wanted, function: Callable[[Tensor], Tensor]) -> Tensor:
    """``function`` of the targets, in their fractions.

    Cross entropy is linear in the labels, so this is the loss of soft ones: with label smoothing, which is linear too,
    and with weights of classes. The squared error of mixed numbers differs from it by what no gradient sees.
    """
    terms = [share * function(y) for share, y in targets]
    return terms[0] if len(terms) == 1 else torch.stack(terms).sum(0)
