"""What an error does to the output, against the Jacobian written down."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pocketzoo.compress.pruning import gauss_newton as sensitivity
from pocketzoo.compress.pruning.gauss_newton import output_sensitivity, square_root


def test_it_is_the_jacobian_squared(monkeypatch, batches):
    """Linear layers: the error of the first reaches the output through the second's weight alone."""
    monkeypatch.setattr(sensitivity, "DIRECTIONS", 400)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    samples = batches((5,), 16)
    found = output_sensitivity(model, ["0", "1"], samples)
    with torch.no_grad():
        energy = float(model(torch.from_numpy(np.concatenate(samples))).square().sum()) / 16
    weight = model[1].weight.detach().double()
    torch.testing.assert_close(found["0"] * energy, weight.T @ weight, rtol=0.1, atol=0.05)
    torch.testing.assert_close(found["1"] * energy, torch.eye(3, dtype=torch.float64), rtol=0.1, atol=0.1)


def test_what_the_output_does_not_depend_on_is_left_out(batches):
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(5, 2), nn.Linear(5, 2)

        def forward(self, x):
            self.idle(x)
            return self.used(x)

    assert set(output_sensitivity(Idle(), ["used", "idle"], batches((5,), 4))) == {"used"}


def test_it_leaves_nothing_behind(batches):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 2))
    output_sensitivity(model, ["0", "3"], batches((3, 6, 6), 4))
    for parameter in model.parameters():
        assert parameter.requires_grad
        assert parameter.grad is None
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("matrix", [torch.diag(torch.tensor([4.0, 1.0, 0.0])), torch.ones(3, 3)])
def test_a_root_squares_to_the_matrix(matrix):
    R = square_root(matrix.double())
    torch.testing.assert_close(R.T @ R, matrix.double())
    torch.testing.assert_close(square_root(torch.tensor([4.0, 9.0])), torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
