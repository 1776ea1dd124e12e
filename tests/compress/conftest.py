"""Targets, samples and small modules that the tests of compressors share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import graph_fixtures
import numpy as np
import onnx
import pytest
import torch
from torch import nn

from pocketzoo.compress.plans import Axis, Int8Plan, PrunePlan
from pocketzoo.compress.pruning.channels import Channels
from pocketzoo.plugins.targets import pocketzoo_targets
from pocketzoo.zoo.catalog.specs import TargetSpec

graph_builder, graphs = graph_fixtures.graph_builder, graph_fixtures.graphs

TARGETS = {t.name: t for t in pocketzoo_targets()}


@pytest.fixture(scope="session")
def cpu() -> TargetSpec:
    return TARGETS["cpu"]


@pytest.fixture(scope="session")
def nvidia() -> TargetSpec:
    return TARGETS["tensorrt-rtx"]


@pytest.fixture(scope="session")
def free() -> TargetSpec:
    """A target that likes any number of channels."""
    return replace(TARGETS["cpu"], name="free", channel_multiple=1)


@pytest.fixture(scope="session")
def randomised() -> Callable[[nn.Module, int], nn.Module]:
    """Random weights, and statistics of batch norm that are not the ones it starts with; in eval mode."""

    def fill(model: nn.Module, seed: int = 0) -> nn.Module:
        g = torch.Generator().manual_seed(seed)
        for p in model.parameters():
            p.data = torch.randn(p.shape, generator=g) / max(1.0, float(p[0].numel()) ** 0.5 if p.ndim > 1 else 1.0)
        for m in model.modules():
            if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
                m.running_mean = torch.randn(m.running_mean.shape, generator=g)
                m.running_var = torch.rand(m.running_var.shape, generator=g) + 0.5
        return model.eval()

    return fill


@pytest.fixture(scope="session")
def batches() -> Callable[..., list[np.ndarray]]:
    """Samples as compressors get them: ``count`` in batches of ``size``."""

    def make(shape: tuple[int, ...], count: int = 32, size: int = 8, seed: int = 0) -> list[np.ndarray]:
        x = np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)
        return [x[i : i + size] for i in range(0, count, size)]

    return make


@pytest.fixture(scope="session")
def plan_without() -> Callable[[Channels, Iterable[int]], PrunePlan]:
    """A plan that removes just these channels, written down from the axes alone."""

    def make(channels: Channels, removed: Iterable[int]) -> PrunePlan:
        gone = set(removed)
        axes: dict[str, tuple[Axis, ...]] = {}
        for (name, dim), ids in sorted(channels.axes.items()):
            kept = tuple(i for i, c in enumerate(ids.tolist()) if c not in gone)
            if len(kept) < len(ids):
                axes[name] = (*axes.get(name, ()), Axis(dim=dim, size=len(ids), kept=kept))
        return PrunePlan(axes=axes)

    return make


@pytest.fixture(scope="session")
def silence() -> Callable[[nn.Module, Channels, Iterable[int]], None]:
    """Make channels zero throughout: weight rows, biases, scale and shift of norms. Readers keep their weights."""

    def zero(model: nn.Module, channels: Channels, removed: Iterable[int]) -> None:
        gone = set(removed)
        parameters = dict(model.named_parameters())
        for (name, dim), ids in channels.axes.items():
            if dim == 0 and name in parameters:
                rows = [i for i, c in enumerate(ids.tolist()) if c in gone]
                parameters[name].data[rows] = 0.0

    return zero


@pytest.fixture(scope="module")
def samples(batches: Callable[..., list[np.ndarray]]) -> list[np.ndarray]:
    """What ``graphs`` are calibrated on."""
    return batches((3, 10, 10))


@pytest.fixture(scope="module")
def plans(graphs: dict[str, onnx.ModelProto], samples: list[np.ndarray]) -> dict[str, Int8Plan]:
    """A plan for int8 of each of ``graphs``."""
    from pocketzoo.compress.configs import Int8Config
    from pocketzoo.compress.quantization import int8

    return {name: int8.plan(model, Int8Config(), samples) for name, model in graphs.items()}
