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
from pocketzoo.compress.plans import Axis, PrunePlan
from pocketzoo.compress.pruning import prune
from pocketzoo.compress.pruning.channel_groups import find_channels
from pocketzoo.core.errors import PocketzooError, UnknownNameError
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
    channels = find_channels(quiet, torch.from_numpy(samples[0]))
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
    channels = find_channels(quiet, torch.from_numpy(samples[0]))
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
    channels = find_channels(model, torch.from_numpy(samples[0]))
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
    assert find_channels(model, torch.from_numpy(samples[0])).shared == shared
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
    channels = find_channels(net, torch.from_numpy(samples[0]))
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
    channels = find_channels(model, torch.from_numpy(samples[0]))
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


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize("budget", ["macs", "parameters"])
@pytest.mark.parametrize("left", [1, 4, 8, 12, 15, 16])
def test_a_budget_may_be_used_to_the_last_number(left, budget, scope, randomised, batches, free):
    """Of two layers without biases, where each of 16 channels has as many weights."""
    model = randomised(nn.Sequential(nn.Linear(4, 16, bias=False), nn.LeakyReLU(), nn.Linear(16, 4, bias=False)))
    config = PruneConfig(**{budget: left / 16}, scope=scope, multiple=1)
    found = prune.plan(model, config, batches((4,), 32), free)
    assert prune.apply(model, found)[0].out_features == left
