"""Zeros in plain layers: where they are, how many, and that what stays makes up for them."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pocketzoo.compress.configs import PruneConfig
from pocketzoo.compress.plans import PrunePlan, Saving
from pocketzoo.compress.pruning import prune, sparse
from pocketzoo.core.errors import DataError
from pocketzoo.core.typed import from_plain, to_plain

WEIGHT = {"granularity": "weight"}


class Mixed(nn.Module):
    """Layers that 2:4 suits, and some that it does not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.wide = nn.Conv2d(32, 32, 3, padding=1)
        self.deep = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.fc1, self.fc2 = nn.Linear(32, 40), nn.Linear(40, 5)

    def forward(self, x):
        y = torch.relu(self.deep(torch.relu(self.wide(torch.relu(self.stem(x))))))
        return self.fc2(torch.relu(self.fc1(y.mean((2, 3)))))


@pytest.fixture(scope="module")
def model(randomised):
    return randomised(Mixed())


@pytest.fixture(scope="module")
def samples(batches):
    return batches((3, 8, 8), 48)


def _error(model, smaller, samples) -> float:
    with torch.no_grad():
        return sum(float((model(torch.from_numpy(x)) - smaller(torch.from_numpy(x))).square().sum()) for x in samples)


@pytest.mark.parametrize("refit", [False, True])
def test_two_of_any_four_inputs_are_zero(refit, model, samples, nvidia):
    plan = prune.plan(model, PruneConfig(pattern="2:4", refit=refit, **WEIGHT), samples, nvidia)
    assert set(plan.patterns) == {"wide.weight", "fc1.weight"}
    smaller = prune.apply(model, plan, samples)
    for name in plan.patterns:
        weight = smaller.get_parameter(name).detach()
        fours = weight.movedim(1, -1).reshape(-1, 4)
        assert ((fours != 0).sum(1) == 2).all()


def test_layers_that_stay_dense_say_why(model, samples, nvidia, cpu):
    plan = prune.plan(model, PruneConfig(pattern="2:4", **WEIGHT), samples, nvidia)
    assert set(plan.dense) == {"stem", "deep", "fc2"}
    assert plan.dense["deep"] == "grouped convolution"
    assert "3 inputs" in plan.dense["stem"]
    assert "sparse Tensor Cores" in plan.gain
    assert prune.plan(model, PruneConfig(pattern="2:4", **WEIGHT), samples, cpu).gain.startswith("none")


@given(st.integers(0, 2**31 - 1), st.sampled_from([(8, 4), (3, 12), (4, 8, 3, 3)]))
def test_the_most_important_two_stay(seed, shape):
    importance = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    mask = sparse.two_of_four(importance)
    assert mask.shape == importance.shape
    fours = importance.movedim(1, -1).reshape(-1, 4)
    kept = mask.movedim(1, -1).reshape(-1, 4)
    assert (kept.sum(1) == 2).all()
    assert torch.equal((fours * kept).sum(1), fours.sort(1).values[:, 2:].sum(1)) or torch.allclose(
        (fours * kept).sum(1), fours.sort(1).values[:, 2:].sum(1)
    )


def test_zeros_in_a_weight_go_first(randomised, samples, nvidia):
    """A layer that has the pattern already keeps its weights bit for bit."""
    model = randomised(nn.Sequential(nn.Conv2d(3, 32, 1), nn.ReLU(), nn.Conv2d(32, 8, 1)))
    model[2].weight.data *= sparse.two_of_four(torch.rand(8, 32, 1, 1))
    plan = prune.plan(model, PruneConfig(pattern="2:4", refit=False, **WEIGHT), samples, nvidia)
    assert torch.equal(prune.apply(model, plan, samples)[2].weight, model[2].weight)


@pytest.mark.parametrize("options", [{"ratio": 0.5}, {"ratio": 0.8}, {"pattern": "2:4"}])
@pytest.mark.parametrize("seed", range(3))
def test_refitting_never_loses_on_its_own_samples(options, seed, randomised, batches, nvidia):
    """One layer: what is left of its weights by least squares, against the same weights as they were."""
    model = randomised(nn.Sequential(nn.Conv2d(32, 8, 1, bias=False)), seed)
    samples = batches((32, 6, 6), 32)
    plan = prune.plan(model, PruneConfig(**options, **WEIGHT), samples, nvidia)
    cut, fitted = prune.apply(model, plan), prune.apply(model, plan, samples)
    masked = copy.deepcopy(model)
    masked[0].weight.data *= fitted[0].weight != 0
    assert _error(model, fitted, samples) <= _error(model, masked, samples) * (1 + 1e-6)
    assert (cut[0].weight == 0).sum() == (fitted[0].weight == 0).sum()


