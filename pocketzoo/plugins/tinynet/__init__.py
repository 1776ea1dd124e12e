"""tinynet: the small backbone inside the package, pretrained on Fashion-MNIST by tools/pretrain_tinynet.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pocketzoo.plugins.heads import build_global
from pocketzoo.zoo.catalog.hookspecs import hookimpl
from pocketzoo.zoo.catalog.specs import BackboneSpec, Cut, FeatureSpec, HeadSpec, InputSpec, PackageFile, Weights

if TYPE_CHECKING:
    from torch import nn

LABELS = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
FILE = PackageFile(
    package="pocketzoo.plugins.tinynet",
    path="tinynet.safetensors",
    sha256="136160a83a815c9c2e79316032452001b2cf6b3152862bd395d57ceb37d34bfe",
)


RECORD = Path(__file__).with_name("tinynet.json")  # what tools/pretrain_tinynet.py did and reached


def _build() -> nn.Module:
    from pocketzoo.plugins.tinynet.module import TinyNet

    return TinyNet()


@hookimpl
def pocketzoo_backbones() -> list[BackboneSpec]:
    return [
        BackboneSpec(
            name="tinynet",
            summary="residual CNN, 362 k parameters, pretrained on Fashion-MNIST",
            license="MIT",  # as its training data
            input=InputSpec(shape=("batch", 1, 28, 28), mean=(0.2860,), std=(0.3530,), resize=28),
            features=FeatureSpec("map", ("batch", 128, 7, 7)),
            build=_build,
            weights=Weights(file=FILE, prefix="backbone."),
            source="https://arxiv.org/abs/1512.03385",
            cuts=(
                Cut("stem", FeatureSpec("map", ("batch", 32, 28, 28))),
                Cut("stage1", FeatureSpec("map", ("batch", 64, 14, 14))),
            ),
            head="tinynet-fashion-mnist",
            training=json.loads(RECORD.read_text("utf8")),
        )
    ]


@hookimpl
def pocketzoo_heads() -> list[HeadSpec]:
    return [
        HeadSpec(
            name="tinynet-fashion-mnist",
            summary="tinynet's own classifier, 10 kinds of clothing",
            takes=("map",),
            task="*-classification",
            build=build_global,
            backbone="tinynet",
            weights=Weights(file=FILE, prefix="head."),
            labels=lambda: LABELS,
        )
    ]
