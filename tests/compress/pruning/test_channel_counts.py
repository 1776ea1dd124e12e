"""Which multiples the channels of a group keep, and fractions of channels that save time as well."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pocketzoo.compress.configs import PruneConfig
from pocketzoo.compress.plans import PrunePlan, Saving
from pocketzoo.compress.pruning import channel_counts as channel_counts_
from pocketzoo.compress.pruning import prune
from pocketzoo.compress.pruning.channel_budget import Weight
from pocketzoo.compress.pruning.channel_counts import TIME_SAVED, channel_counts
from pocketzoo.compress.pruning.channels import Channels, Group
from pocketzoo.compress.pruning.kernel_time import KernelTime
from pocketzoo.compress.pruning.saliency import Elimination
from pocketzoo.plugins.compressors import pocketzoo_compressors
from pocketzoo.plugins.targets import pocketzoo_targets
from pocketzoo.zoo.catalog.specs import KernelCosts

INT8 = next(each for each in pocketzoo_compressors() if each.name == "int8")
TARGETS = {target.name: target for target in pocketzoo_targets()}


class Block(nn.Module):
    """An expansion, a depthwise and a grouped convolution, and a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.deep = nn.Conv2d(3, 48, 1), nn.Conv2d(48, 48, 3, padding=1, groups=48)
        self.narrow, self.pairs = nn.Conv2d(48, 40, 1), nn.Conv2d(40, 40, 3, padding=1, groups=20)
        self.last = nn.Conv2d(40, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.deep(torch.relu(self.wide(x))))
        return self.last(torch.relu(self.pairs(torch.relu(self.narrow(y)))))


@pytest.fixture(scope="module")
def block(randomised):
    return randomised(Block())


@pytest.fixture(scope="module")
def samples(batches):
    return batches((3, 8, 8), 16)


@pytest.mark.parametrize("scope", ["global", "uniform"])
@pytest.mark.parametrize("ratio", [0.2, 0.4, 0.6])
def test_what_depthwise_layers_work_on_has_a_multiple_of_its_own(ratio, scope, block, samples, free):
    target = replace(free, channel_multiple=4, depthwise_multiple=16)
    plan = prune.plan(block, PruneConfig(ratio=ratio, scope=scope), samples, target)
    kept = {name: len(axes[0].kept) for name, axes in plan.axes.items() if name.endswith("weight") and axes[0].dim == 0}
    assert kept.get("wide.weight", 48) % 16 == 0
    assert kept.get("deep.weight", 48) == kept.get("wide.weight", 48)
    assert kept.get("narrow.weight", 40) % 4 == 0
    same = prune.plan(block, PruneConfig(ratio=ratio, scope=scope, multiple=8), samples, target)
    assert all(len(axis.kept) % 8 == 0 for axes in same.axes.values() for axis in axes)


@pytest.mark.parametrize(
    ("name", "usual", "depthwise"), [("cpu", 8, 16), ("openvino", 8, 0), ("cuda", 8, 0), ("tensorrt", 16, 0)]
)
def test_what_becomes_int8_has_the_channels_that_its_kernels_are_fast_for(name, usual, depthwise):
    target = TARGETS[name]
    before = INT8.module_target(target)
    assert (before.channel_multiple, before.depthwise_multiple) == (usual, depthwise)
    assert (target.costs, before.costs) == (None, target.int8_costs)
    own = INT8.module_target(replace(target, int8_multiple=32, int8_depthwise_multiple=0))
    assert (own.channel_multiple, own.depthwise_multiple) == (32, 32)


SIZES = (6, 5, 4)
CONFIG = {ratio: PruneConfig(ratio=ratio) for ratio in (0.1, 0.2, 0.35, 0.5)}


def _groups(sizes):
    starts = np.cumsum([0, *sizes])
    return [Group(("w",), np.arange(size) + start) for size, start in zip(sizes, starts, strict=False)]


def _time(groups, positions):
    """Of layers that only read a group's channels each."""
    weights = {
        f"w{i}": Weight((1, len(group.channels)), n) for i, (group, n) in enumerate(zip(groups, positions, strict=True))
    }
    axes = {(f"w{i}", 1): group.channels for i, group in enumerate(groups)}
    return KernelTime.of(weights, Channels(axes, (), {}, frozenset()), groups, KernelCosts(depthwise=8.0, value=0.0))


def _counts(groups, orders, ratio, time=None):
    return channel_counts(
        groups, orders, CONFIG[ratio], [1] * len(groups), lambda counts: PrunePlan(), lambda share, at: at(share), time
    )


@given(
    st.lists(st.integers(1, 50), min_size=3, max_size=3),
    st.lists(st.lists(st.integers(1, 1000), min_size=5, max_size=5), min_size=3, max_size=3),
    st.sampled_from([0.2, 0.35, 0.5]),
)
def test_a_fraction_of_the_channels_goes_whatever_time_it_saves(positions, steps, ratio):
    groups = _groups(SIZES)
    orders = [
        Elimination(tuple(range(size - 1)), tuple(np.cumsum(sorted(each))[: size - 1].astype(float)))
        for size, each in zip(SIZES, steps, strict=True)
    ]
    time = _time(groups, positions)
    plain, weighed = _counts(groups, orders, ratio), _counts(groups, orders, ratio, time)
    assert sum(plain) == sum(weighed) == int(ratio * sum(SIZES))
    assert time.saved(weighed) >= time.saved(plain)
    if time.saved(plain) >= TIME_SAVED * ratio:
        assert weighed == plain


