"""Moments within samples and between them add up to those of all rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pocketzoo.compress.statistics.sample_moments import sample_moments
from pocketzoo.compress.statistics.second_moments import rows

LAYERS = {"Conv2d": (nn.Conv2d(3, 4, 3, padding=1), (3, 5, 6)), "Linear": (nn.Linear(6, 2), (5, 6))}


@pytest.mark.parametrize(("layer", "shape"), LAYERS.values(), ids=LAYERS)
def test_within_and_between_are_the_whole(layer, shape):
    x = np.random.default_rng(0).normal(1.0, 2.0, (10, *shape)).astype(np.float32)
    folds = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    found = sample_moments(nn.Sequential(layer), ["0"], [x[:7], x[7:]], folds)
    assert [len(fold["0"].means) for fold in found] == [4, 3, 3]
    for number, fold in enumerate(found):
        read = rows(layer, torch.from_numpy(x)[folds == number])
        mean = fold["0"].mean
        torch.testing.assert_close(mean, read.mean(0))
        whole = fold["0"].within / len(fold["0"].means) + fold["0"].between(mean)
        torch.testing.assert_close(whole, (read - mean).T @ (read - mean) / len(read), rtol=1e-4, atol=1e-4)
        # About anything else, the square of the distance is added.
        apart = torch.outer(mean - 1, mean - 1)
        torch.testing.assert_close(fold["0"].between(torch.ones(())), fold["0"].between(mean) + apart)


def test_moments_of_folds_are_added_sample_by_sample():
    x = np.random.default_rng(1).normal(size=(6, 4, 3)).astype(np.float32)
    model = nn.Sequential(nn.Linear(3, 2))
    one, other = sample_moments(model, ["0"], [x], torch.tensor([0, 1, 0, 1, 1, 0]))
    (whole,) = sample_moments(model, ["0"], [x], torch.zeros(6, dtype=torch.int64))
    both = one["0"] + other["0"]
    torch.testing.assert_close(both.within, whole["0"].within)
    torch.testing.assert_close(both.mean, whole["0"].mean)


def test_windows_of_a_sample_are_its_positions():
    """A layer may be given the windows of a sample as if they were samples."""

    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x):
            return self.layer(x.reshape(-1, 2, 3))

    x = np.random.default_rng(2).normal(size=(4, 6, 3)).astype(np.float32)
    (found,) = sample_moments(Windows(), ["layer"], [x], torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(found["layer"].means, torch.from_numpy(x).mean(1))
