"""Low rank: a layer becomes two smaller ones, by singular value decomposition.

A linear layer W (O, I) becomes (O, r) @ (r, I); a k x k convolution becomes a k x k one to r channels and a 1 x 1 one
(Denton et al. 2014, arXiv:1404.0736). With calibration data W is decomposed in the metric of its inputs, W L = U S V
with L LT their second moments, which is the best rank-r approximation of the outputs (SVD-LLM, Wang et al. 2024,
arXiv:2403.07378).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pocketzoo.compress.configs import LowRankConfig
from pocketzoo.compress.layers import check_skip, matches, weighted_layers
from pocketzoo.compress.moments import input_moments
from pocketzoo.compress.plans import Factor, LowRankPlan
from pocketzoo.zoo.preprocess import Array
from pocketzoo.zoo.specs import TargetSpec


def plan(model: nn.Module, config: LowRankConfig, samples: Iterable[Array], target: TargetSpec) -> LowRankPlan:
    """Choose how many singular values each layer keeps.

    A layer W of O x I becomes r * (O + I) numbers, with r the smallest rank that holds ``config.energy`` of its squared
    singular values, or the largest within ``config.parameters`` of O * I, rounded to the target's multiple. It stays
    dense unless that is fewer numbers. ``energy = 1.0`` means full rank by rule: a float sum need not end at 1.

    Raises:
        UnknownNameError: ``config.skip`` names no layer.
    """
    model = copy.deepcopy(model).eval()  # the caller's may be in training
    layers = weighted_layers(model)
    check_skip(config.skip, layers)
    candidates = {n: m for n, m in layers.items() if isinstance(m, nn.Linear) or m.groups == 1}
    roots = _roots(model, candidates, samples)
    multiple = config.multiple or target.channel_multiple
    factors, dense = {}, {}
    for name, layer in layers.items():
        if matches(name, config.skip):
            dense[name] = "skipped by the recipe"
            continue
        if name not in candidates:
            dense[name] = "grouped convolution"
            continue
        weight = layer.weight.detach().flatten(1).double()
        rows, columns = weight.shape
        full = min(rows, columns)
        energies = torch.linalg.svdvals(weight @ roots[name]).square()
        shares = energies.cumsum(0) / energies.sum().clamp_min(1e-30)
        if config.parameters is not None:
            rank = int(config.parameters * rows * columns / (rows + columns)) // multiple * multiple
        elif config.energy == 1.0:
            rank = full
        else:
            rank = -(-(int((shares < config.energy).sum()) + 1) // multiple) * multiple
        rank = min(max(rank, min(multiple, full)), full)
        after = rank * (rows + columns)
        if after >= rows * columns:
            dense[name] = f"rank {rank} would take {after:,} numbers instead of {rows * columns:,}"
            continue
        factors[name] = Factor(
            rank=rank, full=full, energy=float(shares[rank - 1]), parameters=rows * columns, after=after
        )
    return LowRankPlan(factors=factors, dense=dense)


def apply(model: nn.Module, plan: LowRankPlan, samples: Iterable[Array] | None = None) -> nn.Module:
    """A new model in which each planned layer is two, named ``layer.0`` and ``layer.1``.

    With ``samples`` the factors are the best for the outputs; without, for the weights.
    """
    model = copy.deepcopy(model).eval()
    factored = copy.deepcopy(model)
    layers = {name: m for name, m in weighted_layers(factored).items() if name in plan.factors}
    roots = _roots(model, layers, samples) if samples is not None else {}
    for name, layer in layers.items():
        parent, _, child = name.rpartition(".")
        pair = _split(layer, plan.factors[name].rank, roots.get(name))
        setattr(factored.get_submodule(parent), child, pair)
    return factored


def _roots(model: nn.Module, layers: Iterable[str], samples: Iterable[Array]) -> dict[str, Tensor]:
    """Layer -> a square root L (I, I) of the second moments of its inputs; the identity where they vanish."""
    roots = {}
    moments = input_moments(model, layers, samples)
    for name in layers:
        layer: Any = model.get_submodule(name)
        width = layer.weight.flatten(1).shape[1]
        if name not in moments or not torch.isfinite(moments[name].second).all():
            roots[name] = torch.eye(width, dtype=torch.float64)
            continue
        values, vectors = torch.linalg.eigh(moments[name].mean)
        floor = values.max().clamp_min(1e-12) * 1e-6  # inputs that never vary still need an invertible root
        roots[name] = vectors * values.clamp_min(floor).sqrt()
    return roots


def _split(layer: nn.Conv2d | nn.Linear, rank: int, root: Tensor | None) -> nn.Sequential:
    weight = layer.weight.detach().flatten(1).double()  # (O, I)
    metric = torch.eye(weight.shape[1], dtype=torch.float64) if root is None else root
    u, s, vh = torch.linalg.svd(weight @ metric, full_matrices=False)
    scale = s[:rank].sqrt()  # shared by both factors, so that both quantise well
    first = torch.linalg.solve(metric.T, (scale[:, None] * vh[:rank]).T).T  # (r, I)
    second = u[:, :rank] * scale  # (O, r)
    dtype = layer.weight.dtype
    bias = None if layer.bias is None else layer.bias.detach().clone()
    down = copy.deepcopy(layer)  # a subclass keeps its own padding
    down.weight = nn.Parameter(first.to(dtype).view(rank, *layer.weight.shape[1:]).contiguous())
    down.bias = None
    up: nn.Conv2d | nn.Linear
    if isinstance(layer, nn.Conv2d):
        down.out_channels = rank
        up = nn.Conv2d(rank, layer.out_channels, 1, bias=bias is not None)
        up.weight = nn.Parameter(second.to(dtype)[:, :, None, None].contiguous())
    else:
        down.out_features = rank
        up = nn.Linear(rank, layer.out_features, bias=bias is not None)
        up.weight = nn.Parameter(second.to(dtype).contiguous())
    if bias is not None:
        up.bias = nn.Parameter(bias)
    return nn.Sequential(down, up)
