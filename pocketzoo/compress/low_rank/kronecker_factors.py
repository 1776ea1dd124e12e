"""Input second moments and output Gauss-Newton matrix of each layer (K-FAC), which weigh a factorization's error.

One forward pass gives the second moments of a layer's inputs; gradients of random projections of the model's outputs
give the matrix of its outputs (``pruning/gauss_newton.py``): the Kronecker factors of K-FAC, Martens & Grosse 2015,
arXiv:1503.05671. Errors of different layers, so weighed, are on one scale: the squared error of the outputs of
one sample. Positions without a gradient, such as the padding of texts, do not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pocketzoo.compress.low_rank.factorizations import InputMetric
from pocketzoo.compress.pruning.gauss_newton import Call, outer, output_weights, send_back
from pocketzoo.compress.statistics.calibration_batches import parts, size_of
from pocketzoo.compress.statistics.eligible_layers import copied
from pocketzoo.compress.statistics.second_moments import POSITIONS, Moments, rows, shrunk
from pocketzoo.core.arrays import Arrays

PROBES = 2  # random projections of the outputs of each sample
AT_ONCE = 8  # samples that are run backward together: their activations are held
LEAST = 1e-3  # of the weight of the output that matters most: what every output has, as gradients are few
DOUBT = 0.25  # of the diagonal, added to itself, at most: gradients of few samples go in few directions
MEMORY = 512e6  # bytes of second moments that one pass collects; more layers take more passes


@dataclass
class KroneckerFactors:
    """Of one layer: the second moments of its inputs, and the Gauss-Newton matrix of its outputs."""

    inputs: Moments | None  # None: not asked for
    outputs: Tensor  # (O, O), of the gradients of one sample, summed over its positions
    shape: tuple[int, ...] = ()  # of one sample's input
    calls: int = 0
    live: list[Tensor] = field(default_factory=list)  # call by call, which positions (N,) have a gradient
    draws: int = 0  # random projections, of all samples together

    @property
    def known_outputs(self) -> Tensor | None:
        """The same with no output forgotten and the others drawn to their diagonal, as far as few samples leave them in
        doubt; or None where the gradients vanish or are not finite."""
        if not torch.isfinite(self.outputs).all() or not self.outputs.any():
            return None
        diagonal = self.outputs.diagonal()
        doubt = min(len(diagonal) / self.draws, DOUBT) if self.draws else 0.0
        drawn = (self.outputs + doubt * diagonal.diag()) / (1 + doubt)
        return drawn + float(diagonal.max()) * LEAST * torch.eye(len(diagonal), dtype=diagonal.dtype)

    def metric(self, layer: nn.Conv2d | nn.Linear) -> InputMetric | None:
        """None where the samples say nothing of the layer, or nothing that is finite."""
        if self.inputs is None or self.inputs.count == 0:
            return None
        second = self.inputs.covariance if layer.bias is not None else self.inputs.mean
        if not torch.isfinite(second).all():
            return None
        return InputMetric(shrunk(second, self.inputs.count), self.known_outputs)


def passes(layers: dict[str, nn.Conv2d | nn.Linear]) -> Iterator[list[str]]:
    """The layers, in as many parts as their second moments fit into memory."""
    part: list[str] = []
    used = 0.0
    for name, layer in layers.items():
        size = 8.0 * layer.weight[0].numel() ** 2
        if part and used + size > MEMORY:
            yield part
            part, used = [], 0.0
        part.append(name)
        used += size
    if part:
        yield part


def kronecker_factors(
    model: nn.Module, names: Sequence[str], samples: Iterable[Arrays], *, inputs: bool = True, probes: int = PROBES
) -> dict[str, KroneckerFactors]:
    """The factors of the named layers; those that never run are left out. The model is not changed.

    ``inputs`` = False leaves out the second moments of the inputs, which are most of the memory.
    """
    model = copied(model).requires_grad_(False)
    estimates: dict[str, KroneckerFactors] = {}
    count = 0
    weights = output_weights(model, parts(samples, AT_ONCE))
    for batch, _, calls in send_back(model, names, parts(samples, AT_ONCE), probes, _signs, weights):
        count += size_of(batch)
        for call in calls:
            _add(estimates, call, model.get_submodule(call.name), inputs)
    for factors in estimates.values():
        factors.draws = count * probes
        factors.outputs /= max(factors.draws, 1)
    return estimates


def _signs(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Of all random projections, those by signs vary least (Hutchinson 1990)."""
    return torch.randint(0, 2, shape, generator=generator) * 2 - 1


def _add(estimates: dict[str, KroneckerFactors], call: Call, layer: Any, inputs: bool) -> None:
    width, outputs, x = layer.weight[0].numel(), len(layer.weight), call.input
    factors = estimates.setdefault(
        call.name,
        KroneckerFactors(Moments.empty(width) if inputs else None, torch.zeros(outputs, outputs, dtype=torch.float64)),
    )
    factors.shape = tuple(x.shape[1:])
    factors.calls += 1
    if isinstance(layer, nn.Conv2d):
        for g in call.gradients:
            factors.outputs += outer(g)
        if factors.inputs is not None:
            factors.inputs.add(rows(layer, x, POSITIONS))
        return
    live = torch.full((x[..., 0].numel(),), not call.gradients)
    for g in call.gradients:
        live |= (g != 0).any(1)
    if call.gradients:
        factors.outputs += outer(torch.cat([g[live] for g in call.gradients]))  # padding is most of many a batch
    factors.live.append(live)
    if factors.inputs is not None:
        factors.inputs.add(x.reshape(-1, width)[live])
