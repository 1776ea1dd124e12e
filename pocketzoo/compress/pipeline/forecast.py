"""Estimate the cost of a compressed module without exporting it, for dry runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from pocketzoo.zoo.catalog.specs import Input
from pocketzoo.zoo.data.random_samples import random_samples
from pocketzoo.zoo.modules.module_macs import module_macs


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one sample and of the file, near enough: a graph also holds its operators, and folds batch norm away."""

    parameters: int
    macs: int  # multiply-accumulates for one sample
    bytes: int


def module_cost(module: nn.Module, spec: Input) -> Cost:
    """Run one example and count."""
    macs = module_macs(module, [torch.from_numpy(x) for x in random_samples(spec, 1).values()]).total
    norms = sum(
        p.numel()
        for m in module.modules()
        if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d))
        for p in m.parameters()
    )
    parameters = sum(p.numel() for p in module.parameters())
    return Cost(parameters=parameters, macs=macs, bytes=4 * (parameters - norms // 2))  # a shift stays, as a bias
