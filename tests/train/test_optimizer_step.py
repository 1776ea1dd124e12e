"""A step: the loss of mixed targets is that of soft labels."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from pocketzoo.train.augment.mixed_targets import sum_of


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 2.0, 1.0])], ids=["alike", "weighted"])
def test_shares_of_losses_are_the_loss_of_soft_labels(smoothing, weight):
    generator = torch.Generator().manual_seed(0)
    out = torch.randn(7, 3, generator=generator)
    one, two = torch.randint(3, (2, 7), generator=generator)
    soft = 0.3 * F.one_hot(one, 3) + 0.7 * F.one_hot(two, 3)
    common = {"weight": weight, "label_smoothing": smoothing, "reduction": "sum"}
    wanted = F.cross_entropy(out, soft, **common)
    given = sum_of([(0.3, one), (0.7, two)], lambda y: F.cross_entropy(out, y, **common))
    assert torch.allclose(given, wanted, atol=1e-5)


def test_mixed_numbers_have_the_gradient_of_their_mean():
    generator = torch.Generator().manual_seed(0)
    one, two = torch.randn(2, 7, 2, generator=generator)
    out = torch.randn(7, 2, generator=generator, requires_grad=True)
    sum_of([(0.3, one), (0.7, two)], lambda y: F.mse_loss(out, y, reduction="sum")).backward()
    assert torch.allclose(out.grad, 2 * (out.detach() - (0.3 * one + 0.7 * two)), atol=1e-5)
