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
from pocketzoo.compress.pruning.channel_budget import Curves, Weight, choices, costs, removed, uniform
from pocketzoo.compress.pruning.channels import Channels, Group
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


COSTS = st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=5)


@given(st.lists(COSTS, min_size=1, max_size=3), st.floats(0.1, 0.9))
def test_what_is_taken_fits_and_nothing_more_would(marginals, share):
    groups = [_group(len(m) + 1) for m in marginals]
    orders = [Elimination(tuple(range(len(m))), tuple(np.cumsum(m))) for m in marginals]
    wanted = share * sum(len(g.channels) for g in groups)
    counts = Curves(groups, orders, [1.0] * len(groups), 1).share(wanted)
    assert sum(counts) <= wanted + 1e-6
    room = any(n < len(m) for n, m in zip(counts, marginals, strict=True))
    assert not room or sum(counts) + 1 > wanted


@given(st.lists(COSTS, min_size=1, max_size=3))
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


# -- small cases against every combination


def _curves(marginals: list[list[float]]) -> Curves:
    """Groups of which one channel more always stays, each saving one unit."""
    groups = [_group(len(m) + 1) for m in marginals]
    orders = [Elimination(tuple(range(len(m))), tuple(np.cumsum(m))) for m in marginals]
    return Curves(groups, orders, [1.0] * len(groups), 1)


def _harm(marginals: list[list[float]], counts: list[int]) -> float:
    return sum(sum(m[:n]) for m, n in zip(marginals, counts, strict=True))


def _least(marginals: list[list[float]], units: int) -> float:
    """The harm of the best choice that saves as many."""
    every = product(*(range(len(m) + 1) for m in marginals))
    return min(_harm(marginals, list(c)) for c in every if sum(c) == units)


STRAIGHT = [[1.0] * 4, [2.0] * 4, [3.0] * 4]  # at their price all of a group go at once: some are given back
BENT = [[0.1, 0.4, 0.9, 1.6], [0.3, 0.5, 0.7, 2.0], [0.2, 0.25, 1.7]]


@pytest.mark.parametrize("marginals", [STRAIGHT, STRAIGHT[::-1], BENT, BENT[::-1], BENT[:1]])
def test_what_goes_for_a_budget_is_the_least_harm_that_fits(marginals):
    for units in range(sum(map(len, marginals)) + 1):
        counts = _curves(marginals).within(lambda c, units=units: sum(c) >= units)
        assert sum(counts) == units
        assert _harm(marginals, counts) == pytest.approx(_least(marginals, units))
        shared = _curves(marginals).share(units + 0.5)
        assert sum(shared) == units
        assert _harm(marginals, shared) == pytest.approx(_least(marginals, units))


def test_where_nothing_fits_as_much_goes_as_may():
    assert _curves(BENT).within(lambda counts: False) == [4, 4, 3]
    assert _curves(BENT).within(lambda counts: True) == [0, 0, 0]
    assert _curves(BENT).share(1e9) == [4, 4, 3]


def test_a_step_is_the_next_count_and_the_harm_of_a_unit_it_saves():
    groups = [_group(9)]
    curve = Curves(groups, [Elimination(tuple(range(8)), tuple(np.arange(1.0, 9) ** 2))], [2.0], 4)
    assert curve.options[0].tolist() == [0, 1, 5]
    assert curve.step([0], 0, 1) == (1, 0.5)
    assert curve.step([1], 0, 1) == (5, 3.0)
    assert curve.step([5], 0, -1) == (1, 3.0)
    assert curve.step([5], 0, 1) is None
    assert curve.step([0], 0, -1) is None


@pytest.mark.parametrize(
    ("sizes", "ratio", "multiple", "counts"),
    [
        ([10, 16], 0.5, 1, [5, 8]),
        ([10, 16], 0.5, 8, [2, 8]),
        ([12], 0.5, 8, [4]),
        ([10], 0.25, 1, [2]),  # 2 and 3 are as near: the one that keeps more
        ([10, 16], 0.0, 8, [0, 0]),
        ([4, 3], 0.99, 1, [3, 2]),
        ([6], 0.9, 8, [0]),
    ],
)
def test_the_same_share_of_each_group(sizes, ratio, multiple, counts):
    assert uniform([_group(size) for size in sizes], ratio, multiple) == counts


