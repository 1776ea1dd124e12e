"""Keypoint detection in numpy: answers, decoder, PCK, and how answers are compared, written and drawn.

Targets are (N, keypoints, 3): x and y from 0 to 1 from the left upper corner, and 1 where the keypoint is in the image,
else 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from pocketzoo.api import (
    Arrays,
    DataError,
    Dataset,
    Estimate,
    MetricSpec,
    TaskExample,
    proportion,
    ratio,
    shown,
    without_targets,
)

if TYPE_CHECKING:
    from pocketzoo.api import Targets
    from pocketzoo_keypoints import KeypointConfig

NEAR = 0.1  # of the image's side: how far a place may be off


@dataclass(frozen=True, slots=True)
class Keypoints:
    """The canonical answer: where each keypoint is, and how likely it is in the image."""

    places: np.ndarray[Any, Any]  # (N, keypoints, 2)
    visible: np.ndarray[Any, Any]  # (N, keypoints), probabilities
    threshold: float = 0.5

    def __len__(self) -> int:
        return len(self.places)

    @property
    def seen(self) -> np.ndarray[Any, Any]:
        """Which are answered to be in the image, (N, keypoints)."""
        return np.asarray(self.visible >= self.threshold)


@dataclass(frozen=True)
class KeypointDecoder:
    """Two outputs to ``Keypoints``."""

    config: KeypointConfig

    def __call__(self, outputs: Arrays, inputs: Arrays) -> Keypoints:
        for name in (self.config.places, self.config.visibility):
            if name not in outputs:
                raise DataError(f"the model has no output {name!r}", f"it has: {', '.join(outputs)}")
        places, scores = outputs[self.config.places], outputs[self.config.visibility]
        if places.ndim != 3 or places.shape != (*scores.shape, 2):
            raise DataError(
                f"the places are {places.shape}, the visibility {scores.shape}", "give (B, K, 2) and (B, K)"
            )
        return Keypoints(places, 1 / (1 + np.exp(-scores.astype(np.float64))), self.config.threshold)


def distances(places: np.ndarray[Any, Any], others: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """How far places (N, keypoints, 2) are from others, (N, keypoints), in sides of the image."""
    return np.asarray(np.linalg.norm(places.astype(np.float64) - others, axis=-1))


@dataclass
class KeypointScores:
    """The percentage of correct keypoints: of those in the image, how many are nearer than ``NEAR`` to their place.

    Yang and Ramanan 2013 (doi:10.1109/TPAMI.2012.261) take a fraction of the object's box; here it is of the image.
    Keypoints of one image are not independent: the interval is a ratio estimator's over images. ``visibility`` is the
    fraction of keypoints of which it is rightly said whether they are in the image, with Wilson's interval.
    """

    right: list[int] = field(default_factory=list)  # of each image
    there: list[int] = field(default_factory=list)
    told: int = 0
    keypoints: int = 0

    def update(self, answers: Keypoints, targets: Targets) -> None:
        if targets.shape != (*answers.places.shape[:2], 3):
            raise DataError(
                f"the model answers {answers.places.shape[1]} keypoints, the data has targets {targets.shape}",
                "give x, y and visibility of each keypoint",
            )
        there = targets[..., 2] > 0
        near = distances(answers.places, targets[..., :2]) < NEAR
        self.right += (near & there).sum(1).tolist()
        self.there += there.sum(1).tolist()
        self.told += int((answers.seen == there).sum())
        self.keypoints += there.size

    def merge(self, other: KeypointScores) -> None:
        self.right += other.right
        self.there += other.there
        self.told += other.told
        self.keypoints += other.keypoints

    def result(self) -> dict[str, Estimate]:
        if not sum(self.there):
            raise DataError("no keypoint of the data is in its image", "give images that have some")
        pck = ratio(self.right, self.there, 0.0, 1.0)
        return {"pck": pck, "visibility": proportion(self.told, self.keypoints)}


@dataclass
class KeypointAgreement:
    """For how many keypoints two models say the same: not in the image, or in it and within ``NEAR`` of each other."""

    same: list[int] = field(default_factory=list)
    keypoints: list[int] = field(default_factory=list)

    def update(self, answers: Keypoints, reference: Keypoints) -> None:
        near = distances(answers.places, reference.places) < NEAR
        self.same += ((answers.seen == reference.seen) & (near | ~reference.seen)).sum(1).tolist()
        self.keypoints += [reference.places.shape[1]] * len(reference)

    def merge(self, other: KeypointAgreement) -> None:
        self.same += other.same
        self.keypoints += other.keypoints

    def result(self) -> dict[str, Estimate]:
        if not self.keypoints:
            raise DataError("no answers were compared", "give images")
        return {"agreement": ratio(self.same, self.keypoints, 0.0, 1.0)}

    def about(self, value: float) -> str:
        return f"the same places for {value:.1%} of the keypoints"


class KeypointTask:
    """Where known points are. Labels are their names."""

    metric = MetricSpec(name="pck", alongside=("visibility",))

    def prepared(self, dataset: Dataset, labels: Sequence[str]) -> Dataset:
        targets = [split.targets for split in dataset.splits.values()]
        fits = all(each is not None and each.ndim == 3 and each.shape[2] == 3 for each in targets)
        if not fits or (labels and dataset.labels and dataset.labels != tuple(labels)):
            return without_targets(dataset)
        return dataset

    def scores(self, labels: Sequence[str]) -> KeypointScores:
        return KeypointScores()

    def agreement(self) -> KeypointAgreement:
        return KeypointAgreement()

    def chance(self, targets: Targets) -> float:
        """The PCK of who always names the mean place of each keypoint."""
        there = targets[..., 2] > 0
        means = [points[seen].mean(0) if seen.any() else np.zeros(2) for points, seen in _by_keypoint(targets)]
        near = distances(targets[..., :2], np.array(means)[None]) < NEAR
        return float((near & there).sum() / max(int(there.sum()), 1))

    def rows(self, answers: Keypoints, labels: Sequence[str], top: int) -> list[Mapping[str, Any]]:
        """``{"keypoints": [{"name": ..., "x": ..., "y": ..., "visible": ...}, ...]}``."""
        names = labels or [str(i) for i in range(answers.places.shape[1])]
        return [
            {
                "keypoints": [
                    {"name": name, "x": round(float(x), 4), "y": round(float(y), 4), "visible": round(float(p), 4)}
                    for name, (x, y), p in zip(names, places, visible, strict=True)
                ]
            }
            for places, visible in zip(answers.places, answers.visible, strict=True)
        ]

    def errors(self, answers: Keypoints, targets: Targets) -> np.ndarray[Any, Any]:
        """How far keypoints are off that are not near enough, summed (N,), and 1 for each visibility that is wrong."""
        there = targets[..., 2] > 0
        off = distances(answers.places, targets[..., :2])
        return np.asarray((off * (off >= NEAR) * there).sum(1) + (answers.seen != there).sum(1))

    def draw(self, sample: Any, answer: Mapping[str, Any], target: Any, labels: Sequence[str]) -> str:
        """The image with a green ring where a keypoint is, and an orange dot where it was said to be."""
        words, source = shown(sample, 160)
        marks = []
        for i, keypoint in enumerate(answer["keypoints"]):
            if target is not None and target[i][2] > 0:
                place = f'cx="{100 * float(target[i][0]):.1f}" cy="{100 * float(target[i][1]):.1f}"'
                marks.append(f'<circle {place} r="5" fill="none" stroke="#1a7f37" stroke-width="1.5"/>')
            if keypoint["visible"] >= 0.5:
                place = f'cx="{100 * keypoint["x"]:.1f}" cy="{100 * keypoint["y"]:.1f}"'
                name = escape(keypoint["name"])
                marks.append(f'<circle {place} r="2.5" fill="#d9730d"><title>{name}</title></circle>')
        return (
            f'<svg class="keypoints" viewBox="0 0 100 100" width="160" height="160" role="img" '
            f'aria-label="{escape(words) or "keypoints"}"><image href="{source}" width="100" height="100" '
            f'preserveAspectRatio="none"/>{"".join(marks)}</svg>'
        )


def _by_keypoint(targets: Targets) -> list[tuple[Any, Any]]:
    return [(targets[:, i, :2], targets[:, i, 2] > 0) for i in range(targets.shape[1])]


def example(samples: int, seed: int) -> TaskExample:
    """Outputs and targets for the conformance suite: places that are nearly right."""
    rng = np.random.default_rng(seed)
    targets = np.concatenate([rng.uniform(0.2, 0.8, (samples, 3, 2)), rng.integers(0, 2, (samples, 3, 1))], -1)
    targets[0, 0, 2] = 1.0
    places = targets[..., :2] + rng.normal(scale=0.05, size=(samples, 3, 2))
    scores = 4.0 * targets[..., 2] - 2.0 + rng.normal(size=(samples, 3))
    return TaskExample(
        outputs={"places": places.astype(np.float32), "visibility": scores.astype(np.float32)},
        targets=targets.astype(np.float32),
        labels=("left", "right", "top"),
        samples=[rng.integers(0, 256, (24, 24, 3), dtype=np.uint8) for _ in range(samples)],
    )
