"""A picture to the array a backbone reads, in Pillow and numpy: the same code when fitting and on the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.errors import DataError
from pocketzoo.optional import require
from pocketzoo.zoo.specs import InputSpec

Array = npt.NDArray[np.float32]
Picture = Path | npt.NDArray[np.uint8]  # a file, or pixels (H, W) or (H, W, 3)


def read_picture(picture: Picture, channels: int) -> Any:
    """A PIL image in mode L (1 channel) or RGB (3).

    Raises:
        DataError: the file is missing or is no picture.
    """
    pil = require("PIL.Image", extra="data")
    mode = "L" if channels == 1 else "RGB"
    if isinstance(picture, np.ndarray):
        return pil.fromarray(picture).convert(mode)
    try:
        with pil.open(picture) as image:
            return require("PIL.ImageOps", extra="data").exif_transpose(image).convert(mode)
    except FileNotFoundError as error:
        raise DataError(f"there is no picture {picture}", "check the path") from error
    except Exception as error:  # Pillow's decoders raise SyntaxError, struct.error, ... for damaged files
        raise DataError(f"cannot read the picture {picture}: {error}", "remove it, or go on with --skip-bad") from error


def prepare(picture: Picture, spec: InputSpec) -> Array:
    """One picture as a float32 array of shape ``spec.size``: resized, cut at the centre, scaled, normalised."""
    channels, height, width = spec.size
    image = read_picture(picture, channels)
    scale = spec.resize / min(image.size)
    if scale != 1.0:
        size = tuple(max(round(side * scale), low) for side, low in zip(image.size, (width, height), strict=True))
        resampling = require("PIL.Image", extra="data").Resampling
        image = image.resize(size, resampling[spec.interpolation.upper()])
    left, top = (image.width - width) // 2, (image.height - height) // 2
    pixels = np.asarray(image.crop((left, top, left + width, top + height)), dtype=np.float32)
    low, high = spec.value_range
    pixels = pixels.reshape(height, width, channels) / 255.0 * (high - low) + low
    normalised = (pixels - np.asarray(spec.mean, np.float32)) / np.asarray(spec.std, np.float32)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1), dtype=np.float32)
