"""Heads that fit any backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pocketzoo.plugins.hookspecs import hookimpl
from pocketzoo.zoo.specs import FeatureSpec, HeadSpec

if TYPE_CHECKING:
    from torch import nn


def build_linear(features: FeatureSpec, outputs: int) -> nn.Module:
    from pocketzoo.plugins.head_modules import Linear

    return Linear(features, outputs, grid=2)


def build_global(features: FeatureSpec, outputs: int) -> nn.Module:
    """Global average pooling and one linear layer: what most pretrained classifiers end in."""
    from pocketzoo.plugins.head_modules import Linear

    return Linear(features, outputs)


def build_mlp(features: FeatureSpec, outputs: int) -> nn.Module:
    from pocketzoo.plugins.head_modules import Mlp

    return Mlp(features, outputs)


@hookimpl
def pocketzoo_heads() -> list[HeadSpec]:
    return [
        HeadSpec(
            name="linear",
            summary="average pooling over a 2 x 2 grid and one linear layer",
            takes=("map", "vector", "sequence"),
            returns="logits",
            build=build_linear,
        ),
        HeadSpec(
            name="mlp",
            summary="average pooling over a 2 x 2 grid, 256 hidden units with ReLU and dropout, one linear layer",
            takes=("map", "vector", "sequence"),
            returns="logits",
            build=build_mlp,
        ),
    ]
