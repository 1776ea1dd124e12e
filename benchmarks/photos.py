"""Crops of the photos that scikit-image and scikit-learn ship: what the benchmarks calibrate and test on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SKIMAGE = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")
SKLEARN = ("china.jpg", "flower.jpg")


def sources() -> list[Path]:
    """The photographs themselves."""
    import skimage
    import sklearn

    folder = Path(skimage.__file__).parent / "data"
    images = Path(sklearn.__file__).parent / "datasets" / "images"
    return [folder / name for name in SKIMAGE] + [images / name for name in SKLEARN]


def write_crops(folder: Path, count: int, seed: int) -> Path:
    """Write ``count`` square crops, each of half to all of a photo's shorter side, mirrored by chance."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    photos = [Image.open(path).convert("RGB") for path in sources()]
    for i in range(count):
        photo = photos[i % len(photos)]
        side = int(generator.uniform(0.5, 1.0) * min(photo.size))
        left = int(generator.integers(0, photo.width - side + 1))
        top = int(generator.integers(0, photo.height - side + 1))
        crop = photo.crop((left, top, left + side, top + side)).resize((256, 256), Image.Resampling.BICUBIC)
        if generator.random() < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        crop.save(folder / f"{i:04}.png")
    return folder
