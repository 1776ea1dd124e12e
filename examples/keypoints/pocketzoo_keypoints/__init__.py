"""Keypoint detection for pocketzoo: task, decoder, head and a data set, declared through the public hooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pocketzoo.api import DatasetSpec, DecoderSpec, HeadSpec, TaskSpec, hookimpl

if TYPE_CHECKING:
    from torch import nn

    from pocketzoo.api import Dataset, Decoder, FeatureSpec, Task, TaskTraining


@dataclass(frozen=True, slots=True, kw_only=True)
class KeypointConfig:
    """The two outputs of a model, and how sure it has to be that a keypoint is in the image."""

    places: str = "places"  # (B, keypoints, 2): x and y of 0 to 1 from the left upper corner
    visibility: str = "visibility"  # (B, keypoints): above 0 is likelier there than not
    threshold: float = 0.5  # of the probability


@dataclass(frozen=True, slots=True, kw_only=True)
class KeypointOptions:
    """The channels between the features and the map of each keypoint."""

    channels: int = 64


def _task() -> Task:
    from pocketzoo_keypoints.task import KeypointTask

    return KeypointTask()


def _training() -> TaskTraining:
    from pocketzoo_keypoints.module import KeypointTraining

    return KeypointTraining()


def _decoder(config: KeypointConfig) -> Decoder:
    from pocketzoo_keypoints.task import KeypointDecoder

    return KeypointDecoder(config)


def _example(samples: int, seed: int) -> Any:
    from pocketzoo_keypoints.task import example

    return example(samples, seed)


def _build(features: FeatureSpec, outputs: int, options: KeypointOptions | None = None) -> nn.Module:
    from pocketzoo_keypoints.module import KeypointHead

    return KeypointHead(features, outputs, (options or KeypointOptions()).channels)


def _faces() -> Dataset:
    from pocketzoo_keypoints.photos import faces

    return faces()


@hookimpl
def pocketzoo_tasks() -> list[TaskSpec]:
    return [
        TaskSpec(
            name="keypoint-detection",
            summary="where known points of an object are, and which are in the image: PCK",
            open=_task,
            decoder="places-and-visibility",
            training=_training,
            targets="arrays",
            moved_by=("rotate", "shift", "shear", "zoom"),  # not flip, which makes a left eye the right one
            example=_example,
        )
    ]


@hookimpl
def pocketzoo_decoders() -> list[DecoderSpec]:
    return [
        DecoderSpec(
            name="places-and-visibility",
            summary="an output of places (B, keypoints, 2) and one of scores (B, keypoints)",
            tasks=("keypoint-detection",),
            open=_decoder,
            config=KeypointConfig,
            reads=lambda config: (config.places, config.visibility),
        )
    ]


@hookimpl
def pocketzoo_heads() -> list[HeadSpec]:
    return [
        HeadSpec(
            name="keypoints",
            summary="a map of each keypoint, whose mean is its place, and a score for whether it is visible",
            takes=("map",),
            task="keypoint-detection",
            build=_build,
            options=KeypointOptions,
        )
    ]


@hookimpl
def pocketzoo_datasets() -> list[DatasetSpec]:
    return [
        DatasetSpec(
            name="photo-faces",
            summary="600 views of photos of scikit-image, with the places of eyes and nose",
            license="CC0-1.0",
            load=_faces,
        )
    ]
