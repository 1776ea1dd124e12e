"""Factorizations of a weight (SVD, Tucker-2, spatial): their cost, their error, and the layers they make.

W x with W (O, I) is approached by W' x so that tr(G (W - W') C (W - W')T) is least, with C the second moments of the
inputs x and G those of the gradients at the outputs: C alone gives the best outputs of that rank (SVD-LLM, Wang et al.
2024, arXiv:2403.07378), G weighs them by what the model makes of them (after K-FAC, Martens & Grosse 2015,
arXiv:1503.05671). Convolutions have three ways:

- svd: k x k to r channels, then 1 x 1 (Denton et al. 2014, arXiv:1404.0736); the only way for linear layers and 1 x 1
- tucker: 1 x 1, k x k between fewer channels, 1 x 1 (Tucker-2, Kim et al. 2016, arXiv:1511.06530)
- spatial: k x 1, then 1 x k (Jaderberg et al. 2014, arXiv:1405.3866)

The first layers of tucker and spatial come from a metric that is separable, the rest from C itself by least squares.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from pocketzoo.compress.plans import Kind

FLOOR = 1e-6  # of the largest eigenvalue: inputs that never vary still need an invertible root
SHARES = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75)  # of the input channels that tucker's first layer is tried with


@dataclass(frozen=True)
class InputMetric:
    """What an error of a layer is weighed with; without data both are the identity."""

    inputs: Tensor  # C (I, I), positive semi-definite
    outputs: Tensor | None = None  # G (O, O); None: all outputs count alike

    def weigh(self, weight: Tensor) -> Tensor:
        """G W, of W (O, I)."""
        return weight if self.outputs is None else self.outputs @ weight

    @cached_property
    def input_root(self) -> tuple[Tensor, Tensor]:
        """A root of C, and its inverse."""
        return _root(self.inputs, FLOOR)

    @cached_property
    def output_root(self) -> tuple[Tensor, Tensor] | None:
        """A root of G, and its inverse."""
        return None if self.outputs is None else _root(self.outputs, FLOOR)


@dataclass(frozen=True)
class Option:
    """One way to write a layer."""

    kind: Kind
    ranks: tuple[int, ...]  # of svd and spatial one, of tucker those of inputs and outputs
    parameters: int
    error: float  # tr(G (W - W') C (W - W')T)


def plain_metric(layer: nn.Conv2d | nn.Linear) -> InputMetric:
    """All inputs and outputs alike: for a layer nothing is known of."""
    return InputMetric(torch.eye(layer.weight[0].numel(), dtype=torch.float64))


def energies(layer: nn.Conv2d | nn.Linear, metric: InputMetric) -> Tensor:
    """What each component of the layer's weight adds to its weighed outputs, largest first: (min(O, I),)."""
    return _decompose(_matrix(layer), metric)[0]


def kinds(layer: nn.Conv2d | nn.Linear) -> tuple[Kind, ...]:
    """The ways that suit a layer."""
    if isinstance(layer, nn.Linear) or max(layer.kernel_size) == 1:
        return ("svd",)
    if type(layer) is nn.Conv2d and min(layer.kernel_size) > 1:  # a subclass may pad on its own, on both axes at once
        return ("svd", "tucker", "spatial")
    return ("svd", "tucker")


def options(
    layer: nn.Conv2d | nn.Linear, metric: InputMetric, multiple: int, ways: tuple[Kind, ...]
) -> Iterator[Option]:
    """Every way with fewer parameters than the layer, with ranks that are multiples."""
    weight = _matrix(layer)
    total = float((weight @ metric.inputs * metric.weigh(weight)).sum())
    for kind in ways:
        for front, shape in _fronts(layer, weight, metric, kind, multiple):
            sums = _decompose(*((weight, metric) if front is None else _behind(front, weight, metric)))[0].cumsum(0)
            ranks: list[tuple[tuple[int, ...], int]] = [((shape, r), r) for r in _ranks(len(sums), multiple)]
            if kind == "svd":
                ranks = [((r,), r) for _, r in ranks]
            elif kind == "spatial":
                ranks = [((shape,), len(sums))]  # its second layer is whatever fits best
            for each, rank in ranks:
                if (size := parameters(layer, kind, each)) < layer.weight.numel():
                    yield Option(kind, each, size, max(total - float(sums[rank - 1]), 0.0))


def parameters(layer: nn.Conv2d | nn.Linear, kind: Kind, ranks: tuple[int, ...]) -> int:
    """Numbers in the weights of the factors."""
    out, inner = layer.weight.shape[:2]
    rows, columns = layer.weight.shape[2:] if isinstance(layer, nn.Conv2d) else (1, 1)
    if kind == "tucker":
        return inner * ranks[0] + ranks[0] * ranks[1] * rows * columns + ranks[1] * out
    if kind == "spatial":
        return ranks[0] * (inner * rows + out * columns)
    return ranks[0] * (inner * rows * columns + out)


