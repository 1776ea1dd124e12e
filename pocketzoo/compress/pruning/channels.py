"""Data types for channels of layers and for the groups that can only be removed together."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pocketzoo.compress.plans import Shortcut

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Tracked:
    """Which axis of a tensor holds channels, and the integer of each."""

    dim: int
    ids: Ids


@dataclass(frozen=True, slots=True)
class Group:
    """Channels of which some may go: those of layers whose outputs are tied to each other."""

    layers: tuple[str, ...]  # weights that produce these channels
    channels: Ids  # the root of each channel; a head or a block of a grouped convolution is one channel
    width: int = 1  # rows of a weight that one channel is: the size of a head, of a block


@dataclass(frozen=True, slots=True)
class Channels:
    """``axes``: (parameter or buffer, dim) -> the root of the channel at each index."""

    axes: dict[tuple[str, int], Ids]
    groups: tuple[Group, ...]  # removable ones only
    shifts: dict[str, str]  # weight -> what can take a shift of its output: its bias, or the mean of its batch norm
    shared: frozenset[str]  # parameters that are used more than once
    shortcuts: dict[str, Shortcut] = field(default_factory=dict)  # weight -> what its output is added to
    # Of products of two activations, which have no weights: the root of the channel of each batch of them, such as a
    # head, and the multiply-accumulates of all.
    products: tuple[tuple[Ids, int], ...] = ()
    held: dict[int, str] = field(default_factory=dict)  # root of a channel that may not go -> why
