from __future__ import annotations

import copy
import json
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from pocketzoo.compress.configs import PruneConfig
from pocketzoo.compress.plans import Axis, PrunePlan, Saving, Shortcut
from pocketzoo.compress.pruning import channel_order, prune
from pocketzoo.compress.pruning.channel_budget import Weight
from pocketzoo.compress.pruning.channel_groups import find_channels
from pocketzoo.compress.pruning.channels import Channels, Group
from pocketzoo.compress.statistics.second_moments import Moments, shrunk, split_moments
from pocketzoo.core.errors import DataError, PocketzooError, UnknownNameError, UnsupportedLayerError
from pocketzoo.core.typed import from_plain, to_plain
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.models.export_graph import onnx_from_model

SHAPE = (3, 10, 10)
RATIOS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99]


def act(x: Tensor) -> Tensor:
    """A ReLU that leaks: with random weights, a plain one leaves many channels dead by chance."""
    return F.leaky_relu(x, 0.2)


class Block(nn.Module):
    def __init__(self, i: int, o: int, inner: int, stride: int = 1, deep: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, inner, 1 if deep else 3, stride, 0 if deep else 1), nn.BatchNorm2d(inner)
        self.deep = nn.Conv2d(inner, inner, 3, 1, 1, groups=inner) if deep else nn.Identity()
        self.conv2, self.bn2 = nn.Conv2d(inner, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        self.short = nn.Conv2d(i, o, 1, stride) if stride != 1 or i != o else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = act(self.deep(act(self.bn1(self.conv1(x)))))
        return act(self.bn2(self.conv2(y)) + self.short(x))


class Net(nn.Module):
    """A small residual network with a head of two linear layers."""

    def __init__(self, widths: tuple[int, ...] = (16, 24), deep: bool = False, hidden: int = 20) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 3, padding=1), nn.BatchNorm2d(widths[0]), nn.LeakyReLU(0.2))
        pairs = zip((widths[0], *widths), widths, strict=False)
        self.blocks = nn.Sequential(*[Block(i, o, o + 2, 1 if n == 0 else 2, deep) for n, (i, o) in enumerate(pairs)])
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Linear(widths[-1], hidden), nn.Linear(hidden, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(act(self.fc1(self.pool(self.blocks(self.stem(x))).flatten(1))))


@pytest.fixture(scope="module")
def net(randomised):
    return randomised(Net())


@pytest.fixture(scope="module")
def everything(net, samples, free):
    """A plan that halves ``net``, with no layer skipped."""
    return prune.plan(net, PruneConfig(ratio=0.5, multiple=1), samples, free)


@pytest.fixture(scope="module")
def samples(batches):
    return batches(SHAPE)


def outputs(model: nn.Module, x: np.ndarray) -> Tensor:
    with torch.no_grad():
        return model(torch.from_numpy(x))


def off(a: Tensor, b: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((a - b).abs().max() / a.abs().max())


def same_state(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


# -- what goes leaves no trace


def test_channels_that_are_zero_are_the_ones_that_go(net, samples, cpu, silence):
    quiet = copy.deepcopy(net)
    channels = find_channels(quiet, (torch.from_numpy(samples[0]),))
    zero: set[int] = set()
    for group in channels.groups:
        zero.update(group.channels[1::2].tolist())
    silence(quiet, channels, zero)
    found = prune.plan(quiet, PruneConfig(ratio=0.5, multiple=1, scope="uniform"), samples, cpu)
    for (name, dim), ids in channels.axes.items():
        kept = {a.dim: a.kept for a in found.axes.get(name, ())}.get(dim, tuple(range(len(ids))))
        assert kept == tuple(i for i, c in enumerate(ids.tolist()) if c not in zero), (name, dim)


@pytest.mark.parametrize("deep", [False, True])
def test_zero_channels_go_without_a_trace(deep, randomised, samples, cpu, silence):
    quiet = randomised(Net(deep=deep))
    channels = find_channels(quiet, (torch.from_numpy(samples[0]),))
    silence(quiet, channels, {c for g in channels.groups for c in g.channels[::2].tolist()})
    found = prune.plan(quiet, PruneConfig(ratio=0.5, multiple=1, scope="uniform"), samples, cpu)
    wanted = outputs(quiet, samples[0])
    assert off(wanted, outputs(prune.apply(quiet, found), samples[0])) < 1e-5
    # Refitting is by ridge regression, whose ridge is felt a little.
    assert off(wanted, outputs(prune.apply(quiet, found, samples), samples[0])) < 1e-2


@pytest.mark.parametrize("multiplier", [1.0, -0.5, 3.0])
@pytest.mark.parametrize("relu", [False, True])
def test_what_depends_linearly_on_others_is_made_up_for(relu, multiplier, randomised, batches, plan_without):
    """A channel that is another one times a number: what reads it can read the other one."""
    if relu:
        multiplier = abs(multiplier)
    between = nn.ReLU() if relu else nn.Identity()
    model = randomised(nn.Sequential(nn.Conv2d(3, 8, 3), between, nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1)))
    model[0].weight.data[3] = multiplier * model[0].weight.data[5]
    model[0].bias.data[3] = multiplier * model[0].bias.data[5]
    samples = batches((3, 24, 24), 64, 4)  # rows in plenty: few rows are trusted little, and then more is lost
    channels = find_channels(model, (torch.from_numpy(samples[0]),))
    found = plan_without(channels, {int(channels.axes["0.weight", 0][3])})
    wanted = outputs(model, samples[0])
    assert off(wanted, outputs(prune.apply(model, found), samples[0])) > 0.02
    assert off(wanted, outputs(prune.apply(model, found, samples), samples[0])) < 2e-3


@pytest.mark.parametrize("seed", range(6))
def test_refitting_brings_each_reader_nearer_on_the_samples(seed, randomised, samples, cpu):
    """The last layer's fit is least squares on these very samples: it can only be better than the cut weights."""
    model = randomised(nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 6, 3)), seed)
    found = prune.plan(model, PruneConfig(ratio=0.5, multiple=1), samples, cpu)
    cut, fitted = prune.apply(model, found), prune.apply(model, found, samples)

    def error(smaller: nn.Module) -> float:
        # The refit sees no bias, so neither does the comparison: both sides have the same one.
        return sum(float((outputs(model, x) - outputs(smaller, x)).square().sum()) for x in samples)

    assert error(fitted) <= error(cut) * 1.001


