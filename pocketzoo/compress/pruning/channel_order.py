"""In which order the channels of each group go: by second moments, or by left-out sources where these are few."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from pocketzoo.compress.pruning.channels import Channels, Group
from pocketzoo.compress.pruning.gauss_newton import output_sensitivity, sensitivities, square_root
from pocketzoo.compress.pruning.left_out_sources import SENT_BACK, ReadingLayer, folds_of, made_of, orders_by_sources
from pocketzoo.compress.pruning.saliency import ChannelReader, Elimination, HeldOutCost, eliminate
from pocketzoo.compress.statistics.eligible_layers import Layer, weighted_layers
from pocketzoo.compress.statistics.sample_moments import sample_moments
from pocketzoo.compress.statistics.second_moments import Moments, shrunk, split_moments
from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import DataError
from pocketzoo.core.malloc_trim import return_memory

TRUSTED_POSITIONS = 16  # of a sample: more of them say little that is new


def orders_of(
    model: nn.Module, channels: Channels, groups: list[Group], samples: Iterable[Arrays]
) -> list[Elimination]:
    """For each group, its channels in the order they should go."""
    layers = weighted_layers(model)
    removable = {channel for group in groups for channel in group.channels.tolist()}
    reads = {
        name: ids.tolist()
        for (weight, dim), ids in channels.axes.items()
        if dim == 1 and (name := weight.removesuffix(".weight")) in layers and not removable.isdisjoint(ids.tolist())
    }
    if (folds := folds_of(samples)) is not None:
        return _orders_by_sources(model, channels, groups, reads, samples, folds)
    halves = split_moments(model, reads, samples)
    return_memory()
    first, second = (half.moments for half in halves)
    for moment in (*first.values(), *second.values()):
        if not torch.isfinite(moment.second).all():
            raise DataError("calibration: a layer's inputs are not finite", "check the samples for NaN or infinity")
    matter = output_sensitivity(model, [name for name in reads if name in first], samples)
    orders = []
    for group in groups:
        members = group.channels.tolist()
        readers, held_out = [], []
        for name, ids in reads.items():
            if name not in first or set(ids).isdisjoint(members):
                continue
            weight = _weighed(layers[name], matter.get(name))
            shifts = f"{name}.weight" in channels.shifts
            trusted = [half.samples * TRUSTED_POSITIONS for half in halves]
            if name not in second:  # a single sample: nothing to judge on
                readers.append(_reader(weight, first[name], ids, trusted[0], shifts=shifts))
                continue
            readers.append(_reader(weight, first[name] + second[name], ids, sum(trusted), shifts=shifts))
            other = second[name].covariance if shifts else second[name].mean
            held_out.append(HeldOutCost(_reader(weight, first[name], ids, trusted[0], shifts=shifts), other))
        orders.append(eliminate(members, readers, len(members) - 1, held_out))
    return orders


def _orders_by_sources(
    model: nn.Module,
    channels: Channels,
    groups: list[Group],
    reads: Mapping[str, list[int]],
    samples: Iterable[Arrays],
    folds: Tensor,
) -> list[Elimination]:
    """``_orders`` where the samples are of few sources."""
    found = sample_moments(model, reads, samples, folds)
    made = made_of(samples, folds > 0)
    moments = None
    if made is not None:
        (moments,) = sample_moments(model, reads, made, torch.zeros(made.count, dtype=torch.int64))
    for moment in (each for fold in found for each in fold.values()):
        if not (torch.isfinite(moment.within).all() and torch.isfinite(moment.means).all()):
            raise DataError("calibration: a layer's inputs are not finite", "check the samples for NaN or infinity")
    layers = weighted_layers(model)
    readers = [
        ReadingLayer(name, layers[name].weight.detach().flatten(1), ids, f"{name}.weight" in channels.shifts)
        for name, ids in reads.items()
    ]
    matter = sensitivities(model, list(found[0]), samples, SENT_BACK)
    return orders_by_sources(groups, readers, matter, found, moments)


def _weighed(layer: Layer, matter: Tensor | None) -> Tensor:
    """The weight (O, I) with its outputs in the directions and units in which they change the model's output."""
    weight = layer.weight.detach().flatten(1).double()
    if matter is None or not torch.isfinite(matter).all():
        return torch.zeros_like(weight)
    return square_root(matter) @ weight


def _reader(weight: Tensor, moments: Moments, channels: list[int], trusted: int, *, shifts: bool) -> ChannelReader:
    second = moments.covariance if shifts else moments.mean
    run = next((b for b in _run_lengths(channels)), 1)
    return ChannelReader(weight, shrunk(second, min(moments.count, trusted)), channels[::run], 1.0)


def _run_lengths(channels: Sequence[int]) -> Iterable[int]:
    """The length of the runs of equal channels, if all are as long: what a head or a flattened map gives."""
    first = next((i for i, c in enumerate(channels) if c != channels[0]), len(channels))
    if len(channels) % first == 0 and all(
        len(set(channels[i : i + first])) == 1 for i in range(0, len(channels), first)
    ):
        yield first
