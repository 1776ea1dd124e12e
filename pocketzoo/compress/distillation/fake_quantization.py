"""Quantization-aware training: a module that rounds as its int8 graph will, with straight-through gradients.

Weights are rounded to 8 bits, one scale per output channel, and what their layers read to 8 bits a tensor (Jacob et al.
2018, arXiv:1712.05877). Rounding has no gradient: it is passed through as it is, and none where a value saturates
(Bengio et al. 2013, arXiv:1308.3432). A batch norm that runs on its statistics scales whole channels, so a weight has
the same levels before it is folded and after.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.statistics.calibration_batches import Inputs
from pocketzoo.compress.statistics.eligible_layers import weighted_layers
from pocketzoo.compress.statistics.histogram import Histogram
from pocketzoo.zoo.models.layer_hooks import before

WEIGHT_LEVELS, INPUT_LEVELS = 127, 255


class FakeInt8(nn.Module):
    """``inner`` with convolutions and linear layers in 8 bits; gradients arrive at the weights of ``inner``."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.layers = weighted_layers(inner)
        self.ranges: dict[str, tuple[float, float]] = {}

    @torch.no_grad()
    def observe(self, samples: Iterable[Inputs]) -> None:
        """Find the range of what each layer reads, as calibration will; a layer that never runs stays in floats."""
        seen = {name: Histogram() for name in self.layers}

        def note(name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen[name].add(inputs[0].numpy())

        with before(self.inner, self.layers, note):
            for x in samples:
                self.inner(*x)
        ranges = {name: histogram.range(Int8Config(ranges="mse")) for name, histogram in seen.items()}
        self.ranges = {name: (r.low, r.high) for name, r in ranges.items() if r.high > r.low}

    @torch.no_grad()
    def settle(self) -> None:
        """Set the rounded weights: biases and norms were trained for these and no others."""
        for name in self.ranges:
            self.layers[name].weight.copy_(rounded_weight(self.layers[name].weight))

    def forward(self, *inputs: Tensor) -> Any:
        weights = {f"{name}.weight": rounded_weight(self.layers[name].weight) for name in self.ranges}
        with before(self.inner, self.ranges, lambda name, layer, read: rounded(read[0], *self.ranges[name])):
            return functional_call(self.inner, weights, inputs)


def rounded_weight(weight: Tensor) -> Tensor:
    """A weight (O, ...) in levels from -127 to 127 of its channels' scales."""
    scale = weight.detach().flatten(1).abs().amax(1).clamp_min(1e-12) / WEIGHT_LEVELS
    return _to_levels(weight, scale.view(-1, *[1] * (weight.ndim - 1)))


def rounded(x: Tensor, low: float, high: float) -> Tensor:
    """Values in 256 levels between ``low`` and ``high``, one of which is zero; those outside saturate."""
    scale = (high - low) / INPUT_LEVELS
    zero = round(-low / scale)
    return _to_levels(x.clamp(-zero * scale, (INPUT_LEVELS - zero) * scale), torch.tensor(scale))


def _to_levels(x: Tensor, scale: Tensor) -> Tensor:
    return x + ((x.detach() / scale).round() * scale - x.detach())
