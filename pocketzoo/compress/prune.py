"""Pruning: remove channels physically, or set single weights to zero.

Channels are scored by second-order saliency, the energy a channel carries into the layers that read it relative to
what they read in all (the diagonal of the layer-wise Hessian, as Optimal Brain Damage, LeCun et al. 1989). What removed
channels carried is then folded into the weights that read them by least squares on calibration data, layer after
layer, each seeing the inputs the already pruned model gives it (ThiNet, Luo et al. 2017, arXiv:1707.06342, goes so for
one layer). Single weights go by global magnitude (Han et al. 2015, arXiv:1506.02626).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from pocketzoo.compress.configs import PruneConfig
from pocketzoo.compress.groups import Channels, Group, find_channels
from pocketzoo.compress.layers import check_skip, first_batch, in_order, matches, weighted_layers
from pocketzoo.compress.moments import input_moments, layer_inputs, solve, thin
from pocketzoo.compress.plans import Axis, PrunePlan
from pocketzoo.errors import UnsupportedLayerError
from pocketzoo.zoo.preprocess import Array
from pocketzoo.zoo.specs import TargetSpec


def plan(model: nn.Module, config: PruneConfig, samples: Iterable[Array], target: TargetSpec) -> PrunePlan:
    """Choose what to remove. The model's outputs and whatever an unknown operator touches keep all their channels.

    Raises:
        UnsupportedLayerError: the model cannot be traced.
        UnknownNameError: ``config.skip`` names no layer.
    """
    layers = weighted_layers(model)
    check_skip(config.skip, layers)
    if config.granularity == "weight":
        return _plan_weights(model, config)
    channels = find_channels(model, first_batch(samples))
    groups = [g for g in channels.groups if not any(matches(w.removesuffix(".weight"), config.skip) for w in g.layers)]
    saliency = _saliency(model, channels, samples)
    multiple = config.multiple or target.channel_multiple
    removed: set[int] = set()
    for group, count in zip(groups, _counts(groups, saliency, config, multiple), strict=True):
        worst_first = sorted(group.channels.tolist(), key=lambda c: (saliency.get(c, 0.0), c))
        removed.update(worst_first[:count])
    return PrunePlan(axes=_axes(channels, removed))


def apply(model: nn.Module, plan: PrunePlan, samples: Iterable[Array] | None = None) -> nn.Module:
    """A new, smaller model. With ``samples`` the remaining weights make up for what was removed.

    Raises:
        UnsupportedLayerError: the model's code relies on a size that pruning changed.
    """
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


def _saliency(model: nn.Module, channels: Channels, samples: Iterable[Array]) -> dict[int, float]:
    """Channel -> sum over the layers that read it of the energy it carries, each relative to the layer's whole."""
    layers = weighted_layers(model)
    readers = {
        name.removesuffix(".weight"): ids
        for (name, dim), ids in channels.axes.items()
        if dim == 1 and name.removesuffix(".weight") in layers
    }
    moments = input_moments(model, readers, samples)
    scores: dict[int, float] = {}
    for name, ids in readers.items():
        if name not in moments:
            continue
        weight = layers[name].weight.detach().flatten(1).double()  # (O, I * k)
        second = moments[name].mean  # (I * k, I * k)
        total = torch.einsum("oi,ij,oj->", weight, second, weight).clamp_min(1e-12)
        energy = (weight.square().sum(0) * second.diagonal()).view(len(ids), -1).sum(1) / total
        for channel, value in zip(ids.tolist(), energy.tolist(), strict=True):
            scores[channel] = scores.get(channel, 0.0) + value
    return scores


def _counts(groups: list[Group], saliency: dict[int, float], config: PruneConfig, multiple: int) -> list[int]:
    """How many channels each group loses; what stays is a multiple of ``multiple``, and never nothing."""
    if config.scope == "uniform":
        wanted = [config.ratio * len(g.channels) for g in groups]
    else:
        everything = sorted(saliency.get(c, 0.0) for g in groups for c in g.channels.tolist())
        limit = everything[int(config.ratio * len(everything))] if everything else 0.0
        wanted = [sum(saliency.get(c, 0.0) < limit for c in g.channels.tolist()) for g in groups]
    counts = []
    for group, count in zip(groups, wanted, strict=True):
        total = len(group.channels)
        kept = round((total - count) / multiple) * multiple
        counts.append(total - min(max(kept, min(multiple, total)), total))
    return counts


def _axes(channels: Channels, removed: set[int]) -> dict[str, tuple[Axis, ...]]:
    axes: dict[str, tuple[Axis, ...]] = {}
    for (name, dim), ids in sorted(channels.axes.items()):
        kept = tuple(i for i, channel in enumerate(ids.tolist()) if channel not in removed)
        if len(kept) < len(ids):
            axes[name] = (*axes.get(name, ()), Axis(dim=dim, size=len(ids), kept=kept))
    return axes


def _plan_weights(model: nn.Module, config: PruneConfig) -> PrunePlan:
    names = [f"{name}.weight" for name in weighted_layers(model) if not matches(name, config.skip)]
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
    if isinstance(module, nn.Conv2d):
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
    ]
    for name in in_order(pruned, readers, first_batch(samples)):
        before = model.get_parameter(f"{name}.weight").detach().flatten(1).double()
        kept_rows = {axis.dim: axis.kept for axis in plan.axes[f"{name}.weight"]}.get(0)
        if kept_rows is not None:
            before = before[list(kept_rows)]
        cross = gram = torch.zeros(())
        with torch.no_grad():
            for batch in samples:
                x = torch.from_numpy(batch)
                full = thin(layer_inputs(model, name, x))
                less = thin(layer_inputs(pruned, name, x))
                cross = cross + (full.T @ less).double()  # (I, I')
                gram = gram + (less.T @ less).double()  # (I', I')
        weight = pruned.get_parameter(f"{name}.weight")
        fitted = solve(before @ cross, gram)
        if torch.isfinite(fitted).all():
            weight.data.copy_(fitted.view_as(weight))
