"""A convolutional backbone so small that compressing, exporting and measuring it take a second or two."""

from __future__ import annotations

from pocketzoo.zoo.catalog.hookspecs import hookimpl
from pocketzoo.zoo.catalog.specs import BackboneSpec, FeatureSpec, InputSpec


def build():
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
    )  # fmt: skip


@hookimpl
def pocketzoo_backbones():
    return [
        BackboneSpec(
            name="smallnet",
            summary="two convolutions on 8 x 8 pixels",
            license="Apache-2.0",
            input=InputSpec(shape=("batch", 1, 8, 8), mean=(0.3,), std=(0.4,), resize=8),
            features=FeatureSpec("map", ("batch", 32, 4, 4)),
            build=build,
        )
    ]
