"""Which groups of channels may lose some, and why the layers that are in none of them stay as they are."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from pocketzoo.compress.configs import PruneConfig
from pocketzoo.compress.pruning.channels import Channels, Group
from pocketzoo.compress.statistics.eligible_layers import layers_of, shared_parameters, weighted_layers
from pocketzoo.core.name_patterns import matches


def removable_groups(model: nn.Module, channels: Channels, config: PruneConfig, left: dict[str, str]) -> list[Group]:
    """The groups that may lose channels. Layers that may not because of another go into ``left`` as well."""
    plain, tied = weighted_layers(model), shared_parameters(model)
    parameters = dict(model.named_parameters())
    blocked: dict[int, str] = {}  # channel -> the module that cannot lose it
    for (name, _), ids in channels.axes.items():
        layer = name.rpartition(".")[0]
        weights = name in parameters and parameters[name].ndim > 1
        if layer in left or name in tied or (weights and layer not in plain):
            blocked |= dict.fromkeys(ids.tolist(), layer)
    untouchable = {
        channel
        for (name, _), ids in channels.axes.items()
        if matches(name.rpartition(".")[0], config.skip)
        for channel in ids.tolist()
    }
    removable = []
    for group in channels.groups:
        members = group.channels.tolist()
        makers = [name.rpartition(".")[0] for name in group.layers]
        if not untouchable.isdisjoint(members):
            continue
        if config.only and not all(matches(name, config.only) for name in makers):
            continue
        if (by := next((blocked[c] for c in members if c in blocked), None)) is None:
            removable.append(group)
        else:
            reason = f"it shares channels with {by or 'the model itself'}"
            left |= {name: reason for name in makers if name not in (by, *left)}  # by itself: in ``left``, or the model
    return removable


def held_layers(model: nn.Module, channels: Channels, left: Mapping[str, str]) -> dict[str, str]:
    """The layers of which no channel can go on either side, with the reason; ``left``: those that have one already."""
    plain = weighted_layers(model).keys() - left.keys()
    open_ = {
        channel
        for group in channels.groups
        if plain.issuperset(name.rpartition(".")[0] for name in group.layers)
        for channel in group.channels.tolist()
    }
    held: dict[str, str] = {}
    for name in layers_of(model):
        sides = [channels.axes[key].tolist() for dim in (0, 1) if (key := (f"{name}.weight", dim)) in channels.axes]
        if name in left or any(not open_.isdisjoint(ids) for ids in sides):
            continue
        own = (channels.held[c] for ids in sides for c in ids if c in channels.held)
        held[name] = next(own, "all its channels go together" if sides else "nothing that it computes is followed")
    return held
