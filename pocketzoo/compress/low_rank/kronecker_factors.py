"""Input covariance and output curvature of each layer, which weigh the error of a factorization.

One forward pass gives the second moments of a layer's inputs; gradients of random projections of the model's outputs,
drawn backward, give those of its outputs (the Gauss-Newton matrix, in Kronecker factors as of K-FAC, Martens & Grosse
2015, arXiv:1503.05671). Errors of different layers, so weighed, are on one scale: the squared error of the outputs of
one sample. Positions without a gradient, such as the padding of texts, do not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pocketzoo.compress.low_rank.factorizations import Metric
from pocketzoo.compress.statistics.eligible_layers import copied
from pocketzoo.compress.statistics.module_layers import parts
from pocketzoo.compress.statistics.second_moments import POSITIONS, Moments, rows, shrunk
from pocketzoo.core.arrays import Array
from pocketzoo.zoo.models.layer_hooks import after

PROBES = 2  # random projections of the outputs of each sample
AT_ONCE = 8  # samples that are run backward together: their activations are held
LEAST = 1e-3  # of the weight of the output that matters most: what every output has, as gradients are few
MEMORY = 512e6  # bytes of second moments that one pass collects; more layers take more passes


@dataclass
class Effect:
    """Of one layer."""

    inputs: Moments | None  # None: not asked for
    outputs: Tensor  # (O, O), of the gradients of one sample, summed over its positions
    shape: tuple[int, ...] = ()  # of one sample's input
    calls: int = 0
    live: list[Tensor] = field(default_factory=list)  # call by call, which positions (N,) have a gradient

    @property
    def known_outputs(self) -> Tensor | None:
        """The same with no output forgotten, or None where the gradients vanish or are not finite."""
        if not torch.isfinite(self.outputs).all() or not self.outputs.any():
            return None
        diagonal = self.outputs.diagonal()
        return self.outputs + float(diagonal.max()) * LEAST * torch.eye(len(diagonal), dtype=diagonal.dtype)

    def metric(self, layer: nn.Conv2d | nn.Linear) -> Metric | None:
        """None where the samples say nothing of the layer, or nothing that is finite."""
        if self.inputs is None or self.inputs.count == 0:
            return None
        second = self.inputs.covariance if layer.bias is not None else self.inputs.mean
        if not torch.isfinite(second).all():
            return None
        return Metric(shrunk(second, self.inputs.count), self.known_outputs)


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


def measure_effects(
    model: nn.Module, names: Sequence[str], samples: Iterable[Array], *, inputs: bool = True, probes: int = PROBES
) -> dict[str, Effect]:
    """Effects of the named layers; those that never run are left out. The model is not changed.

    ``inputs`` = False leaves out the second moments of the inputs, which are most of the memory.
    """
    model = copied(model).requires_grad_(False)
    found: dict[str, Effect] = {}
    calls: list[tuple[str, Tensor, Tensor]] = []  # name, its input, a handle on its output

    def note(name: str, layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        handle = out if out.requires_grad else out.clone().requires_grad_()
        calls.append((name, inputs[0].detach(), handle))
        return handle.view_as(handle).clone()  # what comes next may write in place

    generator = torch.Generator().manual_seed(0)
    count = 0
    with after(model, names, note), torch.enable_grad():
        for part in parts(samples, AT_ONCE):
            out = model(part)
            if not calls:
                break
            gradients = [
                torch.autograd.grad(
                    (out * _signs(out, generator)).sum(),
                    [handle for _, _, handle in calls],
                    retain_graph=probe < probes - 1,
                    allow_unused=True,
                )
                for probe in range(probes if out.requires_grad else 0)  # some models detach
            ]
            count += len(part)
            for i, (name, x, handle) in enumerate(calls):
                given = [g[i] for g in gradients if g[i] is not None]
                _add(found, name, model.get_submodule(name), x, handle.shape, given, inputs)
            calls.clear()
    for effect in found.values():
        effect.outputs /= max(count * probes, 1)
    return found


def _signs(out: Tensor, generator: torch.Generator) -> Tensor:
    """Of all random projections, those by signs vary least (Hutchinson 1990)."""
    return (torch.randint(0, 2, out.shape, generator=generator) * 2 - 1).to(out.dtype)


def _add(
    found: dict[str, Effect], name: str, layer: Any, x: Tensor, shape: torch.Size, gradients: list[Tensor], inputs: bool
) -> None:
    width, outputs = layer.weight[0].numel(), len(layer.weight)
    effect = found.setdefault(
        name,
        Effect(Moments.empty(width) if inputs else None, torch.zeros(outputs, outputs, dtype=torch.float64)),
    )
    effect.shape = tuple(x.shape[1:])
    effect.calls += 1
    flat = [g.movedim(1, -1).flatten(0, -2) if isinstance(layer, nn.Conv2d) else g.flatten(0, -2) for g in gradients]
    for g in flat:
        effect.outputs += (g.T @ g).double()
    if isinstance(layer, nn.Conv2d):
        if effect.inputs is not None:
            effect.inputs.add(rows(layer, x, POSITIONS))
        return
    live = torch.full((x[..., 0].numel(),), not flat)
    for g in flat:
        live |= (g != 0).any(1)
    effect.live.append(live)
    if effect.inputs is not None:
        effect.inputs.add(x.reshape(-1, width)[live])
