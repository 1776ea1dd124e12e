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


# -- to the weight


def _linear(weight: list[list[float]]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight), bias=False)
    layer.weight.data = torch.tensor(weight)
    return layer


@pytest.mark.parametrize(
    ("importance", "mask"),
    [
        ([[1.0, 2, 3, 4]], [[0.0, 0, 1, 1]]),
        ([[4.0, 3, 2, 1, 1, 5, 5, 0]], [[1.0, 1, 0, 0, 0, 1, 1, 0]]),
        ([[9.0, 8, 7, 6, 0, 1, 2, 3]], [[1.0, 1, 0, 0, 0, 0, 1, 1]]),
        ([[0.0, 1, 0, 2], [5, 0, 4, 0]], [[0.0, 1, 0, 1], [1, 0, 1, 0]]),
    ],
)
def test_two_of_each_four_neighbors_stay(importance, mask):
    assert sparse.two_of_four(torch.tensor(importance)).tolist() == mask
    kernel = torch.tensor(importance)[:, :, None, None] * torch.ones(1, 1, 2, 1)
    assert sparse.two_of_four(kernel)[:, :, 1, 0].tolist() == mask


def test_without_samples_the_largest_stay_and_with_them_those_that_matter():
    """An input that is ten times as large makes up for a weight a tenth as large, and more."""
    row = [1.0, 0.3, 0.9, 0.8] * 8
    model = nn.Sequential(_linear([row] * 8))
    plan = PrunePlan(patterns={"0.weight": "2:4"}, refit=True)
    unfitted = PrunePlan(patterns={"0.weight": "2:4"}, refit=False)
    x = np.random.default_rng(0).normal(size=(4000, 32)).astype(np.float32)
    x[:, 1::4] *= 10
    for made_by, samples, kept in ((plan, None, [0, 2]), (unfitted, [x], [0, 2]), (plan, [x], [0, 1])):
        pruned = copy.deepcopy(model)
        sparse.apply(model, pruned, made_by, samples)
        found = (pruned[0].weight != 0).float()
        assert found.tolist() == [[1.0 if i in kept else 0.0 for i in range(4)] * 8] * 8
    changed = copy.deepcopy(model)
    sparse.apply(model, changed, unfitted, [x])
    assert torch.equal(changed[0].weight[:, ::4], model[0].weight[:, ::4])


def test_a_magnitude_at_the_threshold_goes():
    model = nn.Sequential(_linear([[0.5, -0.5, 0.51, -0.25, 2.0]]), _linear([[0.1]]))
    pruned = copy.deepcopy(model)
    sparse.apply(model, pruned, PrunePlan(thresholds={"0.weight": 0.5}), None)
    assert pruned[0].weight.tolist() == [[0.0, 0.0, pytest.approx(0.51), 0.0, 2.0]]
    assert torch.equal(pruned[1].weight, model[1].weight)


def test_inputs_that_are_not_finite_are_named(nvidia):
    model = nn.Sequential(_linear([[1.0] * 32] * 8))
    plan = PrunePlan(patterns={"0.weight": "2:4"})
    with pytest.raises(DataError) as caught:
        sparse.apply(model, copy.deepcopy(model), plan, [np.full((4, 32), np.inf, np.float32)])
    assert str(caught.value) == "calibration: the inputs of 0.weight are not finite\ncheck the samples for NaN"


def test_grouped_convolutions_are_cut_and_not_refitted(randomised, batches):
    model = randomised(nn.Sequential(nn.Conv2d(4, 8, 1, groups=2, bias=False), nn.Conv2d(8, 4, 1, bias=False)))
    plan = PrunePlan(thresholds={"0.weight": 0.3, "1.weight": 0.1})
    fitted = copy.deepcopy(model)
    sparse.apply(model, fitted, plan, batches((4, 5, 5), 32))
    for i, limit in enumerate((0.3, 0.1)):
        cut = torch.where(model[i].weight.abs() <= limit, torch.zeros(()), model[i].weight)
        assert 0 < int((cut == 0).sum()) < cut.numel()
        assert torch.equal(fitted[i].weight == 0, cut == 0)
        assert torch.equal(fitted[i].weight, cut) == (i == 0)


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({}, {"stem", "wide", "deep", "fc1", "fc2"}),
        ({"skip": ("fc*",)}, {"stem", "wide", "deep"}),
        ({"only": ("fc*",)}, {"fc1", "fc2"}),
        ({"only": ("fc*",), "skip": ("fc2",)}, {"fc1"}),
        ({"only": ("fc1",), "skip": ("fc1",)}, set()),
    ],
)
def test_what_is_chosen_is_what_is_named_and_not_skipped(options, chosen, model, cpu):
    plan = sparse.plan(model, PruneConfig(ratio=0.5, **WEIGHT, **options), cpu)
    assert {name.removesuffix(".weight") for name in plan.thresholds} == chosen
    pattern = sparse.plan(model, PruneConfig(pattern="2:4", **WEIGHT, **options), cpu)
    assert {name.removesuffix(".weight") for name in pattern.patterns} | set(pattern.dense) == chosen
    assert set(pattern.dense) == chosen & {"stem", "deep", "fc2"}


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("options", [{"ratio": 0.5}, {"pattern": "2:4"}])
def test_a_plan_says_whether_it_refits_and_what_is_left(refit, options, cpu):
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(32, 32), nn.Conv1d(32, 8, 1)

        def forward(self, x):
            return self.b(self.a(x)[:, :, None])

    plan = sparse.plan(Odd(), PruneConfig(refit=refit, **options, **WEIGHT), cpu)
    assert plan.refit == refit
    assert plan.left == {"b": "a Conv1d: only Conv2d and Linear are supported"}
    none = sparse.plan(nn.Sequential(nn.Conv1d(3, 3, 1)), PruneConfig(**options, **WEIGHT), cpu)
    assert none.left == {"0": "a Conv1d: only Conv2d and Linear are supported"}
    assert (none.thresholds, none.patterns) == ({}, {})
    nothing = sparse.plan(Odd(), PruneConfig(ratio=0.0, **WEIGHT), cpu)
    assert (nothing.left, nothing.thresholds) == (plan.left, {})


def test_what_a_target_gains_is_said_whole(nvidia, cpu):
    assert sparse.gain(nvidia) == (
        "sparse Tensor Cores (Ampere or later) run these layers in fp16 and int8 at up to twice the rate; whole"
        " models usually gain less than 15%, small layers nothing: build the engine with and without, and measure"
    )
    assert sparse.gain(cpu) == (
        "none: onnxruntime computes with the zeros and the file keeps its size; only a compressed archive is smaller"
    )
    assert sparse.unsuited(nn.Linear(48, 8)) == "48 inputs and 8 outputs: sparse kernels need multiples of 32 and of 8"
