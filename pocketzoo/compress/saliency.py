"""In which order the channels of a group should go, and what each costs: second-order saliency with compensation.

Removing an input B of a layer W and refitting the others on calibration data costs W_B ([H^-1]_BB)^-1 W_B^T in squared
error of the layer's output, with H the second moments of its inputs (Optimal Brain Surgeon, Hassibi & Stork 1993; in
blocks as in Optimal BERT Surgeon, Kurtic et al. 2022, arXiv:2203.07259). The cheapest go first, others are refitted,
and costs are taken again. A channel that several layers read costs the sum, each relative to its layer's output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ROUNDS = 32  # refits for one group: a few channels go at a time


@dataclass(frozen=True, slots=True)
class Elimination:
    """Channels in the order they go, with the cost of all that went up to each."""

    order: tuple[int, ...]
    costs: tuple[float, ...]  # relative squared error of the outputs that read them, summed over the readers


class Reader:
    """A layer that reads channels of the group: its weight and the inverse of its inputs' second moments."""

    def __init__(self, weight: Tensor, second: Tensor, channels: Sequence[int], total: float) -> None:
        """``weight`` (O, n * b) reads ``channels`` (n), each as b inputs in a row.

        ``second`` (n * b, n * b) is invertible.

        ``total``: energy of the output, in units of ``second``.
        """
        size = len(second)
        self.width = size // len(channels)
        self.inverse = torch.linalg.inv(second)
        self.weight = weight.clone()
        self.total = max(total, 1e-30)
        self.places: dict[int, list[int]] = {}
        for place, channel in enumerate(channels):
            self.places.setdefault(channel, []).append(place)

    def costs(self) -> Tensor:
        """What each place costs, relative to the output (n,)."""
        n, b = self.weight.shape[1] // self.width, self.width
        energies: Tensor
        if b == 1:
            energies = self.weight.square().sum(0) / self.inverse.diagonal()
            return energies / self.total
        blocks = self.inverse.view(n, b, n, b)[range(n), :, range(n), :]  # (n, b, b)
        weights = self.weight.view(-1, n, b).permute(1, 2, 0)  # (n, b, O)
        energies = (weights @ weights.mT * torch.linalg.inv(blocks)).sum((1, 2))  # tr(W_B W_B^T K^-1)
        return energies / self.total

    def remove(self, channels: Sequence[int]) -> None:
        """Take channels away and refit the rest."""
        gone = [p * self.width + k for c in channels for p in self.places.get(c, []) for k in range(self.width)]
        if not gone:
            return
        index = torch.tensor(gone)
        block = self.inverse[index][:, index]
        gain = torch.linalg.solve(block, self.inverse[index])  # (|B|, I)
        self.weight = self.weight - self.weight[:, index] @ gain
        self.inverse = self.inverse - self.inverse[:, index] @ gain
        self.weight[:, index] = 0.0
        self.inverse[index] = 0.0
        self.inverse[:, index] = 0.0
        self.inverse[index, index] = 1.0


class Judge:
    """What removal costs a reader on samples that it was not refitted on: those it was make it look cheap."""

    def __init__(self, reader: Reader, second: Tensor) -> None:
        """``reader`` is of one half of the samples, ``second`` (n * b, n * b) the second moments of the other."""
        self.reader, self.second, self.full = reader, second, reader.weight.clone()

    def error(self) -> float:
        """Squared error of the output for what was removed so far, relative like the reader's costs."""
        lost = self.full - self.reader.weight
        return float(((lost @ self.second) * lost).sum()) / self.reader.total


def eliminate(
    channels: Sequence[int], readers: Sequence[Reader], count: int, judges: Sequence[Judge] = ()
) -> Elimination:
    """Choose ``count`` of the channels of a group, cheapest first. Changes the readers, and those of the judges.

    With ``judges`` the costs are what those find.
    """
    left = list(channels)
    order: list[int] = []
    costs: list[float] = []
    spent = 0.0
    step = max(1, -(-count // ROUNDS))
    while len(order) < count:
        score = dict.fromkeys(left, 0.0)
        for reader in readers:
            each = reader.costs().tolist()
            for channel in left:
                score[channel] += sum(each[place] for place in reader.places.get(channel, []))
        chosen = sorted(left, key=lambda c: (score[c], c))[: min(step, count - len(order))]
        for reader in (*readers, *(judge.reader for judge in judges)):
            reader.remove(chosen)
        each_cost = [max(score[channel], 0.0) for channel in chosen]
        if judges:
            now = max(sum(judge.error() for judge in judges), spent)
            each_cost = [(now - spent) / len(chosen)] * len(chosen)
        for channel, cost in zip(chosen, each_cost, strict=True):
            spent += cost
            order.append(channel)
            costs.append(spent)
        taken = set(chosen)
        left = [c for c in left if c not in taken]
    return Elimination(tuple(order), tuple(costs))
