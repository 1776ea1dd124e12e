"""How good outputs are: sums over batches, so that processes can add theirs up, and the metric made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Score:
    """A metric of which more is better."""

    add: Callable[[Tensor, Tensor], Tensor]  # outputs and targets of a batch to sums, in double precision
    value: Callable[[Tensor], float]  # all sums to the metric


def _right(out: Tensor, y: Tensor) -> Tensor:
    return torch.tensor([float((out.argmax(1) == y).sum()), float(len(y))], dtype=torch.float64, device=out.device)


def _squares(out: Tensor, y: Tensor) -> Tensor:
    wanted, missed = y.double(), (out.double() - y.double()).square()
    return torch.stack([torch.full_like(wanted[0], len(y)), wanted.sum(0), wanted.square().sum(0), missed.sum(0)])


def _r2(sums: Tensor) -> float:
    """See ``measure.r2``."""
    count, total, squares, missed = sums
    spread = squares - total.square() / count
    constant = spread <= 1e-12 * squares
    shares = torch.where(constant, (missed > 0).double(), missed / torch.where(constant, 1.0, spread))
    return float(1 - shares.mean())


SCORES = {
    "accuracy": Score(_right, lambda sums: float(sums[0] / sums[1])),
    "r2": Score(_squares, _r2),
}
