"""Decide how many channels each group loses, at the least effect on the output for a ratio or a budget.

Each group has a curve: what the removal of its n cheapest channels does to the output. Channels go where an error buys
most of what is to be saved: each group is cut where its curve's slope reaches a price that is common to all (Lagrange
multipliers, as rate-distortion allocation does: Shoham & Gersho 1988), and the price is found by bisection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np
import numpy.typing as npt

from pocketzoo.compress.pruning.channels import Channels, Group
from pocketzoo.compress.pruning.saliency import Elimination

BISECTIONS = 40
Counts = list[int]
Multiples = int | Sequence[int]  # that stay of every group, or of each


@dataclass(frozen=True, slots=True)
class Weight:
    """What a weight costs: its shape's product, and how often it is used for one sample."""

    shape: tuple[int, ...]
    positions: int  # multiply-accumulates of each of its numbers; 0 for a bias or a norm


def costs(weights: dict[str, Weight], sizes: dict[tuple[str, int], int]) -> tuple[int, int]:
    """Multiply-accumulates for one sample and parameters, where axes (parameter, dim) have the given ``sizes``."""
    macs = parameters = 0
    for name, weight in weights.items():
        count = 1
        for dim, size in enumerate(weight.shape):
            count *= sizes.get((name, dim), size)
        macs += count * weight.positions
        parameters += count
    return macs, parameters


def choices(group: Group, multiple: int) -> Counts:
    """How many channels a group may lose: what stays is a multiple, in rows of the weights, and never nothing."""
    total = len(group.channels)
    step = multiple // gcd(multiple, group.width)
    return [0, *(total - remaining for remaining in range(total, 0, -1) if remaining % step == 0 and remaining < total)]


def _of_each(groups: Sequence[Group], multiple: Multiples) -> Sequence[int]:
    return [multiple] * len(groups) if isinstance(multiple, int) else multiple


def uniform(groups: Sequence[Group], ratio: float, multiple: Multiples) -> Counts:
    """The same fraction of each group, as near as the multiple lets it."""
    counts = []
    for group, own in zip(groups, _of_each(groups, multiple), strict=True):
        total = len(group.channels)
        # Of two that are as near, the one that keeps more; a fraction of nothing is nothing.
        options = choices(group, own) if ratio > 0 else [0]
        counts.append(min(options, key=lambda n: (abs(n - ratio * total), n)))
    return counts


class Curves:
    """Of every group: how many channels may go, what that does to the output, and what it saves."""

    def __init__(
        self, groups: Sequence[Group], orders: Sequence[Elimination], saves: Sequence[float], multiple: Multiples
    ) -> None:
        """``saves``: what one channel of each group saves, in any unit."""
        self.options: list[npt.NDArray[np.float64]] = []
        self.harm: list[npt.NDArray[np.float64]] = []
        self.gain: list[npt.NDArray[np.float64]] = []
        for group, order, save, own in zip(groups, orders, saves, _of_each(groups, multiple), strict=True):
            options = [n for n in choices(group, own) if n <= len(order.order)]
            total = np.array([order.costs[n - 1] if n else 0.0 for n in options])
            self.options.append(np.array(options, dtype=np.float64))
            self.harm.append(total)
            self.gain.append(np.array(options) * save)

    def at(self, price: float) -> Counts:
        """How many go from each group where a unit saved may cost ``price``."""
        counts = []
        for options, harm, gain in zip(self.options, self.harm, self.gain, strict=True):
            counts.append(int(options[int(np.argmin(harm - price * gain))]))
        return counts

    def within(self, fits: Callable[[Counts], bool]) -> Counts:
        """The counts at the lowest price for which ``fits`` holds, less what need not go; the most if it never does."""
        slopes = [
            (h[1:] - h[:-1]) / np.maximum(g[1:] - g[:-1], 1e-30)
            for h, g in zip(self.harm, self.gain, strict=True)
            if len(h) > 1
        ]
        known = np.concatenate(slopes) if slopes else np.ones(1)
        low, high = max(float(known.min()), 1e-18) / 2, max(float(known.max()), 1e-18) * 2
        if fits(self.at(0.0)):
            return self.at(0.0)
        if not fits(self.at(high)):
            return self.at(high)
        for _ in range(BISECTIONS):
            middle = (low * high) ** 0.5
            low, high = (low, middle) if fits(self.at(middle)) else (middle, high)
        counts, stuck = self.at(high), set[int]()
        while True:  # a price can move a group by many channels at once: give back, the dearest first
            back = [(s[1], i, s[0]) for i in range(len(counts)) if i not in stuck and (s := self.step(counts, i, -1))]
            if not back:
                return counts
            _, i, n = max(back)
            tried = [*counts[:i], n, *counts[i + 1 :]]
            if fits(tried):
                counts = tried
            else:
                stuck.add(i)

    def step(self, counts: Counts, i: int, by: int) -> tuple[int, float] | None:
        """The next count of a group up (1) or down (-1), and the harm of each unit saved between the two."""
        at = int(np.flatnonzero(self.options[i] == counts[i])[0])
        if not 0 <= at + by < len(self.options[i]):
            return None
        saved = by * (self.gain[i][at + by] - self.gain[i][at])  # below 0 of channels that are worth less than nothing
        return int(self.options[i][at + by]), float(abs(self.harm[i][at + by] - self.harm[i][at]) / max(saved, 1e-30))

    def share(self, target_saving: float, units: Sequence[float] | None = None) -> Counts:
        """Counts that save ``target_saving`` in all, or as near below it as the options let them.

        ``units`` are what that counts for a channel of each group; without, what channels save of here.
        """

        def saved(counts: Counts) -> float:
            if units is not None:
                return sum(n * unit for n, unit in zip(counts, units, strict=True))
            return float(sum(g[o == n][0] for g, o, n in zip(self.gain, self.options, counts, strict=True)))

        counts = self.within(lambda c: saved(c) > target_saving)  # just too much
        if saved(counts) <= target_saving:
            return counts
        return self._less(counts, target_saving, saved)

    def _less(self, counts: Counts, target_saving: float, saved: Callable[[Counts], float]) -> Counts:
        """Give back the dearest steps until no more than ``target_saving`` is saved, then take what still fits."""
        counts = list(counts)
        while saved(counts) > target_saving + 1e-9:
            back = [(s[1], i, s[0]) for i in range(len(counts)) if (s := self.step(counts, i, -1))]
            _, i, n = max(back)
            counts[i] = n
        while True:
            more = []
            for i in range(len(counts)):
                if s := self.step(counts, i, 1):
                    tried = [*counts[:i], s[0], *counts[i + 1 :]]
                    if saved(tried) <= target_saving + 1e-9:
                        more.append((s[1], i, s[0]))
            if not more:
                return counts
            _, i, n = min(more)
            counts[i] = n


def removed(channels: Channels, orders: Sequence[Elimination], counts: Counts) -> set[int]:
    """The channels that go: ``counts`` of each order, without ever taking the last of a layer."""
    carriers: dict[int, list[tuple[str, int]]] = {}
    left: dict[tuple[str, int], set[int]] = {}
    for key, ids in channels.axes.items():
        left[key] = set(ids.tolist())
        for channel in left[key]:
            carriers.setdefault(channel, []).append(key)
    gone: set[int] = set()
    for order, count in zip(orders, counts, strict=True):
        taken = 0
        for channel in order.order:
            if taken == count:
                break
            if any(len(left[key]) == 1 for key in carriers[channel]):
                continue
            for key in carriers[channel]:
                left[key].discard(channel)
            gone.add(channel)
            taken += 1
    return gone
