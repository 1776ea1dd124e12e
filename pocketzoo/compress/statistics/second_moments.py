"""Second moments of layer inputs, streamed over calibration samples in constant memory."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketzoo.compress.statistics.calibration_batches import held_out_of, parts, size_of, take
from pocketzoo.core.arrays import Arrays
from pocketzoo.zoo.models.layer_hooks import before

CHUNK = 8  # samples in one forward pass
POSITIONS = 2048  # rows taken from one forward pass at most: a layer sees thousands of positions that differ little
FEWER = 512  # where more than one layer's moments decide


def rows(layer: nn.Module, x: Tensor, limit: int = POSITIONS) -> Tensor:
    """The inputs of a layer as rows (N, I): what each output position is a linear function of.

    I is ``in_channels * kh * kw`` for a convolution, in the order of its flattened weight, ``in_features`` for a linear
    layer. At most ``limit`` rows are taken, evenly spread; which ones does not depend on chance. A convolution subclass
    that pads on its own is read without its padding, which changes border rows only.
    """
    if not isinstance(layer, nn.Conv2d):
        flat = x.reshape(-1, x.shape[-1])
        return flat[sample_positions(len(flat), limit)]
    if isinstance(layer.padding, tuple) and any(layer.padding):
        x = F.pad(x, (layer.padding[1], layer.padding[1], layer.padding[0], layer.padding[0]))
    short = [max((layer.kernel_size[axis] - 1) * layer.dilation[axis] + 1 - x.shape[2 + axis], 0) for axis in (0, 1)]
    if any(short):  # it pads on its own, or could not run
        x = F.pad(x, (0, short[1], 0, short[0]))
    (kh, kw), (sh, sw), (dh, dw) = layer.kernel_size, layer.stride, layer.dilation
    height, width = x.shape[2:]
    across, down = (width - (kw - 1) * dw - 1) // sw + 1, (height - (kh - 1) * dh - 1) // sh + 1
    taken = sample_positions(len(x) * down * across, limit)
    sample, row, column = taken // (down * across), taken // across % down * sh, taken % across * sw
    if kh == kw == 1:
        return x[sample, :, row, column]
    # All channels of a place in a row: copied at once, where a window of one channel is but kw numbers long.
    places = x.movedim(1, -1).reshape(-1, x.shape[1])
    window = (torch.arange(kh)[:, None] * dh * width + torch.arange(kw) * dw).flatten()
    corner = (sample * height + row) * width + column
    return places[corner[:, None] + window].transpose(1, 2).flatten(1)


def sample_positions(count: int, limit: int = POSITIONS) -> Tensor:
    """Which of ``count`` rows are taken."""
    return torch.arange(0, count, -(-count // limit) if count else 1)


DAMPING = 1e-4  # the least weight of the diagonal: it makes any second moments invertible


@dataclass
class Moments:
    """Sums over rows x of one layer's inputs, in double precision, and their number."""

    second: Tensor  # (I, I), of x xT
    first: Tensor  # (I,), of x
    count: int = 0

    @classmethod
    def empty(cls, size: int) -> Moments:
        """No rows yet."""
        return cls(torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64))

    def add(self, x: Tensor) -> None:
        """Take rows (N, I) in."""
        self.second += (x.T @ x).double()
        self.first += x.double().sum(0)
        self.count += len(x)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.second + other.second, self.first + other.first, self.count + other.count)

    @property
    def mean(self) -> Tensor:
        """E[x xT]."""
        return self.second / max(self.count, 1)

    @property
    def covariance(self) -> Tensor:
        """E[x xT] - E[x] E[x]T: what is left to explain where a bias can take the mean."""
        mean = self.first / max(self.count, 1)
        return self.mean - torch.outer(mean, mean)


def doubt(size: int, count: int) -> float:
    """How little second moments of ``size`` inputs from ``count`` rows are to be trusted off their diagonal.

    With fewer rows than inputs any input seems to follow from the others. Ledoit & Wolf 2004 shrink towards what can be
    trusted; here the diagonal gets (size / count)^2 of itself added.
    """
    return max((size / max(count, 1)) ** 2, DAMPING)


def shrunk(second: Tensor, count: int) -> Tensor:
    """Second moments (I, I) with their off-diagonal drawn to zero as far as they are in doubt; invertible."""
    weight = doubt(len(second), count)
    return (second + weight * second.diagonal().clamp_min(1e-12).diag()) / (1 + weight)


def input_moments(model: nn.Module, names: Iterable[str], samples: Iterable[Arrays]) -> dict[str, Moments]:
    """Second moments of the inputs of the named Conv2d (groups = 1) and Linear layers, in one pass over ``samples``."""
    moments: dict[str, Moments] = {}
    with _watching(model, names, moments, POSITIONS), torch.no_grad():
        for part in parts(samples, CHUNK):
            model(*part)
    return moments


@dataclass
class Half:
    """Half of the samples: how many there were, and the moments of what each layer read of them."""

    moments: dict[str, Moments]
    samples: int = 0


def split_moments(model: nn.Module, names: Iterable[str], samples: Iterable[Arrays]) -> tuple[Half, Half]:
    """As ``input_moments``, of fewer positions, once of each half of the samples, in one pass over all.

    Samples of one source are in one half; where each is its own, the even ones are in the first.
    """
    halves, moments = (Half({}), Half({})), dict[str, Moments]()
    second = held_out_of(samples, 2)
    with _watching(model, names, moments, FEWER), torch.no_grad():
        for part in parts(samples, 2 * CHUNK):
            start = sum(half.samples for half in halves)
            places = torch.arange(start, start + size_of(part))
            in_second = places % 2 == 1 if second is None else second[places]
            for half, which in zip(halves, (~in_second, in_second), strict=True):
                if size_of(of_half := take(part, which)):
                    moments.clear()
                    moments.update(half.moments)
                    model(*of_half)
                    half.moments, half.samples = dict(moments), half.samples + size_of(of_half)
    return halves


def _watching(
    model: nn.Module, names: Iterable[str], moments: dict[str, Moments], limit: int
) -> AbstractContextManager[None]:
    """While the model runs in here, what each named layer reads is taken into ``moments``."""

    def note(name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = rows(layer, inputs[0], limit)
        moments.setdefault(name, Moments.empty(x.shape[1])).add(x)

    return before(model, names, note)


def solve(right: Tensor, gram: Tensor, count: int) -> Tensor:
    """Ridge regression ``right @ inv(gram + doubt * diag(gram))``, with ``gram`` (I, I) from ``count`` rows."""
    stable = gram + doubt(len(gram), count) * gram.diagonal().clamp_min(1e-12).diag()
    factor, info = torch.linalg.cholesky_ex(stable)
    if int(info) == 0:
        solved: Tensor = torch.cholesky_solve(right.T, factor).T
        return solved
    inverse: Tensor = torch.linalg.pinv(stable, hermitian=True)
    return right @ inverse
