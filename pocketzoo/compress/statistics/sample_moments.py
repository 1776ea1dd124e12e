"""Moments of what layers read, within samples and between them: few photos say little of what is between photos.

An error that is the same at all positions of a sample does far more to the model's output than errors that differ from
position to position, so the two are kept apart (see ``Sensitivity`` of pruning/gauss_newton.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pocketzoo.compress.statistics.calibration_batches import parts, size_of, take
from pocketzoo.compress.statistics.second_moments import CHUNK, rows
from pocketzoo.core.arrays import Arrays
from pocketzoo.zoo.models.layer_hooks import before

POSITIONS = 49  # of a sample: more of them say little that is new


@dataclass
class SampleMoments:
    """Of the samples of some sources: ``within`` each, around its own mean, and the means themselves."""

    within: Tensor  # (I, I), mean over positions, summed over samples
    means: Tensor  # (N, I), of each sample

    def __add__(self, other: SampleMoments) -> SampleMoments:
        return SampleMoments(self.within + other.within, torch.cat([self.means, other.means]))

    @property
    def mean(self) -> Tensor:
        """Of all samples (I,)."""
        return self.means.mean(0)

    def between(self, about: Tensor) -> Tensor:
        """Second moments (I, I) of the samples' means around ``about`` (I,)."""
        apart = self.means - about
        return apart.T @ apart / max(len(self.means), 1)


def sample_moments(
    model: nn.Module, names: Iterable[str], samples: Iterable[Arrays], folds: Tensor
) -> list[dict[str, SampleMoments]]:
    """For each fold, of the samples that ``folds`` (N,) says are in it, by the name of a Conv2d or Linear layer."""
    count = int(folds.max()) + 1
    found: list[dict[str, SampleMoments]] = [{} for _ in range(count)]
    current: list[dict[str, SampleMoments]] = [{}]
    size = [1]

    def note(name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        x = x if len(x) == size[0] else x.reshape(size[0], -1, *x.shape[1:]).flatten(1, 2)  # windows of a sample
        read = torch.stack([rows(layer, one[None], POSITIONS) for one in x])  # (n, P, I)
        mean = read.mean(1)
        apart = (read - mean[:, None]).flatten(0, 1)
        moments = SampleMoments(apart.T @ apart / read.shape[1], mean)
        current[0][name] = current[0][name] + moments if name in current[0] else moments

    start = 0
    with before(model, names, note), torch.no_grad():
        for part in parts(samples, 2 * CHUNK):
            of_part = folds[start : start + size_of(part)]
            start += size_of(part)
            for fold in range(count):
                if size_of(piece := take(part, of_part == fold)):
                    current[0], size[0] = found[fold], size_of(piece)
                    model(*piece)
    return found
