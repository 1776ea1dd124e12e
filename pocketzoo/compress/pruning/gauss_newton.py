"""The Gauss-Newton matrix of each layer: the effect of an error in its output on the model's output.

An error d (O,) at a position of a layer's output changes the model's outputs by J d, so by dT (JT J) d in square. JT J
is found by sending random directions back from the outputs: with u ~ N(0, 1) the gradients g = JT u have E[g gT] = JT J
(Hutchinson's estimator; the output side of K-FAC, Martens & Grosse 2015, arXiv:1503.05671).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn

from pocketzoo.compress.statistics.module_layers import parts
from pocketzoo.core.arrays import Array
from pocketzoo.zoo.models.layer_hooks import after

SAMPLES = 32  # that are sent back: each gives a layer as many gradients as it has positions
DIRECTIONS = 2  # for each
CHUNK = 2  # samples whose activations are held at a time
LARGEST = 2048  # outputs of a layer whose matrix is kept whole; of larger ones the diagonal


def output_sensitivity(model: nn.Module, names: Iterable[str], samples: Iterable[Array]) -> dict[str, Tensor]:
    """For each named layer JT J summed over its positions and averaged over samples, (O, O) or its diagonal (O,).

    It is in units of the outputs' mean square, so that dT (JT J) d is a relative squared error. A layer that the
    outputs do not depend on is left out.
    """
    found: dict[str, Tensor] = {}
    frozen = [p for p in model.parameters() if p.requires_grad]
    generator = torch.Generator().manual_seed(0)
    energy = 0.0
    try:
        for p in frozen:
            p.requires_grad_(False)
        with after(model, names, partial(_watch_gradient, found)), torch.enable_grad():
            for part in parts(samples, CHUNK, SAMPLES):
                out = model(part)
                energy += float(out.detach().double().square().sum())
                for i in range(DIRECTIONS if out.requires_grad else 0):
                    u = torch.randn(out.shape, generator=generator)
                    out.backward(u, retain_graph=i + 1 < DIRECTIONS)
    finally:
        for p in frozen:
            p.requires_grad_(True)
    return {name: matrix / max(DIRECTIONS * energy, 1e-30) for name, matrix in found.items()}


def square_root(matrix: Tensor) -> Tensor:
    """R with RT R = ``matrix`` (O, O), or from a diagonal (O,)."""
    if matrix.ndim == 1:
        return matrix.clamp_min(0).sqrt().diag()
    values, vectors = torch.linalg.eigh(matrix)
    scaled: Tensor = values.clamp_min(0).sqrt()[:, None] * vectors.T
    return scaled


def _watch_gradient(found: dict[str, Tensor], name: str, layer: nn.Module, inputs: object, out: Tensor) -> Tensor:
    if not out.requires_grad:
        out = out.requires_grad_(True).clone()  # a leaf itself could not be changed in place after
    channels = 1 if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) else -1

    def add(gradient: Tensor) -> None:
        rows = gradient.movedim(channels, -1).reshape(-1, gradient.shape[channels])
        large = rows.shape[1] > LARGEST
        matrix = rows.double().square().sum(0) if large else (rows.T @ rows).double()
        found[name] = found[name] + matrix if name in found else matrix

    out.register_hook(add)  # type: ignore[no-untyped-call]  # before what may change it in place
    return out
