"""Unstructured and 2:4 sparsity: set the smallest weights of all, or 2 of every 4 adjacent ones, to zero.

The smallest by magnitude over all layers is the classic recipe (Han et al. 2015, arXiv:1506.02626). For 2:4 the two of
four that matter least go: w^2 / [H^-1]_jj, with H the second moments of the layer's inputs (Optimal Brain Surgeon, as
in SparseGPT, Frantar & Alistarh 2023, arXiv:2301.00774). The others are refitted (refit.py).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from pocketzoo.compress.configs import PruneConfig
from pocketzoo.compress.plans import PrunePlan, Saving
from pocketzoo.compress.pruning.refit import refit
from pocketzoo.compress.statistics.calibration_batches import Inputs
from pocketzoo.compress.statistics.eligible_layers import Layer, left_alone, weighted_layers
from pocketzoo.compress.statistics.second_moments import input_moments, shrunk
from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import DataError
from pocketzoo.core.name_patterns import matches
from pocketzoo.zoo.catalog.specs import TargetSpec


def plan(model: nn.Module, config: PruneConfig, target: TargetSpec, x: Inputs | None = None) -> PrunePlan:
    """Which weights may become zero. With a pattern also which layers stay dense, and what the target gains.

    ``x``: what the model is run on, to see who reads whose weights.
    """
    left = left_alone(model, x)
    chosen = {
        name: layer
        for name, layer in weighted_layers(model).items()
        if name not in left and not matches(name, config.skip) and (not config.only or matches(name, config.only))
    }
    if config.pattern:
        dense = {name: why for name, layer in chosen.items() if (why := unsuited(layer))}
        patterns = {f"{name}.weight": config.pattern for name in chosen if name not in dense}
        return PrunePlan(patterns=patterns, dense=dense, gain=gain(target), refit=config.refit, left=left)
    names = [f"{name}.weight" for name in chosen]
    if not names:
        return PrunePlan(left=left)
    magnitudes = np.concatenate([model.get_parameter(n).detach().abs().numpy().ravel() for n in names])
    count = int(config.ratio * magnitudes.size)
    if count == 0:
        return PrunePlan(left=left)
    threshold = float(np.partition(magnitudes, count - 1)[count - 1])
    saving = {"nonzero": Saving(before=magnitudes.size, after=int((magnitudes > threshold).sum()))}
    return PrunePlan(thresholds=dict.fromkeys(names, threshold), savings=saving, refit=config.refit, left=left)


def unsuited(layer: Layer) -> str:
    """Why a layer cannot run 2:4 on sparse Tensor Cores; "" where it can."""
    if isinstance(layer, nn.Conv2d) and layer.groups > 1:
        return "grouped convolution"
    inputs, outputs = layer.weight.shape[1], layer.weight.shape[0]
    if inputs % 32 or outputs % 8:
        return f"{inputs} inputs and {outputs} outputs: sparse kernels need multiples of 32 and of 8"
    return ""


def gain(target: TargetSpec) -> str:
    """What a target makes of 2:4 zeros."""
    if target.sparse:
        return (
            "sparse Tensor Cores (Ampere or later) run these layers in fp16 and int8 at up to twice the rate; whole"
            " models usually gain less than 15%, small layers nothing: build the engine with and without, and measure"
        )
    return "none: onnxruntime computes with the zeros and the file keeps its size; only a compressed archive is smaller"


def apply(model: nn.Module, pruned: nn.Module, plan: PrunePlan, samples: Iterable[Arrays] | None) -> None:
    """Set weights of ``pruned`` to zero; with ``samples`` and ``plan.refit`` the others make up for them.

    Raises:
        DataError: what a layer reads is not finite.
    """
    for name, threshold in plan.thresholds.items():
        weight = pruned.get_parameter(name)
        weight.data[weight.abs() <= threshold] = 0.0
    names = [name.removesuffix(".weight") for name in (*plan.thresholds, *plan.patterns)]
    fits = samples is not None and plan.refit
    moments = input_moments(model, [n.removesuffix(".weight") for n in plan.patterns], samples or ()) if fits else {}
    for name in plan.patterns:
        layer = pruned.get_submodule(name.removesuffix(".weight"))
        importance = layer.get_parameter("weight").detach().square()
        moment = moments.get(name.removesuffix(".weight"))
        if moment is not None:
            if not torch.isfinite(moment.second).all():
                raise DataError(f"calibration: the inputs of {name} are not finite", "check the samples for NaN")
            diagonal = torch.linalg.inv(shrunk(moment.mean, moment.count)).diagonal()
            importance = importance / diagonal.float().view_as(importance[0])
        layer.get_parameter("weight").data *= two_of_four(importance)
    if not fits or samples is None:
        return
    layers = weighted_layers(pruned)
    dense = [n for n in names if isinstance(layers[n], nn.Linear) or layers[n].groups == 1]
    refit(model, pruned, dense, samples, channels_left={}, shifts={}, shortcuts={}, masked=True)


def two_of_four(importance: Tensor) -> Tensor:
    """1 for the two most important of every four neighbors along dim 1 (O, I, ...), I a multiple of 4; else 0."""
    rows = importance.movedim(1, -1)  # NVIDIA's pattern runs along input channels, at each place of the kernel
    fours = rows.reshape(*rows.shape[:-1], -1, 4)
    mask = torch.zeros_like(fours).scatter_(-1, fours.topk(2, dim=-1).indices, 1.0)
    return mask.reshape(rows.shape).movedim(-1, 1)