@pytest.mark.parametrize("count", [2, 8, 14])
def test_refitting_on_few_samples_is_no_worse_than_none(count, randomised, cpu, batches):
    """On samples that neither has seen: what few samples say by chance is not learned."""
    errors = np.zeros(2)
    for seed in range(2):
        model = randomised(Net(widths=(16, 24, 32)), seed)
        rows = np.concatenate(batches(SHAPE, 64))
        few, others = [rows[:count]], rows[count:]
        found = prune.plan(model, PruneConfig(ratio=0.3, multiple=1), few, cpu)
        for i, smaller in enumerate((prune.apply(model, found), prune.apply(model, found, few))):
            errors[i] += float((outputs(smaller, others) - outputs(model, others)).square().mean())
    assert errors[1] <= errors[0]


class Twice(nn.Module):
    """One layer, or one norm, in two places."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.stem, self.a = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.b, self.norm = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.out = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = act(self.stem(x)) + 1.0
        if self.kind == "layer":
            return self.out(act(self.a(act(self.a(y)) + 1.0)))
        if self.kind == "norm":
            return self.out(act(self.norm(self.a(y))) + act(self.norm(self.b(y))))
        return self.out(act(self.norm(self.a(act(self.norm(self.a(y))) + 1.0))))


@pytest.mark.parametrize("kind", ["layer", "norm", "both"])
@pytest.mark.parametrize("seed", range(3))
def test_refitting_what_is_used_twice_does_no_harm(kind, seed, randomised, samples, cpu):
    """A bias or norm that two places share must not take up what was lost twice."""
    model = randomised(Twice(kind), seed)
    found = prune.plan(model, PruneConfig(ratio=0.3, multiple=1), samples, cpu)
    cut, fitted = prune.apply(model, found), prune.apply(model, found, samples)
    x = np.concatenate(samples)
    wanted = outputs(model, x)
    errors = [float((outputs(m, x) - wanted).square().mean()) for m in (cut, fitted)]
    assert errors[1] < errors[0]


@pytest.mark.parametrize(
    ("kind", "shared", "never"),
    [
        ("layer", {"a.weight", "a.bias"}, {"a.bias"}),
        ("norm", {"norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"}, {"norm.running_mean"}),
        ("both", {"a.weight", "a.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"},
         {"a.bias", "norm.running_mean"}),
    ],
)  # fmt: skip
def test_what_is_used_twice_is_noted_and_never_refitted(kind, shared, never, randomised, samples, cpu):
    """One layer in two places reads two things; what suits the one need not suit the other."""
    model = randomised(Twice(kind))
    assert find_channels(model, (torch.from_numpy(samples[0]),)).shared == shared
    found = prune.plan(model, PruneConfig(ratio=0.3, multiple=1), samples, cpu)
    assert set(found.shared) == shared
    assert never.isdisjoint(found.shifts.values())
    before, fitted = prune.apply(model, found).state_dict(), prune.apply(model, found, samples).state_dict()
    for name in shared:
        assert torch.equal(fitted[name], before[name]), name
    assert not torch.equal(fitted["out.weight"], before["out.weight"])


def test_weights_that_lost_no_input_are_kept_bit_for_bit(net, samples, cpu):
    found = prune.plan(net, PruneConfig(ratio=0.5), samples, cpu)
    smaller = prune.apply(net, found, samples).state_dict()
    checked = 0
    for name, before in net.state_dict().items():
        axes = found.axes.get(name, ())
        if any(a.dim == 1 for a in axes) or name in found.shifts.values():
            continue
        wanted = before
        for axis in axes:
            wanted = wanted.index_select(axis.dim, torch.tensor(axis.kept))
        assert torch.equal(smaller[name], wanted), name
        checked += 1
    assert checked > 10


# -- counts


def _kept(plan: PrunePlan, name: str, dim: int = 0) -> int | None:
    return next((len(a.kept) for a in plan.axes.get(name, ()) if a.dim == dim), None)


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize("multiple", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("ratio", [0.1, 0.4, 0.7, 0.99])
def test_kept_channels_are_a_multiple_and_never_none(ratio, multiple, scope, net, samples, free):
    found = prune.plan(net, PruneConfig(ratio=ratio, scope=scope, multiple=multiple), samples, free)
    for name, axes in found.axes.items():
        for axis in axes:
            assert 0 < len(axis.kept) < axis.size
            assert len(axis.kept) % multiple == 0, (name, axis.dim)
            assert axis.kept == tuple(sorted(set(axis.kept)))
            assert axis.kept[-1] < axis.size
    smaller = prune.apply(net, found)
    for batch in (1, 2, 5):
        assert smaller(torch.zeros(batch, *SHAPE)).shape == (batch, 5)


@pytest.mark.parametrize("ratio", [0.0, *RATIOS])
def test_uniform_takes_the_share_asked_for_from_every_group(ratio, net, samples, free):
    found = prune.plan(net, PruneConfig(ratio=ratio, multiple=1, scope="uniform"), samples, free)
    for name, total in {"stem.0.weight": 16, "blocks.0.conv1.weight": 18, "fc1.weight": 20}.items():
        kept = _kept(found, name)
        assert abs((total if kept is None else kept) - (1 - ratio) * total) <= 1.0


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.7])
def test_global_takes_the_share_from_all_groups_together(ratio, net, samples, free):
    channels = find_channels(net, (torch.from_numpy(samples[0]),))
    total = sum(len(g.channels) for g in channels.groups)
    found = prune.plan(net, PruneConfig(ratio=ratio, scope="global", multiple=1), samples, free)
    gone = 0
    for group in channels.groups:
        name = group.layers[0]
        kept = _kept(found, name)
        gone += 0 if kept is None else len(group.channels) - kept
    assert abs(gone - ratio * total) <= len(channels.groups) + 1


@pytest.mark.parametrize("dead", [2, 6, 10])
@pytest.mark.parametrize("ratio", [0.1, 0.2, 0.4])
def test_global_takes_dead_channels_first(ratio, dead, randomised, samples, free, silence):
    """Many channels of equal saliency: those that carry nothing at all."""
    model = randomised(nn.Sequential(nn.Conv2d(3, 20, 1), nn.Conv2d(20, 20, 1), nn.Conv2d(20, 4, 1)))
    channels = find_channels(model, (torch.from_numpy(samples[0]),))
    silent = set(channels.groups[0].channels[:dead].tolist())
    silence(model, channels, silent)
    found = prune.plan(model, PruneConfig(ratio=ratio, scope="global", multiple=1), samples, free)
    gone = set(range(20)) - set(found.axes["0.weight"][0].kept) if "0.weight" in found.axes else set()
    wanted = round(ratio * 40)
    assert len(gone & set(range(dead))) == min(dead, wanted)
    assert abs(sum(a.size - len(a.kept) for n in ("0.weight", "1.weight") for a in found.axes.get(n, ())
                   if a.dim == 0) - wanted) <= 1  # fmt: skip


@pytest.mark.parametrize("total", [3, 8, 12, 36])
@pytest.mark.parametrize("multiple", [1, 4, 8, 16])
@pytest.mark.parametrize("scope", ["uniform", "global"])
def test_ratio_zero_removes_nothing(scope, multiple, total, randomised, samples, free):
    model = randomised(nn.Sequential(nn.Conv2d(3, total, 1), nn.ReLU(), nn.Conv2d(total, 4, 1)))
    found = prune.plan(model, PruneConfig(ratio=0.0, multiple=multiple, scope=scope), samples, free)
    assert found.axes == {}
    assert same_state(prune.apply(model, found, samples), model)


@pytest.mark.parametrize("total", [3, 8, 12, 24])
@pytest.mark.parametrize("multiple", [1, 4, 8, 16, 64])
@pytest.mark.parametrize("ratio", [0.3, 0.9])
def test_a_layer_narrower_than_the_multiple_stays_whole(ratio, multiple, total, randomised, samples, free):
    model = randomised(nn.Sequential(nn.Conv2d(3, total, 1), nn.ReLU(), nn.Conv2d(total, 4, 1)))
    found = prune.plan(model, PruneConfig(ratio=ratio, multiple=multiple), samples, free)
    kept = _kept(found, "0.weight") or total
    assert kept == total if total <= multiple else kept % multiple == 0 or kept == total
    assert abs(kept - (1 - ratio) * total) <= multiple


@pytest.mark.parametrize("name", ["cpu", "nvidia", "free"])
def test_the_target_decides_the_multiple(name, request, net, samples):
    target = request.getfixturevalue(name)
    found = prune.plan(net, PruneConfig(ratio=0.3), samples, target)
    for axes in found.axes.values():
        assert all(len(a.kept) % target.channel_multiple == 0 for a in axes)
    chosen = prune.plan(net, PruneConfig(ratio=0.3, multiple=target.channel_multiple), samples, replace(
        target, channel_multiple=7
    ))  # fmt: skip
    assert to_plain(chosen) == to_plain(found)


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize("ratio", [0.5, 0.9])
def test_no_layer_of_a_concatenation_is_emptied(scope, ratio, randomised, samples, cpu):
    """Channels of two layers side by side, tied to a third: the weak layer must not lose everything."""

    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.d = (nn.Conv2d(3, o, 3, padding=1) for o in (8, 8, 16))
            self.out = nn.Conv2d(16, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.cat([self.a(x), self.b(x)], 1) + self.d(x))

    model = randomised(Joined())
    for tensor in (model.b.weight, model.b.bias):
        tensor.data *= 0.01
    for tensor in (model.d.weight, model.d.bias):
        tensor.data[8:] *= 0.01
    found = prune.plan(model, PruneConfig(ratio=ratio, scope=scope), samples, cpu)
    assert all(axis.kept for axes in found.axes.values() for axis in axes)
    assert outputs(prune.apply(model, found, samples), samples[0]).shape == outputs(model, samples[0]).shape


def test_saliency_is_the_energy_a_channel_carries(randomised, batches, free):
    """Channels scaled by known factors, read by equal weights, go in the order of the factors."""
    model = randomised(nn.Sequential(nn.Conv2d(6, 6, 1, bias=False), nn.Conv2d(6, 3, 1)))
    factors = torch.tensor([3.0, 0.1, 2.0, 0.01, 1.0, 0.5])
    model[0].weight.data = torch.diag(factors).view(6, 6, 1, 1)
    model[1].weight.data = torch.ones(3, 6, 1, 1)
    samples = batches((6, 4, 4))
    for removed, ratio in enumerate([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6], 1):
        found = prune.plan(model, PruneConfig(ratio=ratio, multiple=1), samples, free)
        best = sorted(factors.argsort(descending=True)[: 6 - removed].tolist())
        assert list(found.axes["0.weight"][0].kept) == best


# -- skip


@pytest.mark.parametrize(
    ("skip", "untouched"),
    [
        (("stem.0",), ["stem.0", "blocks.0.conv2"]),
        (("blocks.0.conv1",), ["blocks.0.conv1"]),
        (("blocks.*.conv1",), ["blocks.0.conv1", "blocks.1.conv1"]),
        (("fc1",), ["fc1"]),
        (("fc?",), ["fc1", "fc2"]),
        (("*",), ["stem.0", "blocks.0.conv1", "blocks.0.conv2", "blocks.1.conv1", "blocks.1.conv2", "fc1"]),
        (("blocks.1.short", "fc1"), ["blocks.1.short", "blocks.1.conv2", "fc1"]),
    ],
)
def test_skipped_layers_keep_their_channels(skip, untouched, net, everything, samples, free):
    found = prune.plan(net, PruneConfig(ratio=0.5, multiple=1, skip=skip), samples, free)
    for name in untouched:
        assert _kept(found, f"{name}.weight") is None, name
    assert set(found.axes) <= set(everything.axes)
    assert len(found.axes) < len(everything.axes)


@pytest.mark.parametrize("name", ["stem.0", "blocks.0.conv2", "blocks.1.short", "fc1", "fc2"])
def test_a_skipped_layer_is_left_as_it_is(name, net, samples, free):
    """PruneConfig.skip: "layers left as they are" - their inputs as well."""
    found = prune.plan(net, PruneConfig(ratio=0.5, multiple=1, skip=(name,)), samples, free)
    smaller = prune.apply(net, found, samples)
    assert torch.equal(smaller.get_parameter(f"{name}.weight"), net.get_parameter(f"{name}.weight"))


def test_a_skipped_depthwise_layer_keeps_its_channels(randomised, samples, free):
    model = randomised(Net(deep=True))
    found = prune.plan(model, PruneConfig(ratio=0.5, multiple=1, skip=("blocks.0.deep",)), samples, free)
    assert _kept(found, "blocks.0.deep.weight") is None
    assert _kept(found, "blocks.1.deep.weight") is not None


@pytest.mark.parametrize("granularity", ["channel", "weight"])
@pytest.mark.parametrize(
    ("typo", "nearest"),
    [("stem", "stem.0"), ("blocks.0.conv3", "blocks.0.conv"), ("fc11", "fc1"), ("block.*.conv9", "blocks")],
)
def test_a_skip_that_names_nothing_is_refused_with_the_nearest(typo, nearest, granularity, net, samples, cpu, refused):
    with refused(UnknownNameError, f"{typo!r}", hint=nearest):
        prune.plan(net, PruneConfig(skip=(typo,), granularity=granularity), samples, cpu)


# -- single weights


WEIGHTS = ["stem.0", "blocks.0.conv1", "blocks.0.conv2", "blocks.1.conv1", "blocks.1.conv2", "blocks.1.short", "fc1",
           "fc2"]  # fmt: skip


@pytest.mark.parametrize("ratio", [0.0, 0.001, *RATIOS])
def test_exactly_the_share_of_weights_asked_for_becomes_zero(ratio, net, samples, cpu):
    found = prune.plan(net, PruneConfig(ratio=ratio, granularity="weight", refit=False), samples, cpu)
    sparse = prune.apply(net, found, samples)
    total = sum(net.get_parameter(f"{n}.weight").numel() for n in WEIGHTS)
    zeros = sum(int((sparse.get_parameter(f"{n}.weight") == 0).sum()) for n in WEIGHTS)
    assert zeros == int(ratio * total)
    assert not found.axes
    limits = set(found.thresholds.values())
    assert len(limits) == (1 if int(ratio * total) else 0)
    for name in WEIGHTS:
        before, after = net.get_parameter(f"{name}.weight"), sparse.get_parameter(f"{name}.weight")
        limit = max(limits, default=-1.0)
        assert torch.equal(after, torch.where(before.abs() <= limit, torch.zeros(()), before))
    rest = {k: v for k, v in net.state_dict().items() if k.removesuffix(".weight") not in WEIGHTS}
    assert all(torch.equal(sparse.state_dict()[k], v) for k, v in rest.items())


@given(
    ratio=st.floats(0.0, 0.999),
    widths=st.lists(st.integers(1, 12), min_size=2, max_size=5),
    seed=st.integers(0, 10**6),
)
def test_the_share_of_zeros_is_exact_for_any_ratio(ratio, widths, seed, cpu):
    layers = [nn.Linear(i, o) for i, o in pairwise(widths)]
    model = nn.Sequential(*layers)
    generator = torch.Generator().manual_seed(seed)
    for layer in layers:
        layer.weight.data = torch.randn(layer.weight.shape, generator=generator)
    found = prune.plan(model, PruneConfig(ratio=ratio, granularity="weight"), [], cpu)
    sparse = prune.apply(model, found)
    everything = torch.cat([layer.weight.data.ravel() for layer in layers])
    ties = len(everything) - len(everything.abs().unique())
    zeros = sum(int((m.weight == 0).sum()) for m in sparse if isinstance(m, nn.Linear))
    assert int(ratio * len(everything)) <= zeros <= int(ratio * len(everything)) + ties


def test_weights_that_are_zero_already_count(randomised, cpu, samples):
    model = randomised(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)))
    model[0].weight.data.zero_()  # 24 of 40
    found = prune.plan(model, PruneConfig(ratio=0.5, granularity="weight"), samples, cpu)
    assert set(found.thresholds.values()) == {0.0}
    assert same_state(prune.apply(model, found), model)


@pytest.mark.parametrize("skip", [("fc1",), ("blocks.*",), ("stem.0", "fc?")])
def test_skipped_layers_keep_all_their_weights(skip, net, samples, cpu):
    found = prune.plan(net, PruneConfig(ratio=0.5, granularity="weight", skip=skip), samples, cpu)
    sparse = prune.apply(net, found)
    left = [n for n in WEIGHTS if any(fnmatchcase(n, p) for p in skip)]
    for name in left:
        assert torch.equal(sparse.get_parameter(f"{name}.weight"), net.get_parameter(f"{name}.weight"))
    rest = [n for n in WEIGHTS if n not in left]
    zeros = sum(int((sparse.get_parameter(f"{n}.weight") == 0).sum()) for n in rest)
    assert zeros == int(0.5 * sum(net.get_parameter(f"{n}.weight").numel() for n in rest))


@pytest.mark.parametrize("granularity", ["channel", "weight"])
def test_skipping_everything_leaves_the_model_as_it_is(granularity, net, samples, cpu):
    found = prune.plan(net, PruneConfig(ratio=0.5, granularity=granularity, skip=("*",)), samples, cpu)
    assert found == PrunePlan()
    assert same_state(prune.apply(net, found, samples), net)


# -- plan and apply


CONFIGS = [
    PruneConfig(ratio=0.3),
    PruneConfig(ratio=0.5, scope="uniform", multiple=1),
    PruneConfig(ratio=0.5, scope="global", multiple=4),
    PruneConfig(ratio=0.4, granularity="weight"),
]
IDS = ["default", "uniform", "global", "weight"]


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_the_model_given_is_not_changed(config, randomised, samples, cpu):
    model = randomised(Net())
    before = copy.deepcopy(model)
    found = prune.plan(model, config, samples, cpu)
    assert same_state(model, before)
    prune.apply(model, found, samples)
    assert same_state(model, before)
    assert torch.equal(outputs(model, samples[0]), outputs(before, samples[0]))
    assert all(not m._forward_pre_hooks for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_a_model_in_training_mode_stays_in_it(randomised, samples, cpu):
    model = randomised(Net()).train()
    before = copy.deepcopy(model)
    prune.plan(model, PruneConfig(), samples, cpu)
    assert same_state(model, before)
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_two_runs_agree_bit_for_bit(config, randomised, samples, cpu):
    plans, models = [], []
    for _ in range(2):
        model = randomised(Net())
        plans.append(prune.plan(model, config, samples, cpu))
        models.append(prune.apply(model, plans[-1], samples))
    assert plans[0] == plans[1]
    assert same_state(*models)


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_applying_a_plan_twice_gives_equal_weights(config, net, samples, cpu):
    found = prune.plan(net, config, samples, cpu)
    assert same_state(prune.apply(net, found, samples), prune.apply(net, found, samples))


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
@pytest.mark.parametrize("deep", [False, True])
def test_a_saved_plan_replayed_without_samples_gives_the_same_structure(config, deep, randomised, samples, cpu):
    model = randomised(Net(deep=deep))
    found = prune.plan(model, config, samples, cpu)
    fitted = prune.apply(model, found, samples)
    read = from_plain(PrunePlan, json.loads(json.dumps(to_plain(found))))
    assert read == found
    fresh = prune.apply(Net(deep=deep).eval(), read, None)
    shapes = {k: v.shape for k, v in fitted.state_dict().items()}
    assert {k: v.shape for k, v in fresh.state_dict().items()} == shapes
    fresh.load_state_dict(fitted.state_dict())
    assert torch.equal(outputs(fresh, samples[0]), outputs(fitted, samples[0]))
    assert repr(fresh) == repr(fitted)


@pytest.mark.parametrize("deep", [False, True])
def test_layers_state_the_sizes_they_have(deep, randomised, samples, free):
    model = randomised(Net(deep=deep))
    smaller = prune.apply(model, prune.plan(model, PruneConfig(ratio=0.4, multiple=1), samples, free), samples)
    seen = 0
    for module in smaller.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.shape[0] == module.out_channels
            assert module.weight.shape[1] * module.groups == module.in_channels
        elif isinstance(module, nn.Linear):
            assert tuple(module.weight.shape) == (module.out_features, module.in_features)
        elif isinstance(module, nn.BatchNorm2d):
            assert len(module.running_mean) == len(module.weight) == module.num_features
        else:
            continue
        seen += 1
    assert seen > 10


def test_an_empty_plan_is_a_copy(net, samples):
    twin = prune.apply(net, PrunePlan(), samples)
    assert twin is not net
    assert same_state(twin, net)
    assert all(a.data_ptr() != b.data_ptr() for a, b in zip(twin.parameters(), net.parameters(), strict=True))


def test_pruning_what_was_pruned_works(net, samples, free):
    once = prune.apply(net, prune.plan(net, PruneConfig(ratio=0.3, multiple=1), samples, free), samples)
    twice = prune.apply(once, prune.plan(once, PruneConfig(ratio=0.3, multiple=1), samples, free), samples)
    sizes = [sum(p.numel() for p in m.parameters()) for m in (net, once, twice)]
    assert sizes[0] > sizes[1] > sizes[2]
    assert outputs(twice, samples[0]).shape == (8, 5)


def test_a_plan_of_a_parameter_at_the_top_works(samples):
    """A parameter of the model itself has no module path."""

    class Top(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 3, 1, 1))
            self.out = nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(F.conv2d(x, self.weight))

    plan = PrunePlan(axes={
        "weight": (Axis(dim=0, size=4, kept=(0, 2)),), "out.weight": (Axis(dim=1, size=4, kept=(0, 2)),)
    })  # fmt: skip
    assert prune.apply(Top(), plan).get_parameter("weight").shape == (2, 3, 1, 1)


# -- samples that are no good


def test_constant_samples_have_a_singular_covariance_and_work(net, cpu):
    samples = [np.zeros((4, *SHAPE), np.float32), np.ones((4, *SHAPE), np.float32)]
    smaller = prune.apply(net, prune.plan(net, PruneConfig(), samples, cpu), samples)
    assert all(torch.isfinite(p).all() for p in smaller.parameters())
    assert torch.isfinite(outputs(smaller, samples[0])).all()


def test_samples_of_zeros_work(randomised, cpu):
    """Nothing reaches some layers: every saliency is zero, every covariance too."""
    model = randomised(nn.Sequential(nn.Conv2d(3, 16, 3, bias=False), nn.ReLU(), nn.Conv2d(16, 4, 1, bias=False)))
    samples = [np.zeros((4, *SHAPE), np.float32)]
    config = PruneConfig(ratio=0.5, scope="uniform")
    smaller = prune.apply(model, prune.plan(model, config, samples, cpu), samples)
    assert smaller[0].out_channels == 8
    assert all(torch.isfinite(p).all() for p in smaller.parameters())


def test_a_single_sample_is_enough(net, cpu, batches):
    samples = batches(SHAPE, 1)
    smaller = prune.apply(net, prune.plan(net, PruneConfig(), samples, cpu), samples)
    assert torch.isfinite(outputs(smaller, samples[0])).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("scope", ["uniform", "global"])
def test_samples_that_are_not_finite_end_in_a_clear_error_or_a_finite_model(bad, scope, net, cpu, batches):
    samples = batches(SHAPE)
    samples[1][2, 0, 3, 3] = bad
    try:
        smaller = prune.apply(net, prune.plan(net, PruneConfig(scope=scope), samples, cpu), samples)
    except PocketzooError:
        return
    assert all(torch.isfinite(p).all() for p in smaller.parameters())
    assert torch.isfinite(outputs(smaller, samples[0])).all()


# -- any network


NETS = st.builds(
    Net,
    widths=st.lists(st.sampled_from([4, 6, 8, 12, 16]), min_size=1, max_size=3).map(tuple),
    deep=st.booleans(),
    hidden=st.sampled_from([4, 7, 16]),
)
ANY_CONFIG = st.builds(
    PruneConfig,
    ratio=st.sampled_from([0.1, 0.3, 0.5, 0.8, 0.95]),
    scope=st.sampled_from(["uniform", "global"]),
    multiple=st.sampled_from([None, 1, 2, 4]),
)


@pytest.mark.slow
@settings(max_examples=10)
@given(net=NETS, config=ANY_CONFIG, seed=st.integers(0, 100))
def test_any_small_network_runs_after_pruning(net, config, seed, randomised, batches, cpu):
    model = randomised(net, seed)
    samples = batches(SHAPE, 16)
    found = prune.plan(model, config, samples, cpu)
    smaller = prune.apply(model, found, samples)
    for batch in (1, 2, 5):
        out = smaller(torch.zeros(batch, *SHAPE))
        assert out.shape == (batch, 5)
        assert torch.isfinite(out).all()
    before, after = (sum(p.numel() for p in m.parameters()) for m in (model, smaller))
    assert after < before if found.axes else after == before


@pytest.mark.slow
@settings(max_examples=3)
@given(net=NETS, config=ANY_CONFIG)
def test_any_small_network_exports_after_pruning(net, config, randomised, batches, cpu, tmp_path_factory):
    """onnx_from_model compares the graph with the module at batches 1, 2 and 5 itself."""
    model = randomised(net)
    samples = batches(SHAPE, 16)
    smaller = prune.apply(model, prune.plan(model, config, samples, cpu), samples)
    spec = InputSpec(shape=("batch", *SHAPE), mean=(0.5,) * 3, std=(0.25,) * 3, resize=10)
    path: Path = tmp_path_factory.mktemp("graph") / "model.onnx"
    assert onnx_from_model(smaller, spec, path) < 1e-4
    assert path.stat().st_size > 0


# -- decisions, one by one


def _group(*ids: int, layers: tuple[str, ...] = ("0.weight",), width: int = 1) -> Group:
    return Group(layers, np.array(ids), width)


def test_what_a_plan_refuses_is_said_whole(randomised, cpu):
    model = randomised(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)))
    with pytest.raises(DataError) as caught:
        prune.plan(model, PruneConfig(), [np.full((4, *SHAPE), np.nan, np.float32)], cpu)
    assert str(caught.value) == "calibration: a layer's inputs are not finite\ncheck the samples for NaN or infinity"


def test_a_size_that_code_relies_on_is_said_whole(randomised, samples):
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.fc = nn.Conv2d(3, 8, 1), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.a(x).mean((2, 3)).view(-1, 8))

    plan = PrunePlan(axes={
        "a.weight": (Axis(dim=0, size=8, kept=(0, 1, 2)),), "a.bias": (Axis(dim=0, size=8, kept=(0, 1, 2)),),
        "fc.weight": (Axis(dim=1, size=8, kept=(0, 1, 2)),),
    })  # fmt: skip
    with pytest.raises(UnsupportedLayerError) as caught:
        prune.apply(randomised(Fixed()), plan, samples)
    first, hint = str(caught.value).split("\n")
    assert first.startswith("the model's code relies on a size that pruning changed: ")
    assert "shape" in first
    assert hint == "keep the layers it names with skip"
    assert prune.apply(Fixed(), plan).a.out_channels == 3  # a saved plan is not run


@pytest.mark.parametrize(
    ("ids", "run"),
    [
        ([0, 1, 2, 3], 1),
        ([0, 0, 1, 1, 2, 2], 2),
        ([5, 5, 5, 2, 2, 2], 3),
        ([0, 0, 0, 0], 4),
        ([0, 0, 1, 1, 1], None),
        ([0, 0, 1, 2, 2, 2], None),
        ([0, 0, 1], None),
        ([0, 0, 1, 1, 0, 0], 2),
        ([7], 1),
    ],
)
def test_runs_of_equal_channels_are_found_where_all_are_as_long(ids, run):
    assert list(channel_order._run_lengths(ids)) == ([] if run is None else [run])
    moments = Moments.empty(len(ids))
    moments.add(torch.randn(200, len(ids), generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    reader = channel_order._reader(torch.ones(2, len(ids), dtype=torch.float64), moments, ids, 50, shifts=False)
    assert reader.width == (run or 1)
    assert reader.places == {c: [i for i, d in enumerate(ids[:: run or 1]) if d == c] for c in set(ids)}
    assert reader.total == 1.0


@pytest.mark.parametrize("shifts", [False, True])
@pytest.mark.parametrize(("trusted", "rows"), [(50, 50), (1000, 200), (200, 200), (3, 3)])
def test_a_reader_trusts_no_more_rows_than_there_are_and_than_it_is_told(trusted, rows, shifts):
    moments = Moments.empty(4)
    moments.add(1.0 + torch.randn(200, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    reader = channel_order._reader(torch.ones(1, 4, dtype=torch.float64), moments, [0, 1, 2, 3], trusted, shifts=shifts)
    second = moments.covariance if shifts else moments.mean
    torch.testing.assert_close(reader.inverse, torch.linalg.inv(shrunk(second, rows)))


@pytest.mark.parametrize(
    ("matter", "root"),
    [
        (None, None),
        (torch.tensor([[np.nan, 0.0], [0.0, 1.0]]), None),
        (torch.tensor([4.0, 9.0]), [[2.0, 0.0], [0.0, 3.0]]),
        (torch.tensor([[4.0, 0.0], [0.0, 9.0]]), [[2.0, 0.0], [0.0, 3.0]]),
    ],
)
def test_a_weight_is_weighed_by_what_its_outputs_matter(matter, root):
    layer = nn.Conv2d(3, 2, (1, 2))
    weight = layer.weight.detach().flatten(1).double()
    found = channel_order._weighed(layer, None if matter is None else matter.double())
    wanted = torch.zeros(2, 6, dtype=torch.float64) if root is None else torch.tensor(root).double() @ weight
    torch.testing.assert_close(found.abs(), wanted.abs())  # a root may have any sign
    torch.testing.assert_close(found.T @ found, wanted.T @ wanted)


def test_samples_of_both_halves_are_trusted_for_sixteen_positions_each(randomised, monkeypatch):
    """Thirteen and twelve samples of a hundred positions, of which not all are taken."""
    model = randomised(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1, bias=False), nn.Conv2d(4, 2, 1)))
    x = np.random.default_rng(0).normal(size=(25, *SHAPE)).astype(np.float32)
    channels = find_channels(model, (torch.from_numpy(x[:2]),))
    asked, reader = [], channel_order._reader

    def noted(weight, moments, ids, trusted, *, shifts):
        asked.append((tuple(weight.shape), moments.count, len(ids), trusted, shifts))
        return reader(weight, moments, ids, trusted, shifts=shifts)

    monkeypatch.setattr(channel_order, "_reader", noted)
    orders = channel_order.orders_of(model, channels, list(channels.groups), [x])
    assert [len(o.order) for o in orders] == [7, 3]
    assert channel_order.TRUSTED_POSITIONS == 16
    assert asked == [
        ((4, 8), 1700, 8, 400, False), ((4, 8), 900, 8, 208, False),
        ((2, 4), 1700, 4, 400, True), ((2, 4), 900, 4, 208, True),
    ]  # fmt: skip
    asked.clear()
    channel_order.orders_of(model, channels, list(channels.groups)[:1], [x[:1]])
    assert asked == [((4, 8), 100, 8, 16, False)]


def test_uses_are_counted_for_one_sample():
    """Places of a map, tokens of a text, calls of a layer; by a weight that is computed, no parameter multiplies."""

    class Used(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.twice = nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 4, 1)
            self.fc, self.norm = nn.Linear(4, 2), nn.BatchNorm2d(4)
            self.computed = nn.utils.parametrizations.weight_norm(nn.Linear(2, 3))

        def forward(self, x: Tensor) -> Tensor:
            y = self.twice(self.twice(self.norm(self.a(x))))
            return self.computed(self.fc(y.flatten(2).transpose(1, 2)))

    model, x = Used().eval(), (torch.zeros(2, *SHAPE),)
    multiplied = prune._uses(model, x, find_channels(model, x))
    uses = multiplied.weights
    assert {name: use.positions for name, use in uses.items()} == {
        "a.weight": 16, "a.bias": 0, "twice.weight": 32, "twice.bias": 0, "fc.weight": 16, "fc.bias": 0,
        "norm.weight": 0, "norm.bias": 0, "computed.bias": 0,
        "computed.parametrizations.weight.original0": 0, "computed.parametrizations.weight.original1": 0,
    }  # fmt: skip
    assert uses["a.weight"].shape == (4, 3, 3, 3)
    assert multiplied.rest == 16 * 2 * 3
    assert multiplied.costs({}, set())[0] == 16 * (4 * 27 + 2 * 16 + 8 + 6)


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize(
    ("budget", "share", "left"),
    [
        ("macs", 1.0, 8), ("macs", 0.999, 7), ("macs", 0.875, 7), ("macs", 0.874, 6), ("macs", 0.5, 4),
        ("macs", 0.49, 3), ("macs", 0.125, 1), ("macs", 0.1, 1), ("parameters", 0.5, 4), ("parameters", 0.375, 3),
    ],
)  # fmt: skip
def test_a_budget_that_is_met_exactly_is_met(scope, budget, share, left, randomised, batches, free):
    """Each of eight channels is an eighth of all: no bias, one reader."""
    model = randomised(nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 2, bias=False)))
    plan = prune.plan(model, PruneConfig(**{budget: share}, scope=scope, multiple=1), batches((4,)), free)
    assert _kept(plan, "0.weight") == (None if left == 8 else left)
    if left < 8:
        assert {name: (s.before, s.after) for name, s in plan.savings.items()} == {
            "macs": (48, 6 * left), "parameters": (48, 6 * left), "channels": (8, left)
        }  # fmt: skip


class Heads(nn.Module):
    """A layer of heads and what is said about it."""

    def __init__(self, **attributes: object) -> None:
        super().__init__()
        self.inner = nn.Module()
        self.inner.q, self.inner.k = nn.Linear(12, 12), nn.Linear(12, 12)
        for name, value in attributes.items():
            setattr(self.inner, name, value)


@pytest.mark.parametrize(
    ("attributes", "sizes"),
    [
        ({name: 4}, {name: 3})
        for name in (
            "num_heads", "num_attention_heads", "num_key_value_heads", "n_heads", "n_head", "nhead", "heads"
        )
    ]
    + [
        ({"all_head_size": 12, "heads": 4}, {"all_head_size": 9, "heads": 3}),
        ({"all_head_size": 4}, {}),
        ({"heads": 12}, {}),
        ({"heads": 3}, {}),
        ({"groups": 4, "size": 12}, {}),
    ],
)  # fmt: skip
def test_attributes_that_count_heads_are_corrected(attributes, sizes):
    model = Heads(**attributes)
    layers = ("inner.q.weight", "inner.k.weight")
    heads = _group(0, 1, 2, 3, layers=layers, width=3)
    assert prune._head_counts(model, [heads], {2, 99}) == {f"inner.{name}": size for name, size in sizes.items()}
    assert prune._head_counts(model, [heads], {99}) == {}
    assert prune._head_counts(model, [_group(0, 1, 2, 3, layers=layers)], {2}) == {}
    assert prune._head_counts(model, [_group(0, 1, layers=layers), heads], {2}) != {} or not sizes
    assert prune._head_counts(model.inner, [_group(0, 1, 2, 3, layers=("q.weight",), width=3)], {0}) == sizes


@pytest.mark.parametrize("granularity", ["channel", "weight"])
def test_only_layers_that_are_named_lose_anything(granularity, net, samples, free, refused):
    config = PruneConfig(ratio=0.5, multiple=1, only=("fc1", "blocks.*.conv1"), granularity=granularity)
    found = prune.plan(net, config, samples, free)
    lost = {name for name, axes in found.axes.items() if any(a.dim == 0 for a in axes) and name.endswith("weight")}
    lost |= set(found.thresholds)
    assert {n for n in lost if "bn" not in n} == {"fc1.weight", "blocks.0.conv1.weight", "blocks.1.conv1.weight"}
    with refused(UnknownNameError, "'fc11'", "only"):
        prune.plan(net, PruneConfig(only=("fc11",), granularity=granularity), samples, free)


def test_of_layers_that_lose_together_all_are_to_be_named(net, samples, free):
    """The stem's channels are the first block's as well."""
    for only, lost in ((("stem.0",), False), (("stem.0", "blocks.0.conv2"), True)):
        found = prune.plan(net, PruneConfig(ratio=0.5, multiple=1, only=only), samples, free)
        assert bool(found.axes) == lost


def test_why_a_layer_is_left_names_the_one_it_shares_channels_with(batches, free):
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(12, 24), nn.Linear(24, 24), nn.Conv3d(24, 8, 1)
            self.d, self.e, self.f = nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            z = self.c((y + self.b(y.relu()))[:, :, None, None, None])[:, :, 0, 0, 0]
            return self.f(self.e(self.d(z).relu()).relu())

    plan = prune.plan(Sum().eval(), PruneConfig(ratio=0.5, multiple=1), batches((12,), 16), free)
    assert plan.left == {
        "c": "a Conv3d: only Conv1d, Conv2d and Linear are supported",
        "a": "it shares channels with c",
        "b": "it shares channels with c",
    }
    assert set(plan.axes) == {"d.weight", "d.bias", "e.weight", "e.bias", "f.weight"}
    config = PruneConfig(ratio=0.5, multiple=1, skip=("c",))
    assert "c" not in prune.plan(Sum().eval(), config, batches((12,), 16), free).left


@pytest.mark.parametrize("asked", [True, False])
def test_a_plan_says_what_it_needs_to_be_applied_and_an_empty_one_nothing(asked, randomised, samples, free):
    model = randomised(Net())
    ratio = 0.4 if asked else 0.0
    channels = find_channels(model, (torch.from_numpy(samples[0]),))
    for refit in (True, False):
        plan = prune.plan(model, PruneConfig(ratio=ratio, multiple=1, refit=refit), samples, free)
        assert plan.refit == refit
        assert plan.shifts == (channels.shifts if asked else {})
        assert plan.shortcuts == (channels.shortcuts if asked else {})
        assert set(plan.savings) == ({"macs", "parameters", "channels"} if asked else set())
    assert channels.shortcuts
    if asked:
        total = sum(len(g.channels) for g in channels.groups)
        assert (plan.savings["channels"].before, plan.savings["channels"].after) == (total, total - int(0.4 * total))
        cut, same = prune.apply(model, plan), prune.apply(model, plan, samples)
        assert same_state(cut, same), "a plan without refitting refits nothing"


@pytest.mark.parametrize(
    ("groups", "inputs", "outputs", "kept", "wanted"),
    [(1, 6, 8, 5, (1, 6, 5)), (6, 6, 6, 4, (4, 4, 4)), (6, 6, 12, 8, (4, 4, 8)), (2, 6, 8, 4, (1, 3, 4)),
     (2, 6, 8, 8, (2, 6, 8))],
)  # fmt: skip
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_convolution_states_the_sizes_of_its_weight(dims, groups, inputs, outputs, kept, wanted):
    layer = getattr(nn, f"Conv{dims}d")(inputs, outputs, 1, groups=groups)
    prune._cut(layer, "weight", (Axis(dim=0, size=outputs, kept=tuple(range(kept))),))
    prune._resize(layer)
    assert (layer.groups, layer.in_channels, layer.out_channels) == wanted


def test_other_layers_state_their_sizes_too():
    linear, norm = nn.Linear(6, 4), nn.BatchNorm1d(6)
    prune._cut(linear, "weight", (Axis(dim=0, size=4, kept=(1, 3, 2)), Axis(dim=1, size=6, kept=(0, 5))))
    prune._cut(norm, "running_mean", (Axis(dim=0, size=6, kept=(2, 4)),))
    bare = nn.BatchNorm2d(6, track_running_stats=False)
    for layer in (linear, norm, bare):
        prune._resize(layer)
    assert (linear.out_features, linear.in_features) == (3, 2)
    assert (norm.num_features, bare.num_features) == (2, 6)
    assert isinstance(linear.weight, nn.Parameter)
    assert not isinstance(norm.running_mean, nn.Parameter)


@pytest.mark.parametrize("attribute", ["weight", "running_var"])
def test_what_is_cut_is_what_stays_in_its_order(attribute):
    norm = nn.BatchNorm1d(5)
    getattr(norm, attribute).data.copy_(torch.arange(5.0))
    whole = getattr(norm, attribute)
    prune._cut(norm, attribute, (Axis(dim=0, size=5, kept=(0, 3, 4)),))
    assert getattr(norm, attribute).tolist() == [0.0, 3.0, 4.0]
    assert getattr(norm, attribute).data_ptr() != whole.data_ptr()


def test_a_group_that_is_skipped_stops_no_other(net, samples, free):
    found = prune.plan(net, PruneConfig(ratio=0.5, multiple=1, skip=("stem.0",), scope="uniform"), samples, free)
    assert _kept(found, "stem.0.weight") is None
    for name in ("blocks.0.conv1", "blocks.1.conv1", "blocks.1.conv2", "fc1"):
        assert _kept(found, f"{name}.weight") is not None, name


def test_what_a_matrix_of_the_models_own_reads_stays(batches, free):
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.fc = nn.Linear(12, 24), nn.Linear(24, 16), nn.Linear(8, 5)
            self.matrix = nn.Parameter(torch.randn(8, 16) / 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(F.linear(self.b(self.a(x).relu()).relu(), self.matrix).relu())

    plan = prune.plan(Own().eval(), PruneConfig(ratio=0.5, multiple=1), batches((12,), 16), free)
    assert plan.left == {
        "b": "it shares channels with the model itself",
        "fc": "it makes an output of the model, and what it reads loses no channels",
    }
    assert set(plan.axes) == {"a.weight", "a.bias", "b.weight"}


def test_single_weights_are_judged_on_the_first_samples_there_are(batches, free):
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(12, 24), nn.Linear(24, 5)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(self.a(x).relu(), self.b.weight)

    config = PruneConfig(ratio=0.5, granularity="weight")
    empty = np.zeros((0, 12), np.float32)
    for samples, left in (([empty, *batches((12,), 8)], {"b"}), ([], set()), ([empty], set())):
        assert set(prune.plan(Reads(), config, samples, free).left) == left


def test_a_judge_sees_the_other_half_around_its_mean_where_a_bias_takes_it(randomised, monkeypatch):
    model = randomised(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1, bias=False), nn.Conv2d(4, 2, 1)))
    x = np.random.default_rng(0).normal(1.0, size=(8, 3, 5, 5)).astype(np.float32)
    channels = find_channels(model, (torch.from_numpy(x[:2]),))
    halves, judges, held = [], [], channel_order.HeldOutCost

    def noted(reader, second):
        judges.append(second)
        return held(reader, second)

    def split(*given):
        halves.extend(split_moments(*given))
        return halves

    monkeypatch.setattr(channel_order, "HeldOutCost", noted)
    monkeypatch.setattr(channel_order, "split_moments", split)
    channel_order.orders_of(model, channels, list(channels.groups), [x])
    assert torch.equal(judges[0], halves[1].moments["1"].mean)
    assert torch.equal(judges[1], halves[1].moments["2"].covariance)
    assert len(judges) == 2


def test_halves_are_of_whole_sources_where_those_are_known():
    """Samples that say their source by their value: the moments of a half are those of its sources alone."""

    class Sourced(list):
        groups = np.array([0, 0, 1, 1, 2, 2, 3, 3])

    model = nn.Sequential(nn.Linear(1, 1))
    values = 10.0 ** Sourced.groups.astype(np.float32)[:, None]
    first, second = split_moments(model, ["0"], Sourced([values[:3], values[3:]]))
    sides = [set(), set()]
    for half, side in ((first, sides[0]), (second, sides[1])):
        rest = round(float(half.moments["0"].second.sum()))
        side |= {source for source in range(4) if rest // 2 // 100**source % 10 == 1}
    assert first.samples == second.samples == 4
    assert sorted(sides[0] | sides[1]) == [0, 1, 2, 3]
    assert not sides[0] & sides[1]
    plain = split_moments(model, ["0"], [values])
    assert [half.samples for half in plain] == [4, 4], "else the even ones, and the odd ones"


def test_a_plan_names_what_stays_axis_by_axis(net):
    """Of a layer's weight both axes, in their order; of what loses nothing, nothing."""
    channels = Channels(
        {("w", 0): np.array([0, 1, 2]), ("w", 1): np.array([5, 6, 5]), ("b", 0): np.array([0, 1, 2]),
         ("v", 0): np.array([7, 8])},
        (), {"w": "b", "v": "s"}, frozenset({"s", "r"}), {"w": Shortcut(reader="x")},
    )  # fmt: skip
    weights = {"w": Weight((3, 3), 10), "b": Weight((3,), 0), "v": Weight((2,), 1)}
    uses = prune._Multiplied(weights, ((np.array([0, 1]), 8.0),), 5.0)  # half of the products goes, the rest stays
    groups = [_group(0, 1, 2, layers=("w",)), _group(5, 6, layers=("x",), width=4)]
    plan = prune._planned(net, channels, groups, uses, {1, 6}, PruneConfig())
    assert plan.axes == {
        "b": (Axis(dim=0, size=3, kept=(0, 2)),),
        "w": (Axis(dim=0, size=3, kept=(0, 2)), Axis(dim=1, size=3, kept=(0, 2))),
    }
    assert plan.savings == {
        "macs": Saving(before=92 + 13, after=42 + 9),
        "parameters": Saving(before=14, after=8),
        "channels": Saving(before=11, after=6),
    }
    assert (plan.shifts, plan.shortcuts, plan.shared) == ({"w": "b"}, {"w": Shortcut(reader="x")}, ("r", "s"))
    nothing = prune._planned(net, channels, groups, uses, {99}, PruneConfig())
    assert nothing == PrunePlan()


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize("budget", ["macs", "parameters"])
@pytest.mark.parametrize("left", [1, 4, 8, 12, 15, 16])
def test_a_budget_may_be_used_to_the_last_number(left, budget, scope, randomised, batches, free):
    """Of two layers without biases, where each of 16 channels has as many weights."""
    model = randomised(nn.Sequential(nn.Linear(4, 16, bias=False), nn.LeakyReLU(), nn.Linear(16, 4, bias=False)))
    config = PruneConfig(**{budget: left / 16}, scope=scope, multiple=1)
    found = prune.plan(model, config, batches((4,), 32), free)
    assert prune.apply(model, found)[0].out_features == left
