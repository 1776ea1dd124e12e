"""Photos of scikit-image under known affine warps, with the places that eyes and nose are carried to.

Nothing is labeled by eye but once per photo: where a keypoint is in a view follows from the warp. A third of the views
are of photos without a face, in which no keypoint is visible.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from skimage import data
from skimage.transform import AffineTransform, warp

from pocketzoo.api import Dataset, from_arrays

NAMES = ("left eye", "right eye", "nose")  # as the viewer sees them
# x and y in pixels of the photo, and how many of its pixels a view is wide.
FACES = {
    "astronaut": (((203.0, 100.8), (247.5, 103.0), (225.0, 126.3)), 150.0),
    "cat": (((174.0, 110.7), (314.3, 131.0), (266.7, 243.3)), 330.0),
}
OTHERS = {"coffee": 220.0, "rocket": 220.0}
VIEWS = 200  # of each face
SIDE = 56  # pixels of a view
TURN, SIZE = np.deg2rad(25), 1.25  # a view is turned and sized by so much at most, either way


@cache
def faces(views: int = VIEWS, seed: int = 0) -> Dataset:
    """The data set: images (N, 56, 56, 3) of uint8, targets (N, 3, 3) of x, y and visibility."""
    rng = np.random.default_rng(seed)
    images, targets = [], []
    for name, (points, width) in FACES.items():
        photo, center = getattr(data, name)(), np.mean(points, 0)
        for _ in range(views):
            view, warped = _view(photo, center, width, np.array(points), rng)
            images.append(view)
            targets.append(warped)
    for name, width in OTHERS.items():
        photo = getattr(data, name)()
        middle = np.array(photo.shape[1::-1]) / 2
        for _ in range(views // 2):
            view, _ = _view(photo, middle + rng.uniform(-80, 80, 2), width, np.zeros((3, 2)), rng)
            images.append(view)
            targets.append(np.zeros((len(NAMES), 3)))
    return from_arrays("photo-faces", NAMES, np.stack(images), np.stack(targets).astype(np.float32), seed)


def _view(
    photo: np.ndarray[Any, Any], center: np.ndarray[Any, Any], width: float, points: np.ndarray[Any, Any], rng: Any
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A square piece of a photo, turned, sized and shifted; and where points of the photo are in it, 0 to 1."""
    scale = SIDE / width * SIZE ** rng.uniform(-1, 1)
    turned = AffineTransform(rotation=rng.uniform(-TURN, TURN), scale=(scale, scale))
    shift = SIDE / 2 + rng.uniform(-0.25, 0.25, 2) * SIDE - turned(center)[0]
    to_view = turned + AffineTransform(translation=shift)
    view = warp(photo, to_view.inverse, output_shape=(SIDE, SIDE), order=1, mode="edge", preserve_range=True)
    places = (to_view(points) + 0.5) / SIDE  # the middle of pixel 0 lies half a pixel from the edge
    there = ((places > 0) & (places < 1)).all(1)
    return np.round(view).astype(np.uint8), np.concatenate([places * there[:, None], there[:, None]], 1)
