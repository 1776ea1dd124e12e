"""Metrics as sums over batches: whatever the batches, they are those of all samples at once, written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pocketzoo.train.metrics import SCORES, next_token_loss
from pocketzoo.zoo.catalog.specs import METRICS
from pocketzoo.zoo.data.token_windows import IGNORED


def scored(name: str, out: torch.Tensor, y: torch.Tensor, size: int) -> float:
    """By batches of a size, whose sums are added up as processes do it."""
    sums = [SCORES[name].add(out[i : i + size], y[i : i + size]) for i in range(0, len(out), size)]
    assert all(each.dtype == torch.float64 for each in sums)
    return SCORES[name].value(torch.stack(sums).sum(0))


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_there_is_one_for_all_that_is_trained():
    assert set(SCORES) == set(METRICS.values())


@pytest.mark.parametrize("size", [1, 3, 10])
@pytest.mark.parametrize("right", [0, 3, 10])
def test_accuracy_is_the_share_of_right_answers(right, size):
    out = drawn(10, 4)
    y = out.argmax(1)
    y[right:] = (y[right:] + 1) % 4
    assert scored("accuracy", out, y, size) == pytest.approx(right / 10)


@pytest.mark.parametrize("size", [1, 4, 12])
def test_r2_is_the_share_of_the_spread_that_is_met(size):
    y = drawn(12, 3) * torch.tensor([1.0, 100.0, 0.01]) + torch.tensor([0.0, 5.0, -2.0])
    out = y + 0.3 * drawn(12, 3, seed=1)
    missed, spread = (out - y).double().square().sum(0), (y - y.mean(0)).double().square().sum(0)
    assert scored("r2", out, y, size) == pytest.approx(float((1 - missed / spread).mean()), rel=1e-5)
    assert scored("r2", y, y, size) == pytest.approx(1.0)
    assert scored("r2", y.mean(0).expand_as(y), y, size) == pytest.approx(0.0, abs=1e-5)


def test_an_output_that_never_changes_counts_where_it_is_met():
    y = torch.stack([torch.full((6,), 7.0), torch.arange(6.0)], 1)
    assert scored("r2", y, y, 2) == 1.0
    assert scored("r2", y + torch.tensor([0.5, 0.0]), y, 2) == pytest.approx(0.5)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_likelihood_is_the_mean_over_tokens_that_are_known(size):
    out, y = drawn(5, 3, 7), torch.randint(0, 7, (5, 4), generator=torch.Generator().manual_seed(2))
    y[1, 2], y[3, :2] = IGNORED, IGNORED
    y[:, 3] = IGNORED  # what stands after all texts may be missing of the outputs
    logs = torch.log_softmax(out.double(), -1)
    known = [(i, t) for i in range(5) for t in range(3) if y[i, t] != IGNORED]
    wanted = sum(float(logs[i, t, y[i, t]]) for i, t in known) / len(known)
    assert scored("log_likelihood", out, y, size) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.25])
def test_the_loss_of_tokens_is_summed_and_may_be_smoothed(smoothing):
    out, y = drawn(2, 3, 5), torch.tensor([[0, 1, IGNORED, 2], [4, 3, 2, 1]])
    logs = torch.log_softmax(out, -1).numpy()
    wanted = 0.0
    for i in range(2):
        for t in range(3):
            if y[i, t] != IGNORED:
                wanted -= (1 - smoothing) * logs[i, t, y[i, t]] + smoothing * np.mean(logs[i, t])
    assert float(next_token_loss(out, y, smoothing)) == pytest.approx(wanted, rel=1e-5)
    assert math.isclose(float(next_token_loss(out, y)), float(next_token_loss(out, y, 0.0)))


def test_targets_that_are_all_zero_never_change_either():
    y = torch.stack([torch.zeros(6), torch.arange(6.0)], 1)
    assert scored("r2", y, y, 2) == 1.0
    assert scored("r2", y + torch.tensor([0.5, 0.0]), y, 2) == pytest.approx(0.5)


def test_sums_are_of_what_they_say():
    out, y = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]]), torch.tensor([0, 1, 1])
    assert SCORES["accuracy"].add(out, y).tolist() == [2.0, 3.0]
    numbers = torch.tensor([[1.0], [2.0], [4.0]])
    assert SCORES["r2"].add(numbers + 1, numbers).tolist() == [[3.0], [7.0], [21.0], [3.0]]
    assert SCORES["r2"].value(torch.tensor([[3.0], [7.0], [21.0], [3.0]])) == pytest.approx(1 - 3 / (21 - 49 / 3))
    tokens = torch.tensor([[0, IGNORED]])
    total, known = SCORES["log_likelihood"].add(torch.zeros(1, 2, 4), tokens).tolist()
    assert (total, known) == (pytest.approx(-math.log(4)), 1.0)