def factorize(
    layer: nn.Conv2d | nn.Linear, kind: Kind, ranks: tuple[int, ...], metric: InputMetric, matrix: Tensor | None = None
) -> nn.Sequential:
    """The layer as two or three, the last with its bias. ``matrix`` (O, I) stands for its weight, where given."""
    weight = _matrix(layer) if matrix is None else matrix
    if kind == "svd":
        down, up = _pair(weight, metric, ranks[0])
        return nn.Sequential(_first(layer, down), _last(layer, up))
    layer = cast(nn.Conv2d, layer)
    ((front, _),) = _fronts(layer, weight, metric, kind, 1, ranks[0])
    rest, behind = _behind(front, weight, metric)
    if kind == "spatial":
        return nn.Sequential(*_crossed(layer, front.weight, rest))
    core, up = _pair(rest, behind, ranks[1])
    into = nn.Conv2d(layer.in_channels, ranks[0], 1, bias=False)
    into.weight = _parameter(front.weight, layer, into.weight.shape)
    return nn.Sequential(into, _first(layer, core, ranks[0]), _last(layer, up))


def product(factors: nn.Sequential, kind: Kind) -> Tensor:
    """The weight (O, I) that the layers of ``factorize`` amount to, in one."""
    first, *middle, last = (cast(Tensor, layer.weight).detach() for layer in factors)
    if kind == "spatial":
        return torch.einsum("riy,orx->oiyx", first[..., 0], last[:, :, 0]).flatten(1)
    if kind == "tucker":
        return torch.einsum("or,rsyx,si->oiyx", last[..., 0, 0], middle[0], first[..., 0, 0]).flatten(1)
    return last.flatten(1) @ first.flatten(1)


# -- the best of a rank


def _decompose(weight: Tensor, metric: InputMetric) -> tuple[Tensor, Tensor]:
    """Squared singular values of G^1/2 W C^1/2, largest first, and its left singular vectors, or right if fewer."""
    if len(weight) <= weight.shape[1]:
        left = weight if metric.output_root is None else metric.output_root[0] @ weight
        gram = left @ metric.inputs @ left.T
    else:
        right = metric.input_root[0]
        gram = right @ (weight.T @ metric.weigh(weight)) @ right
    values, vectors = torch.linalg.eigh((gram + gram.T) / 2)
    return values.flip(0).clamp_min(0.0), vectors.flip(1)


def _pair(weight: Tensor, metric: InputMetric, rank: int) -> tuple[Tensor, Tensor]:
    """(r, I) and (O, r), whose product is the best of that rank; each component has the same norm in both."""
    vectors = _decompose(weight, metric)[1][:, :rank]
    if len(weight) > weight.shape[1]:
        right, back = metric.input_root
        down, up = vectors.T @ back, weight @ right @ vectors
    elif metric.output_root is None:
        down, up = vectors.T @ weight, vectors
    else:
        left, back = metric.output_root
        down, up = vectors.T @ left @ weight, back @ vectors
    scale = (up.norm(dim=0).clamp_min(1e-30) / down.norm(dim=1).clamp_min(1e-30)).sqrt()  # so both quantize well
    return down * scale[:, None], up / scale


