"""The time that kernels are reckoned to take where groups have fewer channels, by the costs that a target states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

from pocketzoo.compress.pruning.channel_budget import Weight
from pocketzoo.compress.pruning.channels import Channels, Group
from pocketzoo.zoo.catalog.specs import KernelCosts


@dataclass(frozen=True, slots=True)
class _Axis:
    """An axis of a weight: its length, and what one channel of a group is of it."""

    size: int
    group: int | None = None  # by its place in the list of groups; None: none of them
    each: float = 0.0

    def left(self, counts: Sequence[int]) -> float:
        return self.size if self.group is None else max(self.size - counts[self.group] * self.each, 0.0)


@dataclass(frozen=True)
class KernelTime:
    """Of a model's convolutions and linear layers: the axes of each weight, and how often it is used for a sample."""

    layers: tuple[tuple[_Axis, _Axis, int, int], ...]  # out, in, values of a kernel, positions
    costs: KernelCosts

    @classmethod
    def of(
        cls, weights: Mapping[str, Weight], channels: Channels, groups: Sequence[Group], costs: KernelCosts
    ) -> KernelTime:
        """``weights`` are a model's parameters; those without positions multiply nothing."""
        place = {channel: i for i, group in enumerate(groups) for channel in group.channels.tolist()}

        def axis(name: str, dim: int, size: int) -> _Axis:
            ids = channels.axes.get((name, dim))
            known = () if ids is None else [place[c] for c in ids.tolist() if c in place]
            if not known:
                return _Axis(size)
            group = max(set(known), key=known.count)  # of a concatenation the one that has most
            return _Axis(size, group, known.count(group) / len(groups[group].channels))

        return cls(
            tuple(
                (axis(name, 0, w.shape[0]), axis(name, 1, w.shape[1]), prod(w.shape[2:]), w.positions)
                for name, w in weights.items()
                if len(w.shape) > 1 and w.positions
            ),
            costs,
        )

    def at(self, counts: Sequence[int]) -> float:
        """In multiply-accumulates of one sample, where so many channels of each group are gone."""
        total = 0.0
        for out, into, kernel, positions in self.layers:
            rows, columns = out.left(counts), into.left(counts)
            depthwise = into.size == 1 and kernel > 1
            macs = rows * columns * kernel * (self.costs.depthwise if depthwise else 1.0)
            values = rows + (rows if depthwise else columns)
            total += positions * (macs + values * self.costs.value)
        return total

    @cached_property
    def whole(self) -> float:
        """The same with all channels."""
        last = max((axis.group for each in self.layers for axis in each[:2] if axis.group is not None), default=0)
        return self.at([0] * (last + 1))

    def saved(self, counts: Sequence[int]) -> float:
        """The fraction that these save, 0-1."""
        return 1 - self.at(counts) / self.whole if self.whole else 0.0
