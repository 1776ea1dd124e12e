"""Training metrics as sums over batches, so that processes can add theirs up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pocketzoo.core.numerics import right_answers, unexplained
from pocketzoo.zoo.data.token_windows import IGNORED


@dataclass(frozen=True)
class SummedMetric:
    """A metric of which more is better."""

    add: Callable[[Tensor, Tensor], Tensor]  # outputs and targets of a batch to sums, in double precision
    value: Callable[[Tensor], float]  # all sums to the metric


def _right(out: Tensor, y: Tensor) -> Tensor:
    return torch.tensor([float(right_answers(out, y).sum()), float(len(y))], dtype=torch.float64, device=out.device)


def _squares(out: Tensor, y: Tensor) -> Tensor:
    targets, missed = y.double(), (out.double() - y.double()).square()
    return torch.stack([torch.full_like(targets[0], len(y)), targets.sum(0), targets.square().sum(0), missed.sum(0)])


def _r2(sums: Tensor) -> float:
    """``core.numerics.r2``, of sums."""
    count, total, squares, missed = sums.cpu()
    spread = squares - total.square() / count
    fractions = unexplained(missed.numpy(), spread.numpy(), (spread <= 1e-12 * squares).numpy())
    return float(1 - torch.from_numpy(fractions).mean())


def _likelihoods(out: Tensor, y: Tensor) -> Tensor:
    total = -next_token_loss(out, y).double()
    return torch.stack([total, (y != IGNORED).sum().to(total)])


def next_token_loss(out: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy of logits (B, T, vocabulary) with the tokens that follow (B, T or more), summed over those known.

    What stands after all texts of a batch may be missing of ``out``.
    """
    targets = y[:, : out.shape[1]].flatten()
    return F.cross_entropy(
        out.flatten(0, 1), targets, ignore_index=IGNORED, reduction="sum", label_smoothing=label_smoothing
    )


SCORES = {
    "accuracy": SummedMetric(_right, lambda sums: float(sums[0] / sums[1])),
    "r2": SummedMetric(_squares, _r2),
    # Of a token, in nats; perplexity is e to the power of what is missing to 0.
    "log_likelihood": SummedMetric(_likelihoods, lambda sums: float(sums[0] / sums[1])),
}
