"""Counts that least harm the output for what they save, and budgets that hold exactly."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pocketzoo.compress.configs import PruneConfig
from pocketzoo.compress.pruning import prune
from pocketzoo.compress.pruning.channel_budget import Curves, choices, uniform
from pocketzoo.compress.pruning.channels import Group
from pocketzoo.compress.pruning.saliency import Elimination
from pocketzoo.core.errors import RecipeError
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.graphs.cost import layer_costs
from pocketzoo.zoo.models.export_graph import onnx_from_model


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(24, 32, 3, padding=1)
        self.deep, self.c = nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.Conv2d(32, 16, 1)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.c(torch.relu(self.deep(torch.relu(self.b(torch.relu(self.a(x))))))))
        return self.fc(y.mean((2, 3)))


@pytest.fixture(scope="module")
def model(randomised):
    return randomised(Small())


@pytest.fixture(scope="module")
def samples(batches):
    return batches((3, 8, 8), 16)


def _group(size: int, width: int = 1) -> Group:
    return Group(("w",), np.arange(size), width)


@pytest.mark.parametrize("scope", ["global", "uniform"])
@pytest.mark.parametrize("budget", ["macs", "parameters"])
@pytest.mark.parametrize("share", [0.9, 0.6, 0.3])
def test_a_budget_holds_and_is_used(share, budget, scope, model, samples, free):
    plan = prune.plan(model, PruneConfig(**{budget: share}, scope=scope, multiple=1), samples, free)
    saving = plan.savings[budget]
    assert share - 0.12 <= saving.after / saving.before <= share


def test_savings_are_those_of_the_graph(model, samples, cpu, tmp_path):
    plan = prune.plan(model, PruneConfig(macs=0.6), samples, cpu)
    spec = InputSpec(shape=("batch", 3, 8, 8), mean=(0,) * 3, std=(1,) * 3, resize=8)
    for name, module, side in (("before", model, "before"), ("after", prune.apply(model, plan), "after")):
        onnx_from_model(module, spec, tmp_path / f"{name}.onnx")
        layers = layer_costs(tmp_path / f"{name}.onnx")
        assert sum(layer.macs for layer in layers) == getattr(plan.savings["macs"], side)
        assert sum(p.numel() for p in module.parameters()) == getattr(plan.savings["parameters"], side)


def test_a_budget_of_all_removes_nothing(model, samples, cpu):
    assert prune.plan(model, PruneConfig(macs=1.0), samples, cpu).axes == {}


def test_a_latency_budget_makes_the_model_cheaper(model, samples, cpu):
    plan = prune.plan(model, PruneConfig(latency=0.5, multiple=1), samples, cpu)
    assert plan.savings["macs"].after < plan.savings["macs"].before


@pytest.mark.parametrize(
    "wrong",
    [
        {"macs": 0.0},
        {"macs": 1.1},
        {"latency": -1.0},
        {"macs": 0.5, "parameters": 0.5},
        {"macs": 0.5, "granularity": "weight"},
        {"pattern": "2:4"},
    ],
)
def test_budgets_that_cannot_be_are_refused(wrong):
    with pytest.raises(RecipeError):
        PruneConfig(**wrong)


costs = st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=5)


@given(st.lists(costs, min_size=1, max_size=3), st.floats(0.1, 0.9))
def test_what_is_taken_fits_and_nothing_more_would(marginals, share):
    groups = [_group(len(m) + 1) for m in marginals]
    orders = [Elimination(tuple(range(len(m))), tuple(np.cumsum(m))) for m in marginals]
    wanted = share * sum(len(g.channels) for g in groups)
    counts = Curves(groups, orders, [1.0] * len(groups), 1).share(wanted)
    assert sum(counts) <= wanted + 1e-6
    room = any(n < len(m) for n, m in zip(counts, marginals, strict=True))
    assert not room or sum(counts) + 1 > wanted


@given(st.lists(costs, min_size=1, max_size=3))
def test_with_growing_prices_no_other_choice_of_as_many_is_cheaper(marginals):
    """Convex curves: the choice at a price is the best of all that save as much."""
    marginals = [sorted(m) for m in marginals]
    groups = [_group(len(m) + 1) for m in marginals]
    orders = [Elimination(tuple(range(len(m))), tuple(np.cumsum(m))) for m in marginals]
    curves = Curves(groups, orders, [1.0] * len(groups), 1)
    for price in (0.01, 0.1, 0.5):
        counts = curves.at(price)
        harm = sum(sum(m[:n]) for m, n in zip(marginals, counts, strict=True))
        for other in product(*(range(len(m) + 1) for m in marginals)):
            if sum(other) == sum(counts):
                assert harm <= sum(sum(m[:n]) for m, n in zip(marginals, other, strict=True)) + 1e-9


def test_heads_are_a_multiple_already():
    assert choices(_group(12, 64), 8) == [0, *range(1, 12)]
    assert choices(_group(6, 4), 8) == [0, 2, 4]
    assert uniform([_group(12, 64)], 0.25, 16) == [3]
