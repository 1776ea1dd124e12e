"""A model of two inputs and two outputs for pocketzoo: digits, and what was measured of them.

Light imports only: this file is read by every ``pocketzoo list``. What builds and loads imports torch and numpy.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pocketzoo.api import (
    BackboneSpec,
    DatasetSpec,
    FeatureSpec,
    HeadSpec,
    InputSpec,
    MappingSpec,
    PackageFile,
    TableSpec,
    Weights,
    hookimpl,
)

if TYPE_CHECKING:
    from torch import nn

    from pocketzoo.api import Dataset

FEATURES, EMBEDDING = 64, 16
COLUMNS = ("ink", "row", "column", "height", "width", "slant")
IMAGE = InputSpec(shape=("batch", 1, 8, 8), mean=(0.3053,), std=(0.3760,), resize=8)
MEASURES = TableSpec(
    width=len(COLUMNS),
    columns=COLUMNS,
    mean=(0.305, 3.5, 3.5, 2.1, 1.4, 0.1),
    std=(0.03, 0.2, 0.2, 0.2, 0.3, 0.6),
    name="measures",
)
FILE = PackageFile(
    package="pocketzoo_image_and_table",
    path="digits.safetensors",
    sha256="af79939266a93c8f99f83f034ff92a97ad589482322694632920c22b2fb7f52c",
)


@hookimpl
def pocketzoo_backbones() -> list[BackboneSpec]:
    return [
        BackboneSpec(
            name="digits-and-measures",
            summary="three convolutions on the image of a digit and two layers on what was measured of it",
            license="Apache-2.0",
            input=MappingSpec(fields={"image": IMAGE, "measures": MEASURES}),
            features=FeatureSpec("vector", ("batch", FEATURES)),
            build=_backbone,
            weights=Weights(file=FILE, prefix="backbone.", read=_read),
            head="digits-and-measures-digits",
            source="https://archive.ics.uci.edu/dataset/80",
        )
    ]


@hookimpl
def pocketzoo_heads() -> list[HeadSpec]:
    return [
        HeadSpec(
            name="digits-and-measures-digits",
            summary="a score for each digit, and an embedding",
            takes=("vector",),
            task="image-classification",
            build=_head,
            backbone="digits-and-measures",
            weights=Weights(file=FILE, prefix="head.", read=_read),
            labels=_labels,
        )
    ]


@hookimpl
def pocketzoo_datasets() -> list[DatasetSpec]:
    return [
        DatasetSpec(
            name="digits-and-measures",
            summary="1,797 handwritten digits of 8 x 8 pixels with six measures of each",
            license="CC-BY-4.0",
            load=_load,
        )
    ]


def _backbone() -> nn.Module:
    from pocketzoo_image_and_table.network import Backbone

    return Backbone(len(COLUMNS), FEATURES)


def _head(features: FeatureSpec, outputs: int) -> nn.Module:
    from pocketzoo_image_and_table.network import Head

    return Head(features.channels, outputs, EMBEDDING)


def _read(path: Path) -> dict:
    from pocketzoo.api import read_safetensors

    return read_safetensors(path)


def _labels() -> tuple[str, ...]:
    return tuple(map(str, range(10)))


def _load() -> Dataset:
    from pocketzoo_image_and_table.measures import load

    return load()