def test_costs_are_those_of_layers_written_out():
    """A 3 x 3 convolution of 4 to 8 channels on 100 places, a depthwise one, a bias that multiplies nothing."""
    weights = {
        "a": Weight((8, 4, 3, 3), 100),
        "deep": Weight((8, 1, 3, 3), 25),
        "fc": Weight((5, 8), 1),
        "bias": Weight((8,), 0),
    }
    assert costs(weights, {}) == (8 * 4 * 9 * 100 + 8 * 9 * 25 + 40, 288 + 72 + 40 + 8)
    fewer = {("a", 0): 6, ("deep", 0): 6, ("fc", 1): 6, ("bias", 0): 6}
    assert costs(weights, fewer) == (6 * 4 * 9 * 100 + 6 * 9 * 25 + 30, 216 + 54 + 30 + 6)


def test_the_last_channel_of_a_layer_is_passed_over():
    """Channel 0 is all that b reads; the next in the order go in its place."""
    axes = {("a.weight", 0): np.array([0, 1, 2, 3]), ("b.weight", 1): np.array([0]), ("c.weight", 1): np.arange(4)}
    channels = Channels(axes, (), {}, frozenset(), {})
    order = Elimination((0, 1, 2, 3), (1.0, 2.0, 3.0, 4.0))
    assert removed(channels, [order], [0]) == set()
    assert removed(channels, [order], [2]) == {1, 2}
    assert removed(channels, [order], [4]) == {1, 2, 3}
    without = Channels({k: v for k, v in axes.items() if k[0] != "b.weight"}, (), {}, frozenset(), {})
    assert removed(without, [order], [4]) == {0, 1, 2}


# -- prices that are tried, and what is given back


class Noted(Curves):
    """Curves that note what price each choice is made at."""

    prices: list[float]

    def at(self, price: float) -> list[int]:
        self.prices.append(price)
        return super().at(price)


def _noted(harms: list[list[float]], saves: list[float], multiple: int = 1, size: int | None = None) -> Noted:
    """Curves of groups whose harm for each count is given, and of how much a channel saves."""
    groups = [_group(size or len(h) + 1) for h in harms]
    curves = Noted(groups, [Elimination(tuple(range(len(h))), tuple(h)) for h in harms], saves, multiple)
    curves.prices = []
    return curves


@pytest.mark.parametrize(
    ("harms", "saves", "low", "high"),
    [
        ([[1.0, 3.0]], [1.0], 0.5, 4.0),
        ([[1.0, 3.0]], [2.0], 0.25, 2.0),
        ([[1.0, 3.0], [8.0, 16.0, 32.0]], [1.0, 2.0], 0.5, 16.0),
        ([[0.0, 3.0]], [1.0], 0.5e-18, 6.0),
        ([[0.0, 0.0]], [1.0], 0.5e-18, 2e-18),
    ],
)
def test_prices_lie_between_half_the_lowest_slope_and_twice_the_highest(harms, saves, low, high):
    """First nothing, then all, then the geometric middle; the half that holds the answer is halved forty times."""
    curves = _noted(harms, saves)
    everything = [len(h) for h in harms]
    assert curves.within(lambda counts: counts == everything and curves.prices[-1] >= high) == everything
    assert curves.prices[:3] == pytest.approx([0.0, high, (low * high) ** 0.5])
    if high <= 2 * low * 2**3:
        assert curves.prices[3] == pytest.approx(((low * high) ** 0.5 * high) ** 0.5)
    assert len(curves.prices) == 2 + 40 + 1
    assert curves.prices[-1] == pytest.approx(high)


def test_the_half_that_fits_is_searched_on():
    curves = _noted([[1.0, 3.0]], [1.0])
    assert curves.within(lambda counts: counts[0] >= 1) == [1]
    assert curves.prices[:4] == pytest.approx([0.0, 4.0, 2.0**0.5, (0.5 * 2.0**0.5) ** 0.5])
    assert curves.prices[-1] == pytest.approx(1.0)


def test_where_nothing_costs_the_first_is_taken_and_no_price_is_asked():
    curves = _noted([[1.0, 3.0]], [1.0])
    assert curves.within(lambda counts: True) == [0]
    assert set(curves.prices) == {0.0}
    assert curves.within(lambda counts: False) == [2]
    assert set(curves.prices) == {0.0, 4.0}


@pytest.mark.parametrize("sizes", [[3], [3, 5]])
def test_groups_that_may_lose_nothing_lose_nothing(sizes):
    groups = [_group(size) for size in sizes]
    orders = [Elimination(tuple(range(size - 1)), (1.0,) * (size - 1)) for size in sizes]
    curves = Curves(groups, orders, [1.0] * len(sizes), 8)
    assert [options.tolist() for options in curves.options] == [[0]] * len(sizes)
    assert curves.within(lambda counts: False) == [0] * len(sizes)
    assert curves.share(1.0) == [0] * len(sizes)


