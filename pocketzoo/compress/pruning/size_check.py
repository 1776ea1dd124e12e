"""Whether the code around layers relies on how many channels they have, found by what it gives without some of them.

A channel that nobody reads has no effect. So a model whose readers' weights are zero for some channels, and one that
these channels are cut from, give the same, unless something asks for the size: ``x.view(-1, 64)`` fails then, and
``x * layer.weight.shape[1] ** -0.5`` would give another answer without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pocketzoo.compress.pruning.channel_budget import removed
from pocketzoo.compress.pruning.channels import Channels, Group
from pocketzoo.compress.pruning.saliency import Elimination
from pocketzoo.compress.statistics.calibration_batches import Inputs
from pocketzoo.compress.statistics.eligible_layers import copied, weighted_layers
from pocketzoo.core.errors import UnsupportedModelError
from pocketzoo.zoo.modules.outputs import float_outputs

TOLERANCE = 1e-3  # of outputs, relative to the largest: sums in another order differ by less


def relied_on(
    model: nn.Module, channels: Channels, groups: Sequence[Group], smaller: Callable[[set[int]], nn.Module], x: Inputs
) -> list[Group]:
    """The groups that cannot lose channels without the code around them noticing.

    ``smaller`` cuts channels from the model. Where the model gives another answer at each run nothing can be told.
    """
    reference = _outputs(model, x)
    if not groups or reference is None or not _alike(reference, _outputs(model, x)):
        return []

    def follows(some: Sequence[Group]) -> bool:
        gone = removed(channels, [_every_other(group) for group in some], [len(group.channels) // 2 for group in some])
        return _alike(_outputs(_unread(model, channels, gone), x), _outputs(smaller(gone), x))

    return [] if follows(groups) else [group for group in groups if not follows([group])]


def _every_other(group: Group) -> Elimination:
    order = group.channels.tolist()
    order = order[1::2] + order[::2]
    return Elimination(tuple(order), (0.0,) * len(order))


def _unread(model: nn.Module, channels: Channels, gone: set[int]) -> nn.Module:
    """The model with zeros where layers read channels that are gone."""
    model = copied(model)
    layers = weighted_layers(model)
    for (name, dim), ids in channels.axes.items():
        if dim == 1 and name.removesuffix(".weight") in layers:
            places = [i for i, channel in enumerate(ids.tolist()) if channel in gone]
            model.get_parameter(name).data[:, places] = 0.0
    return model


def _outputs(model: nn.Module, x: Inputs) -> dict[str, Tensor] | None:
    """None where the model does not run, or gives what is not compared."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        try:
            outputs = float_outputs(model(*x))
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError, UnsupportedModelError):
            return None
    return outputs


def _alike(one: dict[str, Tensor] | None, other: dict[str, Tensor] | None) -> bool:
    """Whether the model gives the same both times; what is not finite is not compared."""
    if one is None or other is None or one.keys() != other.keys():
        return False
    for name, a in one.items():
        b = other[name]
        if a.shape != b.shape:
            return False
        if torch.isfinite(a).all() and (a - b).abs().max() > TOLERANCE * a.abs().max().clamp_min(1e-9):
            return False
    return True