def test_a_weight_whose_input_repeats_another_is_made_up_for(randomised, batches, nvidia):
    """Inputs in equal pairs: with one of each pair zero, the other can carry both, exactly."""
    model = randomised(nn.Sequential(nn.Linear(16, 32), nn.Linear(32, 8)))
    model[0].weight.data[1::2], model[0].bias.data[1::2] = model[0].weight.data[0::2], model[0].bias.data[0::2]
    model[1].weight.data[:, 1::2] *= 1e-3  # the smaller half of the second layer: what magnitude takes
    samples = batches((16,), 512, 64)
    plan = prune.plan(model, PruneConfig(ratio=0.5, skip=("0",), **WEIGHT), samples, nvidia)
    wanted = model[1].weight.data[:, 0::2] + model[1].weight.data[:, 1::2]
    fitted = prune.apply(model, plan, samples)[1].weight
    gone = fitted[:, 1::2] == 0
    assert gone.float().mean() > 0.9
    torch.testing.assert_close(fitted[:, 0::2][gone], wanted[gone], rtol=1e-2, atol=1e-3)


def test_the_textbook_recipe_only_sets_zeros(model, samples, cpu):
    plan = prune.plan(model, PruneConfig(ratio=0.5, refit=False, **WEIGHT), samples, cpu)
    smaller = prune.apply(model, plan, samples)
    for name, weight in smaller.named_parameters():
        before = model.get_parameter(name)
        assert torch.equal(weight[weight != 0], before[weight != 0])


@pytest.mark.parametrize("options", [{"ratio": 0.5}, {"pattern": "2:4"}])
def test_nothing_but_zeros_is_left_behind(options, model, samples, nvidia):
    """The plan and the weights are all: no hook, buffer or mask remains."""
    plan = prune.plan(model, PruneConfig(**options, **WEIGHT), samples, nvidia)
    smaller = prune.apply(model, plan, samples)
    assert [type(m) for m in smaller.modules()] == [type(m) for m in model.modules()]
    assert all(not m._forward_pre_hooks and not m._forward_hooks for m in smaller.modules())
    assert smaller.state_dict().keys() == model.state_dict().keys()
    read = from_plain(PrunePlan, json.loads(json.dumps(to_plain(plan))))
    again = prune.apply(model, read)
    again.load_state_dict(smaller.state_dict())
    x = torch.from_numpy(samples[0])
    assert torch.equal(again(x), smaller(x))


def test_samples_that_are_not_finite_are_refused(model, samples, nvidia, refused):
    bad = [np.full_like(samples[0], np.nan)]
    plan = prune.plan(model, PruneConfig(pattern="2:4", **WEIGHT), bad, nvidia)
    with refused(DataError, "not finite"):
        prune.apply(model, plan, bad)


def test_only_names_what_may_be_sparse(model, samples, cpu):
    plan = prune.plan(model, PruneConfig(ratio=0.5, only=("fc*",), **WEIGHT), samples, cpu)
    assert set(plan.thresholds) == {"fc1.weight", "fc2.weight"}


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.25, 0.5, 0.9, 0.999])
def test_the_threshold_is_the_largest_magnitude_that_goes(ratio, cpu):
    """Twelve weights and twenty: of all together the fraction, rounded down, goes."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(4, 5))
    order = torch.randperm(32, generator=torch.Generator().manual_seed(1)).float() - 15.5
    model[0].weight.data, model[1].weight.data = order[:12].view(3, 4), order[12:].view(5, 4)
    plan = sparse.plan(model, PruneConfig(ratio=ratio, **WEIGHT), cpu)
    count = int(ratio * 32)
    if count == 0:
        assert (plan.thresholds, plan.savings) == ({}, {})
        return
    magnitudes = sorted(order.abs().tolist())
    assert plan.thresholds == dict.fromkeys(("0.weight", "1.weight"), magnitudes[count - 1])
    left = sum(magnitude > magnitudes[count - 1] for magnitude in magnitudes)
    assert plan.savings == {"nonzero": Saving(before=32, after=left)}
    pruned = copy.deepcopy(model)
    sparse.apply(model, pruned, plan, None)
    assert sum(int((layer.weight != 0).sum()) for layer in pruned) == left


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (nn.Linear(32, 8), ""),
        (nn.Conv2d(64, 16, 3), ""),
        (nn.Linear(31, 8), "31 inputs and 8 outputs"),
        (nn.Linear(32, 9), "32 inputs and 9 outputs"),
        (nn.Linear(16, 8), "16 inputs and 8 outputs"),
        (nn.Conv2d(64, 64, 3, groups=2), "grouped convolution"),
    ],
)
def test_sparse_kernels_take_multiples_of_32_and_8(layer, why):
    assert sparse.unsuited(layer).startswith(why)
    assert bool(sparse.unsuited(layer)) == bool(why)
