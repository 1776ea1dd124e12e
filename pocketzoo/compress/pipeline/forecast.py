"""Estimate the cost of a compressed module without exporting it, for dry runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pocketzoo.compress.statistics.eligible_layers import KINDS
from pocketzoo.zoo.catalog.specs import Input
from pocketzoo.zoo.models.build import example_inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one sample and of the file, near enough: a graph also holds its operators, and folds batch norm away."""

    parameters: int
    macs: int  # multiply-accumulates of convolutions and linear layers
    bytes: int


def module_cost(module: nn.Module, spec: Input) -> Cost:
    """Run one example and count."""
    macs = [0]

    def count(layer: nn.Module, _: Any, out: Tensor) -> None:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        # Every output channel of every position takes all of its row of the weight; (O, I / groups, kh, kw) or (O, I).
        macs[0] += out[0].numel() // weight.shape[0] * weight.numel()

    handles = [layer.register_forward_hook(count) for layer in module.modules() if isinstance(layer, KINDS)]
    try:
        with torch.no_grad():
            module.eval()(*example_inputs(spec, 1).values())
    finally:
        for handle in handles:
            handle.remove()
    norms = sum(
        p.numel()
        for m in module.modules()
        if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d))
        for p in m.parameters()
    )
    parameters = sum(p.numel() for p in module.parameters())
    return Cost(parameters=parameters, macs=macs[0], bytes=4 * (parameters - norms // 2))  # a shift stays, as a bias