def _root(matrix: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    values = values.clamp_min(float(values.max().clamp_min(1e-30)) * floor).sqrt()
    return vectors * values @ vectors.T, vectors / values @ vectors.T


# -- first layers of convolutions


@dataclass(frozen=True)
class _Front:
    """A first layer (r, ...) and what it makes of a window: T (J, I) by products, without writing T down."""

    weight: Tensor
    reads: Callable[[Tensor], Tensor]  # (*, I) -> (*, J): each row times TT


def _behind(front: _Front, weight: Tensor, metric: InputMetric) -> tuple[Tensor, InputMetric]:
    """The best weight (O, J) for what is left after a first layer, by least squares, and what weighs its errors."""
    crossed = front.reads(metric.inputs)  # C TT (I, J)
    inner = front.reads(crossed.T.contiguous()).T  # T C TT (J, J)
    inner = (inner + inner.T) / 2
    stable = inner + float(inner.diagonal().max().clamp_min(1e-30)) * 1e-9 * torch.eye(len(inner), dtype=inner.dtype)
    rest: Tensor = torch.linalg.solve(stable, (weight @ crossed).T).T
    return rest, replace(metric, inputs=inner)


def _fronts(
    layer: nn.Conv2d | nn.Linear,
    weight: Tensor,
    metric: InputMetric,
    kind: Kind,
    multiple: int,
    rank: int | None = None,
) -> Iterator[tuple[Any, int]]:
    """First layers to try, with their rank; ``rank`` asks for one."""
    if kind == "svd":
        yield None, 0
        return
    rows, columns = cast(tuple[int, int], tuple(layer.weight.shape[2:]))
    channels = layer.weight.shape[1]
    moments = metric.inputs.view(channels, rows, columns, channels, rows, columns)
    taps = weight.view(-1, channels, rows, columns)
    weighed = metric.weigh(weight).view_as(taps)
    if kind == "tucker":
        size, count = channels, channels
        right, back = _root(torch.einsum("iyxjyx->ij", moments) / (rows * columns), FLOOR)
        gram = torch.einsum("oiyx,ojyx->ij", taps, weighed)
    else:
        size, count = channels * rows, min(channels * rows, len(weight) * columns)
        right, back = _root(torch.einsum("iyxjzx->iyjz", moments).reshape(size, size) / columns, FLOOR)
        gram = torch.einsum("oiyx,ojzx->iyjz", taps, weighed).reshape(size, size)
    vectors = torch.linalg.eigh(right @ (gram + gram.T) / 2 @ right)[1].flip(1)
    if rank is not None:
        tried = [rank]
    elif kind == "spatial":
        tried = list(_ranks(count, multiple))
        most = layer.weight.numel() / (channels * rows + len(weight) * columns)
        tried = sorted({tried[i * (len(tried) - 1) // 12] for i in range(13)} & {r for r in tried if r < most})
    else:
        tried = sorted({min(max(round(s * count / multiple), 1) * multiple, count) for s in SHARES})
    for r in tried:
        first = vectors[:, :r].T @ back  # (r, size)
        if kind == "tucker":

            def reads(x: Tensor, first: Tensor = first) -> Tensor:
                return torch.einsum("nit,ri->nrt", x.reshape(len(x), channels, -1), first).flatten(1)

        else:

            def reads(x: Tensor, first: Tensor = first) -> Tensor:
                windows = x.reshape(len(x), size, columns)
                return torch.einsum("nix,ri->nrx", windows, first).flatten(1)

        yield _Front(first, reads), r


# -- layers


def _first(layer: nn.Conv2d | nn.Linear, weight: Tensor, channels: int | None = None) -> nn.Module:
    """A copy of the layer, so that a subclass keeps its own padding, with another weight and no bias."""
    reduction: Any = copy.deepcopy(layer)
    reduction.bias = None
    if isinstance(layer, nn.Conv2d):
        reduction.out_channels, reduction.in_channels = len(weight), channels or layer.in_channels
        reduction.weight = _parameter(weight, layer, (len(weight), reduction.in_channels, *layer.kernel_size))
    else:
        reduction.out_features = len(weight)
        reduction.weight = _parameter(weight, layer, weight.shape)
    return cast(nn.Module, reduction)


def _last(layer: nn.Conv2d | nn.Linear, weight: Tensor) -> nn.Module:
    """(O, r) as a layer with the bias."""
    rank = weight.shape[1]
    expansion: nn.Conv2d | nn.Linear
    if isinstance(layer, nn.Conv2d):
        expansion = nn.Conv2d(rank, layer.out_channels, 1, bias=False)
    else:
        expansion = nn.Linear(rank, layer.out_features, bias=False)
    expansion.weight = _parameter(weight, layer, expansion.weight.shape)
    expansion.bias = _bias(layer)
    return expansion


def _crossed(layer: nn.Conv2d, first: Tensor, rest: Tensor) -> tuple[nn.Conv2d, nn.Conv2d]:
    """A layer of k x 1 and one of 1 x k: stride, padding and dilation go to the axis they are of."""
    rows, columns = layer.kernel_size
    rank = len(first)
    pads = (layer.padding, layer.padding) if isinstance(layer.padding, str) else (
        (layer.padding[0], 0), (0, layer.padding[1])
    )  # fmt: skip
    vertical = nn.Conv2d(
        layer.in_channels, rank, (rows, 1), (layer.stride[0], 1), pads[0], (layer.dilation[0], 1),
        bias=False, padding_mode=layer.padding_mode,
    )  # fmt: skip
    horizontal = nn.Conv2d(
        rank, layer.out_channels, (1, columns), (1, layer.stride[1]), pads[1], (1, layer.dilation[1]),
        bias=False, padding_mode=layer.padding_mode,
    )  # fmt: skip
    norms = first.norm(dim=1).clamp_min(1e-30), rest.view(len(rest), rank, -1).norm(dim=(0, 2)).clamp_min(1e-30)
    scale = (norms[1] / norms[0]).sqrt()
    vertical.weight = _parameter(first * scale[:, None], layer, vertical.weight.shape)
    horizontal.weight = _parameter(rest.view(len(rest), rank, -1) / scale[:, None], layer, horizontal.weight.shape)
    horizontal.bias = _bias(layer)
    return vertical, horizontal


def _ranks(full: int, multiple: int) -> range:
    return range(min(multiple, full), full + 1, multiple)


def _matrix(layer: nn.Conv2d | nn.Linear) -> Tensor:
    return layer.weight.detach().flatten(1).double()


def _parameter(weight: Tensor, layer: nn.Module, shape: Any) -> nn.Parameter:
    like = cast(Tensor, layer.weight)
    return nn.Parameter(weight.to(like.dtype).reshape(tuple(shape)).contiguous())


def _bias(layer: nn.Conv2d | nn.Linear) -> nn.Parameter | None:
    return None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())
