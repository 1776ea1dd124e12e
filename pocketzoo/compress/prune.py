"""Pruning: remove channels physically, or set single weights to zero.

Channels go in the order of second-order saliency (see saliency.py). What they carried is then folded into the weights
that read them by least squares on calibration data, layer after layer, each seeing the inputs the already pruned model
gives it (ThiNet, Luo et al. 2017, arXiv:1707.06342, refits one layer so). Single weights go by global magnitude (Han et
al. 2015, arXiv:1506.02626).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from pocketzoo.compress.configs import PruneConfig
from pocketzoo.compress.groups import Channels, Group, find_channels
from pocketzoo.compress.layers import check_skip, first_batch, matches, weighted_layers
from pocketzoo.compress.lockstep import walk
from pocketzoo.compress.moments import Moments, input_moments, shrunk, solve
from pocketzoo.compress.plans import Axis, PrunePlan
from pocketzoo.compress.saliency import Elimination, Reader, eliminate
from pocketzoo.errors import DataError, UnsupportedLayerError
from pocketzoo.zoo.preprocess import Array
from pocketzoo.zoo.specs import TargetSpec

COMPENSATION_SAMPLES = 64  # whose activations are held at a time; each gives a layer hundreds of positions


def plan(model: nn.Module, config: PruneConfig, samples: Iterable[Array], target: TargetSpec) -> PrunePlan:
    """Choose what to remove. The model's outputs and whatever an unknown operator touches keep all their channels.

    Raises:
        UnsupportedLayerError: the model cannot be traced.
        UnknownNameError: ``config.skip`` names no layer.
    """
    model = copy.deepcopy(model).eval()  # the caller's may be in training
    layers = weighted_layers(model)
    check_skip(config.skip, layers)
    if config.granularity == "weight":
        return _plan_weights(model, config)
    channels = find_channels(model, first_batch(samples))
    untouchable = {
        channel
        for (name, _), ids in channels.axes.items()
        if matches(name.rpartition(".")[0], config.skip)
        for channel in ids.tolist()
    }
    groups = [g for g in channels.groups if untouchable.isdisjoint(g.channels.tolist())]
    orders = _orders(model, channels, groups, samples)
    multiple = config.multiple or target.channel_multiple
    axes = _axes(channels, _removed(channels, orders, _counts(groups, orders, config, multiple)))
    shifts = {name: shift for name, shift in channels.shifts.items() if name in axes and shift not in channels.shared}
    return PrunePlan(axes=axes, shifts=shifts, shared=tuple(sorted(channels.shared & set(axes))))


def apply(model: nn.Module, plan: PrunePlan, samples: Iterable[Array] | None = None) -> nn.Module:
    """A new, smaller model. With ``samples`` the remaining weights make up for what was removed.

    Raises:
        UnsupportedLayerError: the model's code relies on a size that pruning changed.
    """
    model = copy.deepcopy(model).eval()
    pruned = copy.deepcopy(model)
    for name, threshold in plan.thresholds.items():
        weight = pruned.get_parameter(name)
        weight.data[weight.abs() <= threshold] = 0.0
    for name, axes in plan.axes.items():
        _cut(pruned, name, axes)
    for module in pruned.modules():
        _resize(module)
    if samples is not None and plan.axes:
        try:
            with torch.no_grad():
                pruned(first_batch(samples))
        except RuntimeError as error:
            raise UnsupportedLayerError(
                f"the model's code relies on a size that pruning changed: {str(error).splitlines()[0]}",
                "keep the layers it names with skip",
            ) from error
        _compensate(model, pruned, plan, samples)
    return pruned


# -- planning


def _orders(model: nn.Module, channels: Channels, groups: list[Group], samples: Iterable[Array]) -> list[Elimination]:
    """For each group, its channels in the order they should go."""
    layers = weighted_layers(model)
    reads = {
        name: ids.tolist()
        for (weight, dim), ids in channels.axes.items()
        if dim == 1 and (name := weight.removesuffix(".weight")) in layers
    }
    moments = input_moments(model, reads, samples)
    orders = []
    for group in groups:
        members = group.channels.tolist()
        readers = [
            _reader(layers[name], moments[name], ids, shifts=f"{name}.weight" in channels.shifts)
            for name, ids in reads.items()
            if name in moments and not set(ids).isdisjoint(members)
        ]
        orders.append(eliminate(members, readers, len(members) - 1))
    return orders


def _reader(layer: nn.Conv2d | nn.Linear, moments: Moments, channels: list[int], *, shifts: bool) -> Reader:
    weight = layer.weight.detach().flatten(1).double()
    second = moments.covariance if shifts else moments.mean
    if not torch.isfinite(second).all():
        raise DataError("calibration: a layer's inputs are not finite", "check the samples for NaN or infinity")
    total = float(torch.einsum("oi,ij,oj->", weight, second, weight))
    return Reader(weight, shrunk(second, moments.count), channels, total)


def _counts(groups: list[Group], orders: list[Elimination], config: PruneConfig, multiple: int) -> list[int]:
    """How many channels each group loses; what stays is a multiple of ``multiple``, and never nothing."""
    if config.scope == "uniform":
        wanted = [config.ratio * len(g.channels) for g in groups]
    else:
        # Costs only grow along an order, so the cheapest channels of all are a beginning of each order.
        everything = sorted(cost for order in orders for cost in order.costs)
        total = sum(len(g.channels) for g in groups)
        take = min(int(config.ratio * total), len(everything))
        limit = everything[take - 1] if take else -1.0
        wanted = [float(sum(cost <= limit for cost in order.costs)) for order in orders]
    counts = []
    for group, count in zip(groups, wanted, strict=True):
        total = len(group.channels)
        if count <= 0:
            counts.append(0)
            continue
        kept = round((total - count) / multiple) * multiple
        counts.append(total - min(max(kept, min(multiple, total)), total))
    return counts


def _removed(channels: Channels, orders: list[Elimination], counts: list[int]) -> set[int]:
    """The channels that go: ``counts`` of each order, without ever taking the last of a layer."""
    carriers: dict[int, list[tuple[str, int]]] = {}
    left: dict[tuple[str, int], set[int]] = {}
    for key, ids in channels.axes.items():
        left[key] = set(ids.tolist())
        for channel in left[key]:
            carriers.setdefault(channel, []).append(key)
    removed: set[int] = set()
    for order, count in zip(orders, counts, strict=True):
        gone = 0
        for channel in order.order:
            if gone == count:
                break
            if any(len(left[key]) == 1 for key in carriers[channel]):
                continue
            for key in carriers[channel]:
                left[key].discard(channel)
            removed.add(channel)
            gone += 1
    return removed


def _axes(channels: Channels, removed: set[int]) -> dict[str, tuple[Axis, ...]]:
    axes: dict[str, tuple[Axis, ...]] = {}
    for (name, dim), ids in sorted(channels.axes.items()):
        kept = tuple(i for i, channel in enumerate(ids.tolist()) if channel not in removed)
        if len(kept) < len(ids):
            axes[name] = (*axes.get(name, ()), Axis(dim=dim, size=len(ids), kept=kept))
    return axes


def _plan_weights(model: nn.Module, config: PruneConfig) -> PrunePlan:
    names = [f"{name}.weight" for name in weighted_layers(model) if not matches(name, config.skip)]
    if not names:
        return PrunePlan()
    magnitudes = np.concatenate([model.get_parameter(n).detach().abs().numpy().ravel() for n in names])
    count = int(config.ratio * magnitudes.size)
    if count == 0:
        return PrunePlan()
    threshold = float(np.partition(magnitudes, count - 1)[count - 1])
    return PrunePlan(thresholds=dict.fromkeys(names, threshold))


# -- applying


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
        if module.groups > 1 and out != module.out_channels:  # depthwise: as many groups as input channels stay
            module.groups = out // (module.out_channels // module.groups)
        module.out_channels, module.in_channels = out, inner * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d) and module.running_mean is not None:
        module.num_features = len(module.running_mean)


def _compensate(model: nn.Module, pruned: nn.Module, plan: PrunePlan, samples: Iterable[Array]) -> None:
    """Refit each layer that lost inputs: W' = argmin |W x - W' x'|^2, x and x' being what it reads before and after."""
    readers = [
        name
        for name, layer in weighted_layers(pruned).items()
        if layer.weight.shape[1] < model.get_parameter(f"{name}.weight").shape[1]
        and (isinstance(layer, nn.Linear) or layer.groups == 1)
        and f"{name}.weight" not in plan.shared
    ]
    batches = _first(samples, COMPENSATION_SAMPLES)

    def refit(name: str, inputs: list[Tensor]) -> None:
        full, less = inputs[: len(batches)], inputs[len(batches) :]
        before = model.get_parameter(f"{name}.weight").detach().flatten(1).double()
        kept_rows = {axis.dim: axis.kept for axis in plan.axes[f"{name}.weight"]}.get(0)
        if kept_rows is not None:
            before = before[list(kept_rows)]
        wanted, given = torch.cat(full).double(), torch.cat(less).double()  # (N, I), (N, I')
        shift = plan.shifts.get(f"{name}.weight")
        means = (wanted.mean(0), given.mean(0)) if shift else (torch.zeros(()), torch.zeros(()))
        wanted, given = wanted - means[0], given - means[1]
        weight = pruned.get_parameter(f"{name}.weight")
        kept = weight.detach().flatten(1).double()
        # What the kept weights miss is regressed, so that damping pulls towards them and not towards zero.
        missed = before @ (wanted.T @ given) - kept @ (given.T @ given)
        fitted = kept + solve(missed, given.T @ given, len(given))
        if not torch.isfinite(fitted).all():
            return
        weight.data.copy_(fitted.view_as(weight))
        if shift:
            _shift(pruned, shift, before @ means[0] - fitted @ means[1])

    walk([(model, x) for x in batches] + [(pruned, x) for x in batches], readers, refit)


def _shift(model: nn.Module, name: str, by: Tensor) -> None:
    """Add ``by`` (O,) to a layer's output: on its bias, or against the mean that its batch norm subtracts."""
    path, _, attribute = name.rpartition(".")
    tensor: Tensor = getattr(model.get_submodule(path), attribute)
    tensor.data.add_(by.to(tensor.dtype) * (-1 if attribute == "running_mean" else 1))


def _first(samples: Iterable[Array], count: int) -> list[Tensor]:
    batches: list[Tensor] = []
    for batch in samples:
        batches.append(torch.from_numpy(batch)[: count - sum(map(len, batches))])
        if sum(map(len, batches)) >= count:
            break
    return batches