@pytest.mark.parametrize("ratio", [0.1, 0.2, 0.35])
def test_channels_go_where_time_is_saved_as_well(ratio):
    """Of two groups the first is harmed least, and takes next to no time."""
    groups = _groups((20, 20))
    orders = [Elimination(tuple(range(19)), tuple(scale * np.arange(1.0, 20) ** 2)) for scale in (1.0, 30.0)]
    time = _time(groups, (1, 100))
    plain, weighed = _counts(groups, orders, ratio), _counts(groups, orders, ratio, time)
    assert sum(plain) == sum(weighed) == round(40 * ratio)
    assert time.saved(plain) < TIME_SAVED * ratio <= time.saved(weighed)
    less = [weighed[0] + 1, weighed[1] - 1]
    assert time.saved(less) < TIME_SAVED * ratio + 1.5 / 20  # no more than it takes, but for what one weight jumps over


def test_time_is_that_of_a_model_that_small(block, samples, free, monkeypatch):
    """What is reckoned for counts is what the pruned model's own weights give."""
    target = replace(free, channel_multiple=1, costs=KernelCosts(depthwise=8.0, value=16.0))
    reckoned = []

    def some(groups, orders, config, multiples, planned, timed, time):
        counts = [min(7, len(group.channels) - 1) for group in groups]
        reckoned.append((time.whole, time.at(counts)))
        return counts

    monkeypatch.setattr(prune, "channel_counts", some)
    smaller = prune.apply(block, prune.plan(block, PruneConfig(), samples, target))
    prune.plan(smaller, PruneConfig(), samples, target)
    (whole, less), (again, _) = reckoned
    assert less < whole
    assert again == pytest.approx(less)


def test_a_latency_budget_is_of_what_is_shipped(block, samples, free):
    """A graph that is shipped stands for each that is timed; what it makes of them is run."""
    seen = []

    def shipped(model):
        seen.append(next(t.dims[0] for t in model.graph.initializer if t.name == "wide.weight"))
        return model

    prune.plan(block, PruneConfig(latency=0.5), samples, free, shipped=shipped)
    assert seen[0] == 48
    assert len(seen) > 1


def _group(*ids, width=1):
    return Group(("0.weight",), np.array(ids), width)


def untimed(share, at):
    raise AssertionError("nothing is to be timed")


def test_without_groups_nothing_is_counted():
    def planned(counts: list[int]) -> PrunePlan:
        raise AssertionError

    for config in (PruneConfig(macs=0.5), PruneConfig(ratio=0.5), PruneConfig(latency=0.5)):
        assert channel_counts([], [], config, [], planned, untimed) == []


@pytest.mark.parametrize(("ratio", "counts"), [(0.25, [0, 1]), (0.26, [0, 1]), (0.5, [3, 1]), (0.24, [2, 0])])
def test_a_ratio_of_all_counts_rows_of_weights(ratio, counts):
    """Heads of three rows among single channels: of twelve rows in all a quarter is one head."""
    groups = [_group(0, 1, 2, 3, 4, 5), _group(6, 7, width=3)]
    orders = [Elimination((0, 1, 2, 3, 4), (1.0, 2, 3, 4, 5)), Elimination((6,), (0.5,))]
    found = channel_counts(groups, orders, PruneConfig(ratio=ratio), [1, 1], lambda counts: PrunePlan(), untimed)
    assert found == counts


@pytest.mark.parametrize(
    ("share", "ratios"), [(0.5, [0.5, 0.25, 0.375]), (0.3, [0.5, 0.75, 0.625]), (0.99, [0.5, 0.25])]
)
def test_the_same_share_of_all_is_halved_sixteen_times(share, ratios, monkeypatch):
    """Between nothing and all; then the upper end is what goes."""
    tried = []

    def uniform(groups, ratio, multiple):
        tried.append(ratio)
        return [round(1000 * ratio)]

    def planned(counts: list[int]) -> PrunePlan:
        return PrunePlan(savings={"macs": Saving(before=1000, after=1000 - counts[0])})

    monkeypatch.setattr(channel_counts_, "uniform", uniform)
    config = PruneConfig(macs=share, scope="uniform")
    given = ([_group(*range(9))], [], config, [1], planned, untimed)
    found = channel_counts(*given)
    assert len(tried) == 17
    assert tried[: len(ratios)] == ratios
    assert found == [round(1000 * (1 - share))]
    assert tried[-1] == pytest.approx(1 - share, abs=1e-3)
    tried.clear()
    assert channel_counts(*given[:2], PruneConfig(macs=1.0, scope="uniform"), *given[3:]) == [0]
