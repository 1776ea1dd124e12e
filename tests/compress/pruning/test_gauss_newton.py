"""What an error does to the output, against the Jacobian written down."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pocketzoo.compress.pruning import gauss_newton as sensitivity
from pocketzoo.compress.pruning.gauss_newton import SAMPLES, output_sensitivity, square_root


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


def test_of_large_layers_it_is_the_diagonal(monkeypatch, batches):
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    given = batches((4,), 6, 3)
    whole = output_sensitivity(model, ["0", "2"], given)
    monkeypatch.setattr("pocketzoo.compress.pruning.gauss_newton.LARGEST", 2)
    found = output_sensitivity(model, ["0", "2"], given)
    torch.testing.assert_close(found["0"], whole["0"].diagonal())
    assert torch.equal(found["2"], whole["2"])


def test_the_first_samples_are_enough(batches):
    model = nn.Sequential(nn.Linear(4, 3))
    given = np.concatenate(batches((4,), 40, 8))
    few, many = (output_sensitivity(model, ["0"], [given[:count]])["0"] for count in (SAMPLES, 40))
    assert torch.equal(few, many)
    assert not torch.equal(few, output_sensitivity(model, ["0"], [given[: SAMPLES - 1]])["0"])


def test_it_is_in_units_of_the_outputs_square():
    """Outputs ten times as large matter a hundred times less for the same error, and depend ten times as much on it."""
    model, larger = (nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 2, bias=False)) for _ in range(2))
    larger.load_state_dict(model.state_dict())
    larger[1].weight.data *= 10
    x = [np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)]
    one, other = (output_sensitivity(net, ["0"], x)["0"] for net in (model, larger))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-9)
