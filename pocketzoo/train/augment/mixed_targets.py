"""The targets of a batch whose samples may be mixed: each with its share of the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Wanted = Sequence[tuple[float, Tensor]]  # targets of a batch and their share of its loss; several where it is mixed


def sum_of(wanted: Wanted, function: Callable[[Tensor], Tensor]) -> Tensor:
    """``function`` of the targets, in their shares.

    Cross entropy is linear in the labels, so this is the loss of soft ones: with label smoothing, which is linear too,
    and with weights of classes. The squared error of mixed numbers differs from it by what no gradient sees.
    """
    found = [share * function(y) for share, y in wanted]
    return found[0] if len(found) == 1 else torch.stack(found).sum(0)
