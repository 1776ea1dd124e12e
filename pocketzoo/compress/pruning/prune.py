"""The pruning step: remove channels physically, or set single weights to zero.

Channels go in the order of channel_order.py, from each layer as many as the model's output bears (channel_budget.py).
What they carried is then folded into the weights that stay (refit.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pocketzoo.compress.configs import PruneConfig
from pocketzoo.compress.plans import Axis, PrunePlan, Saving
from pocketzoo.compress.pruning import sparse
from pocketzoo.compress.pruning.channel_budget import Counts, Weight, costs, removed
from pocketzoo.compress.pruning.channel_counts import channel_counts, multiples_of
from pocketzoo.compress.pruning.channel_groups import find_channels
from pocketzoo.compress.pruning.channel_order import orders_of
from pocketzoo.compress.pruning.channels import Channels, Group, Ids
from pocketzoo.compress.pruning.held_layers import held_layers, removable_groups
from pocketzoo.compress.pruning.kernel_time import KernelTime
from pocketzoo.compress.pruning.latency_budget import fitting
from pocketzoo.compress.pruning.left_out_sources import with_further
from pocketzoo.compress.pruning.line_convolutions import (
    inner_names,
    inner_patterns,
    outer_names,
    with_lines,
    with_planes,
)
from pocketzoo.compress.pruning.refit import refit
from pocketzoo.compress.pruning.size_check import relied_on
from pocketzoo.compress.statistics.calibration_batches import Inputs, first_batch, size_of
from pocketzoo.compress.statistics.eligible_layers import (
    copied,
    layers_of,
    left_alone,
    lines,
    weighted_layers,
)
from pocketzoo.core.arrays import Arrays, batch_size, named
from pocketzoo.core.errors import UnsupportedLayerError
from pocketzoo.core.name_patterns import check_skip, matches
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.modules.module_macs import module_macs

if TYPE_CHECKING:
    from onnx import ModelProto

HEADS = ("num_heads", "num_attention_heads", "num_key_value_heads", "n_heads", "n_head", "nhead", "heads")
HEADS_TIMES_SIZE = ("all_head_size",)


def plan(
    model: nn.Module,
    config: PruneConfig,
    samples: Iterable[Arrays],
    target: TargetSpec,
    *,
    shipped: Callable[[ModelProto], ModelProto] | None = None,
) -> PrunePlan:
    """Choose what to remove. The model's outputs and whatever an unknown operator touches keep all their channels.

    So do layers that are not understood, and all that have channels in common with them: ``left`` of the plan says why.
    ``shipped`` makes of a float graph what will run in its place: what a latency budget times.

    Raises:
        UnsupportedLayerError: the model cannot be traced, or timed for a latency budget.
        UnknownNameError: ``config.skip`` or ``config.only`` names no layer.
    """
    model = copied(model)  # the caller's may be in training
    known = list(layers_of(model))
    check_skip(config.skip, known)
    check_skip(config.only, known, "only")
    if config.granularity == "weight":
        x = next((first_batch([batch]) for batch in samples if batch_size(named(batch))), None)
        return sparse.plan(model, config, target, x)
    x = first_batch(samples)
    widened, unfit = lines(model, x)
    own = replace(
        config, skip=inner_patterns(config.skip, known, widened), only=inner_patterns(config.only, known, widened)
    )
    planes = with_planes(model, widened)
    return outer_names(_plan_channels(planes, own, samples, target, x, unfit, shipped), widened)


def _plan_channels(
    model: nn.Module,
    config: PruneConfig,
    samples: Iterable[Arrays],
    target: TargetSpec,
    x: Inputs,
    unfit: Mapping[str, str],
    shipped: Callable[[ModelProto], ModelProto] | None,
) -> PrunePlan:
    """``plan`` of channels, of a model whose convolutions are Conv2d, but for Conv1d that are ``unfit``, with why."""
    channels = find_channels(model, x)
    left = left_alone(model, x, unfit=unfit)
    groups = removable_groups(model, channels, config, left)
    uses = _uses(model, x, channels)

    def smaller(gone: set[int]) -> nn.Module:
        return apply(model, _planned(model, channels, groups, uses, gone, config))

    for group in relied_on(model, channels, groups, smaller, x):
        groups = [each for each in groups if each is not group]
        makers = [name.rpartition(".")[0] for name in group.layers]
        left |= dict.fromkeys(makers, "the code around it relies on how many channels it has")
    left = held_layers(model, channels, left) | left
    left = {name: why for name, why in left.items() if not matches(name, config.skip)}
    multiples = multiples_of(model, channels, groups, config, target)
    orders = orders_of(model, channels, groups, samples)

    def planned(counts: Counts) -> PrunePlan:
        new_plan = _planned(model, channels, groups, uses, removed(channels, orders, counts), config)
        return replace(new_plan, left=left)

    def timed(share: float, at: Callable[[float], Counts]) -> Counts:
        return fitting(model, share, x, at, lambda counts: apply(model, planned(counts)), shipped)

    time = None if target.costs is None else KernelTime.of(uses.weights, channels, groups, target.costs)
    return planned(channel_counts(groups, orders, config, multiples, planned, timed, time))


def apply(model: nn.Module, plan: PrunePlan, samples: Iterable[Arrays] | None = None) -> nn.Module:
    """A new, smaller model. With ``samples`` the remaining weights make up for what was removed.

    Raises:
        UnsupportedLayerError: the model's code relies on a size that pruning changed.
    """
    model = copied(model)
    layers = dict.fromkeys(name.rpartition(".")[0] for name in plan.axes)
    widened = [name for name in layers if name and isinstance(model.get_submodule(name), nn.Conv1d)]
    plan = inner_names(plan, widened)
    model = with_planes(model, widened)
    pruned = copied(model)
    for name, axes in plan.axes.items():
        _cut(pruned, name, axes)
    for name in dict.fromkeys(name.rpartition(".")[0] for name in plan.axes):
        _resize(pruned.get_submodule(name))
    for name, size in plan.sizes.items():
        path, _, attribute = name.rpartition(".")
        setattr(pruned.get_submodule(path), attribute, size)
    if plan.axes and samples is not None:
        try:
            with torch.no_grad():
                pruned(*first_batch(samples))
        except RuntimeError as error:
            raise UnsupportedLayerError(
                f"the model's code relies on a size that pruning changed: {str(error).splitlines()[0]}",
                "keep the layers it names with skip",
            ) from error
        if plan.refit:
            _refit(model, pruned, plan, with_further(samples))
    if plan.thresholds or plan.patterns:
        sparse.apply(model, pruned, plan, samples)
    return with_lines(pruned) if widened else pruned


# -- planning


@dataclass(frozen=True, slots=True)
class _Multiplied:
    """What a model multiplies for one sample."""

    weights: dict[str, Weight]  # of every parameter
    products: tuple[tuple[Ids, float], ...]  # of two activations: channel of each, and what all of them are
    rest: float  # what no channel is known of

    def costs(self, sizes: dict[tuple[str, int], int], gone: set[int]) -> tuple[int, int]:
        """Multiply-accumulates and parameters, where axes have the given ``sizes`` and some channels are ``gone``."""
        macs, parameters = costs(self.weights, sizes)
        products = sum(all_ * sum(c not in gone for c in ids.tolist()) / len(ids) for ids, all_ in self.products)
        return macs + round(products + self.rest), parameters


def _uses(model: nn.Module, x: Inputs, channels: Channels) -> _Multiplied:
    """Every parameter, for how many positions of one sample it is used, and what has none."""
    samples, counted = size_of(x), module_macs(model, x)
    weights = {
        name: Weight(tuple(p.shape), counted.by_parameter[name] // (samples * max(p.numel(), 1)))
        for name, p in model.named_parameters()
    }
    products = tuple((ids, macs / samples) for ids, macs in channels.products)
    known = costs(weights, {})[0] + sum(macs for _, macs in products)
    return _Multiplied(weights, products, max(counted.total / samples - known, 0.0))


if TYPE_CHECKING:
    from onnx import ModelProto


def _planned(
    model: nn.Module,
    channels: Channels,
    groups: list[Group],
    uses: _Multiplied,
    gone: set[int],
    config: PruneConfig,
) -> PrunePlan:
    axes: dict[str, tuple[Axis, ...]] = {}
    sizes: dict[tuple[str, int], int] = {}
    for (name, dim), ids in sorted(channels.axes.items()):
        channels_left = tuple(i for i, channel in enumerate(ids.tolist()) if channel not in gone)
        if len(channels_left) < len(ids):
            axes[name] = (*axes.get(name, ()), Axis(dim=dim, size=len(ids), kept=channels_left))
            sizes[name, dim] = len(channels_left)
    before, after = uses.costs({}, set()), uses.costs(sizes, gone)
    total = sum(len(g.channels) * g.width for g in groups)
    left = sum(g.width for g in groups for c in g.channels.tolist() if c not in gone)
    return PrunePlan(
        axes=axes,
        sizes=_head_counts(model, groups, gone),
        savings={
            "macs": Saving(before=before[0], after=after[0]),
            "parameters": Saving(before=before[1], after=after[1]),
            "channels": Saving(before=total, after=left),
        }
        if axes
        else {},
        refit=config.refit,
        shifts={n: s for n, s in channels.shifts.items() if s not in channels.shared} if axes else {},
        shortcuts=channels.shortcuts if axes else {},
        shared=tuple(sorted(channels.shared)) if axes else (),
    )


def _head_counts(model: nn.Module, groups: list[Group], gone: set[int]) -> dict[str, int]:
    """Attributes that count the heads of a group, in the module around the layers that make them."""
    head_counts: dict[str, int] = {}
    for group in groups:
        count = len(group.channels)
        left = count - len(gone.intersection(group.channels.tolist()))
        if group.width == 1 or left == count:
            continue
        for name in group.layers:
            path = name.rpartition(".")[0].rpartition(".")[0]
            attributes = vars(model.get_submodule(path))
            head_sizes = {**dict.fromkeys(HEADS, 1), **dict.fromkeys(HEADS_TIMES_SIZE, group.width)}
            for attribute, size in head_sizes.items():
                if attributes.get(attribute) == count * size:
                    head_counts[f"{path}.{attribute}".lstrip(".")] = left * size
    return head_counts


# -- applying


def _refit(model: nn.Module, pruned: nn.Module, plan: PrunePlan, samples: Iterable[Arrays]) -> None:
    """Every layer that lost inputs."""
    names = [
        name
        for name, layer in weighted_layers(pruned).items()
        if layer.weight.shape[1] < model.get_parameter(f"{name}.weight").shape[1]
        and (isinstance(layer, nn.Linear) or layer.groups == 1)
        and f"{name}.weight" not in plan.shared
    ]
    channels_left = {name: axis.kept for name, axes in plan.axes.items() for axis in axes if axis.dim == 0}
    if names:
        refit(model, pruned, names, samples, channels_left=channels_left, shifts=plan.shifts, shortcuts=plan.shortcuts)


def _cut(model: nn.Module, name: str, axes: tuple[Axis, ...]) -> None:
    path, _, attribute = name.rpartition(".")
    module = model.get_submodule(path)
    tensor: Tensor = getattr(module, attribute)
    for axis in axes:
        tensor = tensor.index_select(axis.dim, torch.tensor(axis.kept))
    if isinstance(getattr(module, attribute), nn.Parameter):
        setattr(module, attribute, nn.Parameter(tensor.detach().clone()))
    else:
        setattr(module, attribute, tensor.clone())


def _resize(module: nn.Module) -> None:
    """Make the sizes a layer states those of its weight."""
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        out, inner = module.weight.shape[:2]
        if module.groups > 1 and out != module.out_channels:  # as many outputs for each group as before
            module.groups = out // (module.out_channels // module.groups)
        module.out_channels, module.in_channels = out, inner * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d) and module.running_mean is not None:
        module.num_features = len(module.running_mean)