@pytest.mark.parametrize("group", [0, 1, 2])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_what_need_not_go_is_given_back_by_each_group(group, count):
    """Only one group's counts matter; whatever the others cost, they get all of theirs back."""
    for harms in ([[1.0, 2, 3], [5.0, 10, 15], [2.0, 4, 6]], [[9.0, 10, 11], [1.0, 2, 3], [4.0, 9, 20]]):
        found = _noted(harms, [1.0] * 3).within(lambda counts: counts[group] >= count)
        assert found == [count if i == group else 0 for i in range(3)]


def test_the_dearest_step_is_given_back_first():
    """All three at once cost 10, 10 and 10; of two that would do, those at the dearest step go back."""
    curves = _noted([[2.0, 6.0, 10.0], [8.0, 9.0, 10.0]], [1.0, 1.0])
    assert curves.within(lambda counts: sum(counts) >= 4) == [1, 3]
    assert curves.share(4.0) == [1, 3]
    assert curves.share(5.0) == [2, 3]


@pytest.mark.parametrize(
    ("target", "counts"), [(0.29, 2), (0.3, 3), (0.31, 3), (0.1, 1), (0.0999, 0), (0.7, 4), (0, 0)]
)
def test_a_share_that_is_met_exactly_is_met(target, counts):
    """Three tenths are a little more than 0.3 in floats."""
    curves = _noted([[1.0, 2.0, 3.0, 4.0]], [0.1])
    assert curves.share(target) == [counts]


def test_what_still_fits_is_taken_cheapest_first():
    """Giving back a large step leaves room for small ones of another group."""
    groups = [_group(9), _group(5)]
    orders = [
        Elimination(tuple(range(8)), tuple(np.arange(1.0, 9))),
        Elimination(tuple(range(4)), (2.0, 5.0, 9.0, 14.0)),
    ]
    curves = Curves(groups, orders, [1.0, 1.0], 1)
    curves.options[0], curves.harm[0], curves.gain[0] = (np.array(v) for v in ([0.0, 8.0], [0.0, 8.0], [0.0, 8.0]))
    assert curves.share(7.0) == [0, 4]
    assert curves.share(9.0) == [8, 1]
    assert curves.share(8.0) == [8, 0]
    assert curves.share(10.5) == [8, 2]


@pytest.mark.parametrize(
    ("total", "width", "multiple", "counts"),
    [
        (4, 1, 1, [0, 1, 2, 3]),
        (4, 1, 2, [0, 2]),
        (5, 1, 2, [0, 1, 3]),
        (8, 1, 8, [0]),
        (9, 1, 8, [0, 1]),
        (16, 1, 8, [0, 8]),
        (6, 2, 4, [0, 2, 4]),
        (6, 3, 4, [0, 2]),
        (1, 1, 1, [0]),
    ],
)
def test_what_stays_is_a_multiple_and_never_nothing(total, width, multiple, counts):
    assert choices(_group(total, width), multiple) == counts


def test_an_order_that_ends_early_ends_the_choices():
    curves = Curves([_group(6)], [Elimination((0, 1, 2), (1.0, 4.0, 9.0))], [0.5], 1)
    assert curves.options[0].tolist() == [0, 1, 2, 3]
    assert curves.harm[0].tolist() == [0.0, 1.0, 4.0, 9.0]
    assert curves.gain[0].tolist() == [0.0, 0.5, 1.0, 1.5]
    assert [curves.at(price) for price in (0.0, 1.9, 2.1, 6.1, 10.1)] == [[0], [0], [1], [2], [3]]


def test_a_group_that_saves_nothing_is_never_worth_it():
    curves = _noted([[1.0]], [0.0])
    assert curves.within(lambda counts: False) == [0]
    assert curves.prices[:2] == pytest.approx([0.0, 2e30])
    assert curves.step([0], 0, 1) == (1, pytest.approx(1e30))


@pytest.mark.parametrize("marginals", [[[3.0, 0.0], [1.0]], [[0.0, 4.0, 0.0], [3.0, 0.0], [0.0]],
                                       [[2.0, 3.0, 0.0], [2.0, 1.0, 3.0]]])  # fmt: skip
def test_what_goes_for_a_budget_is_the_least_harm_where_a_step_costs_nothing(marginals):
    """The price is found between the slopes, of which the least is zero; and curves need not be convex."""
    for units in range(sum(map(len, marginals)) + 1):
        counts = _curves(marginals).within(lambda c, units=units: sum(c) >= units)
        least = min(_least(marginals, more) for more in range(units, sum(map(len, marginals)) + 1))
        assert sum(counts) >= units
        assert _harm(marginals, counts) == pytest.approx(least)
