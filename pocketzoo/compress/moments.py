"""Second moments of what a layer reads, streamed over calibration samples: memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketzoo.zoo.preprocess import Array

POSITIONS = 4096  # rows taken from one batch at the most: a layer sees thousands of positions that differ little


def rows(layer: nn.Module, x: Tensor) -> Tensor:
    """The inputs of a layer as rows (N, I): what each output position is a linear function of.

    I is ``in_channels * kh * kw`` for a convolution, in the order of its flattened weight, ``in_features`` for a linear
    layer. A convolution subclass that pads on its own is read without its padding, which changes border rows only.
    """
    if isinstance(layer, nn.Conv2d):
        if layer.kernel_size == (1, 1):
            x = x[:, :, :: layer.stride[0], :: layer.stride[1]]
            return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        padding: Any = layer.padding if isinstance(layer.padding, tuple) else 0
        columns = F.unfold(x, layer.kernel_size, layer.dilation, padding, layer.stride)  # (B, I, positions)
        return columns.transpose(1, 2).reshape(-1, columns.shape[1])
    return x.reshape(-1, x.shape[-1])


def thin(x: Tensor) -> Tensor:
    """At most ``POSITIONS`` rows, evenly spread; which ones does not depend on chance."""
    return x[:: -(-len(x) // POSITIONS)] if len(x) > POSITIONS else x


@dataclass
class Moments:
    """Sums over rows x of one layer's inputs: of x xT in double precision, and their number."""

    second: Tensor  # (I, I)
    count: int = 0

    def add(self, x: Tensor) -> None:
        self.second += (x.T @ x).double()
        self.count += len(x)

    @property
    def mean(self) -> Tensor:
        return self.second / max(self.count, 1)


class _Stop(Exception):  # noqa: N818 (a signal, no error)
    """Ends a forward pass once the last wanted layer has run."""


def input_moments(model: nn.Module, names: Iterable[str], samples: Iterable[Array]) -> dict[str, Moments]:
    """Second moments of the inputs of the named Conv2d (groups = 1) and Linear layers, in one pass over ``samples``."""
    layers = {name: model.get_submodule(name) for name in names}
    found: dict[str, Moments] = {}
    hooks = []
    for name, layer in layers.items():

        def hook(module: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
            x = thin(rows(module, args[0]))
            found.setdefault(name, Moments(torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64))).add(x)

        hooks.append(layer.register_forward_pre_hook(hook))
    try:
        with torch.no_grad():
            for batch in samples:
                model(torch.from_numpy(batch))
    finally:
        for handle in hooks:
            handle.remove()
    return found


def layer_inputs(model: nn.Module, name: str, batch: Tensor) -> Tensor:
    """The rows one layer reads for a batch; the model runs no further than that."""
    caught: list[Tensor] = []

    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        caught.append(rows(module, args[0]))
        raise _Stop

    handle = model.get_submodule(name).register_forward_pre_hook(hook)
    try:
        model(batch)
    except _Stop:
        pass
    finally:
        handle.remove()
    return caught[0]


def solve(right: Tensor, gram: Tensor, *, damping: float = 1e-4) -> Tensor:
    """``right @ inv(gram)`` for a symmetric, possibly singular ``gram`` (I, I), by ridge regression.

    The ridge is ``damping`` times the mean of the diagonal; it grows until a Cholesky factor exists.
    """
    scale = gram.diagonal().mean().clamp_min(1e-12)
    eye = torch.eye(len(gram), dtype=gram.dtype)
    for _ in range(8):
        factor, info = torch.linalg.cholesky_ex(gram + damping * scale * eye)
        if int(info) == 0:
            solved: Tensor = torch.cholesky_solve(right.T, factor).T
            return solved
        damping *= 10
    inverse: Tensor = torch.linalg.pinv(gram, hermitian=True)
    return right @ inverse
