"""How many channels each group loses: a fraction of all, or as many as a budget wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pocketzoo.compress.configs import PruneConfig
from pocketzoo.compress.plans import PrunePlan
from pocketzoo.compress.pruning.channel_budget import Counts, Curves, uniform
from pocketzoo.compress.pruning.channels import Channels, Group
from pocketzoo.compress.pruning.kernel_time import KernelTime
from pocketzoo.compress.pruning.saliency import Elimination
from pocketzoo.compress.statistics.eligible_layers import weighted_layers
from pocketzoo.zoo.catalog.specs import TargetSpec

if TYPE_CHECKING:
    from torch import nn

HALVINGS = 16
# Of the fraction of the channels that go: what is to be saved of the time that kernels are reckoned to take. On
# EfficientNet-Lite0 the same fraction of every group saves 1.2 times its own.
TIME_SAVED = 0.9
WEIGHTS, WEIGHT_STEP = 5.0, 0.25  # binary logarithms: how far a channel's time may count more than its width, and less


def multiples_of(
    model: nn.Module, channels: Channels, groups: Sequence[Group], config: PruneConfig, target: TargetSpec
) -> list[int]:
    """What the channels that each group keeps are a multiple of: those of depthwise layers have their own."""
    if config.multiple:
        return [config.multiple] * len(groups)
    depthwise = {
        channel
        for name, layer in weighted_layers(model).items()
        if getattr(layer, "groups", 1) > 1 and layer.weight.shape[1] == 1
        for channel in channels.axes.get((f"{name}.weight", 0), ())
    }
    usual, other = target.channel_multiple, target.depthwise_multiple or target.channel_multiple
    return [usual if depthwise.isdisjoint(group.channels.tolist()) else other for group in groups]


def channel_counts(
    groups: Sequence[Group],
    orders: Sequence[Elimination],
    config: PruneConfig,
    multiples: Sequence[int],
    planned: Callable[[Counts], PrunePlan],
    timed: Callable[[float, Callable[[float], Counts]], Counts],
    time: KernelTime | None = None,
) -> Counts:
    """The channels that each group loses.

    ``planned`` says what counts save; ``timed`` finds those for a fraction of the latency, of what gives counts for one
    of the multiply-accumulates. Where ``time`` is known, a fraction of the channels is to save some of it, too.
    """
    budget = next((b for b in ("macs", "parameters", "latency") if getattr(config, b) is not None), "")
    if not groups:
        return []
    counted = "parameters" if budget == "parameters" else "macs"

    def stays(counts: Counts) -> float:
        saving = planned(counts).savings.get(counted)
        return saving.after / max(saving.before, 1) if saving else 1.0

    def each() -> list[float]:
        """What one channel of each group saves."""
        return [1 - stays([int(i == j) for j in range(len(groups))]) for i in range(len(groups))]

    if not budget:
        if config.scope == "uniform":
            return uniform(groups, config.ratio, multiples)
        widths = [float(g.width) for g in groups]
        wanted = config.ratio * sum(len(g.channels) * g.width for g in groups)
        if time is None:
            return Curves(groups, orders, widths, multiples).share(wanted)
        return _saving_time(groups, orders, multiples, wanted, time, TIME_SAVED * config.ratio)
    curves = None
    if config.scope == "global":
        curves = Curves(groups, orders, each(), multiples)

    def at(share: float) -> Counts:
        if curves is not None:
            return curves.within(lambda counts: stays(counts) <= share)
        low, high = 0.0, 1.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if stays(uniform(groups, middle, multiples)) <= share else (middle, high)
        return uniform(groups, high, multiples) if share < 1 else [0] * len(groups)

    share: float = getattr(config, budget)
    return timed(share, at) if budget == "latency" else at(share)


def _saving_time(
    groups: Sequence[Group],
    orders: Sequence[Elimination],
    multiples: Sequence[int],
    wanted: float,
    time: KernelTime,
    least: float,
) -> Counts:
    """Counts of ``wanted`` channels that save a fraction of the time, at the least harm; the most of it if none do.

    A channel is worth its width, and with a weight the time that it saves: the least weight that is enough.
    """
    widths = [float(g.width) for g in groups]
    total = sum(len(g.channels) * g.width for g in groups)
    each = [time.saved([int(i == j) for j in range(len(groups))]) for i in range(len(groups))]

    def at(weight: float) -> Counts:
        worth = [width / total + weight * own for width, own in zip(widths, each, strict=True)]
        return Curves(groups, orders, worth, multiples).share(wanted, widths)

    low, high = -WEIGHTS, WEIGHTS
    counts = at(0.0)
    if time.saved(counts) >= least or time.saved(most := at(2.0**high)) < time.saved(counts):
        return counts
    counts = most
    while time.saved(most) >= least and high - low > WEIGHT_STEP:
        middle = (low + high) / 2
        if time.saved(tried := at(2.0**middle)) >= least:
            counts, high = tried, middle
        else:
            low = middle
    return counts
