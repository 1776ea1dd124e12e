"""Rank the channels of a group by second-order saliency, with compensation by the channels that stay.

Removing an input B of a layer W and refitting the others on calibration data costs W_B ([H^-1]_BB)^-1 W_B^T in squared
error of the layer's output, with H the second moments of its inputs (Optimal Brain Surgeon, Hassibi & Stork 1993; in
blocks as in Optimal BERT Surgeon, Kurtic et al. 2022, arXiv:2203.07259). The cheapest go first, others are refitted,
and costs are taken again. A channel that several layers read costs the sum, each relative to its layer's output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from itertools import count as count_from

import torch
from torch import Tensor

ROUNDS = 32  # refits for one group: a few channels go at a time
# Rounds after which costs on held-out samples are taken, and at the end: the first matter most.
JUDGED = (1, 2, 3, 4, 6, 8, 11, 15, 20, 26)


@dataclass(frozen=True, slots=True)
class Elimination:
    """Channels in the order they go, with the cost of all that went up to each."""

    order: tuple[int, ...]
    costs: tuple[float, ...]  # relative squared error of the outputs that read them, summed over the readers


class ChannelReader:
    """A layer that reads channels of the group: its weight and the inverse of its inputs' second moments."""

    def __init__(self, weight: Tensor, second: Tensor, channels: Sequence[int], total: float) -> None:
        """``weight`` (O, n * b) reads ``channels`` (n), each as b inputs in a row.

        ``second`` (n * b, n * b) is invertible.

        ``total``: energy of the output, in units of ``second``.
        """
        self.width = len(second) // len(channels)
        self.inverse = torch.linalg.inv(second)  # (m * b, m * b), of the m places that are left
        self.weight_left = weight.clone()  # (O, m * b)
        self.size, self.total = weight.shape[1], max(total, 1e-30)
        self.left = torch.arange(len(channels))  # the places (m,)
        self.places: dict[int, list[int]] = {}
        for place, channel in enumerate(channels):
            self.places.setdefault(channel, []).append(place)

    @property
    def weight(self) -> Tensor:
        """The weight (O, n * b) as it is now, zero where an input is gone."""
        weight = self.weight_left.new_zeros(len(self.weight_left), self.size)
        weight[:, self._inputs(self.left)] = self.weight_left
        return weight

    def costs(self) -> Tensor:
        """What each place costs, relative to the output (n,); nothing where it is gone."""
        m, b = len(self.left), self.width
        if b == 1:
            energies = self.weight_left.square().sum(0) / self.inverse.diagonal()
        else:
            blocks = self.inverse.view(m, b, m, b)[range(m), :, range(m), :]  # (m, b, b)
            weights = self.weight_left.view(-1, m, b).permute(1, 2, 0)  # (m, b, O)
            energies = (weights @ weights.mT * torch.linalg.inv(blocks)).sum((1, 2))  # tr(W_B W_B^T K^-1)
        costs: Tensor = energies.new_zeros(self.size // b)
        costs[self.left] = energies / self.total
        return costs

    def remove(self, channels: Sequence[int]) -> None:
        """Take channels away and refit the rest."""
        gone = torch.isin(self.left, torch.tensor([p for c in channels for p in self.places.get(c, [])]))
        if not gone.any():
            return
        out, stay = self._inputs(gone.nonzero().flatten()), self._inputs((~gone).nonzero().flatten())
        across = self.inverse[out]  # (|B|, I)
        gain = torch.linalg.solve(across[:, out], across[:, stay])
        self.weight_left = torch.addmm(self.weight_left[:, stay], self.weight_left[:, out], gain, alpha=-1)
        self.inverse = torch.addmm(self.inverse[stay][:, stay], across[:, stay].T, gain, alpha=-1)
        self.left = self.left[~gone]

    def _inputs(self, places: Tensor) -> Tensor:
        inputs: Tensor = places[:, None] * self.width + torch.arange(self.width)
        return inputs.reshape(-1)


class HeldOutCost:
    """What removal costs a reader on samples that it was not refitted on: those it was make it look cheap."""

    def __init__(self, reader: ChannelReader, second: Tensor) -> None:
        """``reader`` is of one half of the samples, ``second`` (n * b, n * b) the second moments of the other."""
        self.reader, self.second, self.full = reader, second, reader.weight

    def error(self) -> float:
        """Squared error of the output for what was removed so far, relative like the reader's costs."""
        lost = self.full - self.reader.weight
        return float(((lost @ self.second) * lost).sum()) / self.reader.total


def eliminate(
    channels: Sequence[int], readers: Sequence[ChannelReader], count: int, held_out: Sequence[HeldOutCost] = ()
) -> Elimination:
    """Choose ``count`` of the channels of a group, cheapest first. Changes the readers, and those of ``held_out``.

    With ``held_out`` the costs are what those find.
    """
    left = list(channels)
    order: list[int] = []
    costs: list[float] = []
    spent = 0.0
    step = max(1, -(-count // ROUNDS))
    own: list[float] = []  # what the readers say of the last ones, which were not yet held against ``held_out``
    for turn in count_from(1):
        if len(order) == count:
            break
        score = dict.fromkeys(left, 0.0)
        for reader in readers:
            each = reader.costs().tolist()
            for channel in left:
                score[channel] += sum(each[place] for place in reader.places.get(channel, []))
        chosen = sorted(left, key=lambda c: (score[c], c))[: min(step, count - len(order))]
        for reader in readers:
            reader.remove(chosen)
        order += chosen
        own += [max(score[channel], 0.0) for channel in chosen]
        if not held_out:
            totals = [*accumulate(own, initial=spent)]
        elif turn in JUDGED or len(order) == count:
            for cost in held_out:
                cost.reader.remove(order[-len(own) :])
            now = max(sum(cost.error() for cost in held_out), spent)
            # Between two judgments costs grow as the readers say: what costs them nothing is free.
            parts = own if sum(own) > 0 else [1.0] * len(own)
            totals = [spent + (now - spent) * part / sum(parts) for part in accumulate(parts, initial=0.0)]
        else:
            totals = []
        if totals:
            costs, spent, own = [*costs, *totals[1:]], totals[-1], []
        taken = set(chosen)
        left = [c for c in left if c not in taken]
    return Elimination(tuple(order), tuple(costs))
