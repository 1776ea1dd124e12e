"""Image preprocessing in Pillow and numpy: the same code for training and on the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pocketzoo.core.arrays import Array, ImageLike
from pocketzoo.core.errors import DataError, message_of
from pocketzoo.core.optional import require
from pocketzoo.core.renamed import keywords_renamed
from pocketzoo.zoo.catalog.specs import InputSpec

FORMATS = ("PNG", "JPEG", "WEBP")  # by content. Of the others, Pillow gives an EPS to Ghostscript, which is a program
NAMED = "PNG, JPEG or WebP"
UNREADABLE = "remove it, or use --skip-bad"
LONGEST = 16  # sides that differ by more than this factor are cut before resizing


@keywords_renamed(picture="source")
def read_image(source: ImageLike, channels: int) -> Any:
    """A PIL image in mode L (1 channel) or RGB (3).

    Raises:
        DataError: the file is missing or is not an image, of a format of ``FORMATS``.
    """
    if isinstance(source, np.ndarray):
        if source.shape[2:] not in ((), (3,)) or source.ndim < 2 or 0 in source.shape:
            raise DataError(f"pixels of shape {source.shape} are not an image", "give (height, width) or (.., .., 3)")
        return require("PIL.Image", extra="data").fromarray(source).convert("L" if channels == 1 else "RGB")
    return decode_image(source, str(source), channels)


def decode_image(file: Path | BinaryIO, name: str, channels: int) -> Any:
    """A PIL image in mode L (1 channel) or RGB (3) from an encoded file: the one place where Pillow is given bytes.

    Raises:
        DataError: ``name``, as the message calls it, is missing or is not an image of a format of ``FORMATS``.
    """
    pil = require("PIL.Image", extra="data")
    try:
        with pil.open(file, formats=FORMATS) as image:
            return _shown(image, channels)
    except FileNotFoundError as error:
        raise DataError(f"there is no image {name}", "check the path") from error
    except IsADirectoryError as error:
        raise DataError(f"{name} is a folder, not an image", "name the images in it") from error
    except require("PIL", extra="data").UnidentifiedImageError as error:
        raise DataError(f"cannot read the image {name}: it is not a {NAMED} file", UNREADABLE) from error
    except Exception as error:  # Pillow's decoders raise SyntaxError, struct.error, ... for damaged files
        raise DataError(f"cannot read the image {name}: {message_of(error)}", UNREADABLE) from error


def convert_image(image: Any, channels: int) -> Any:
    """A PIL image, perhaps not decoded yet, in mode L or RGB: the same as ``decode_image`` of its file.

    Raises:
        DataError: its file is damaged.
    """
    try:
        return _shown(image, channels)
    except Exception as error:  # as above
        raise DataError(f"cannot read the image: {message_of(error)}", UNREADABLE) from error


def _shown(image: Any, channels: int) -> Any:
    """An image as people see it: turned as its camera says, in mode L or RGB."""
    mode = "L" if channels == 1 else "RGB"
    upright = require("PIL.ImageOps", extra="data").exif_transpose(image)
    if upright.mode.startswith("I;16"):  # Pillow would clip 16 bits to 8: all but the darkest would be white
        pixels = ((np.asarray(upright, np.uint32) + 128) // 257).astype(np.uint8)
        return require("PIL.Image", extra="data").fromarray(pixels).convert(mode)
    if upright.mode == "P" and "transparency" in upright.info:  # Pillow warns unless it goes through RGBA
        upright = upright.convert("RGBA")
    return upright.convert(mode)


@keywords_renamed(picture="source")
def prepare(source: ImageLike, spec: InputSpec) -> Array:
    """One image as a float32 array of shape ``spec.size``: resized, cut at the center, scaled, normalized.

    Raises:
        DataError: the image cannot be read, or nobody said how the model wants it.
    """
    check_reads_images(spec)
    return prepare_image(read_image(source, spec.size[0]), spec)


def check_reads_images(spec: InputSpec) -> None:
    """Raises:
    DataError: the model does not read images, or nobody said how it wants them.
    """
    if len(spec.size) != 3 or not spec.mean:
        what = (
            "how this model preprocesses images is not known"
            if len(spec.size) == 3
            else "this model does not read images"
        )
        raise DataError(what, "give --mean and --std, or an .npz whose float x is ready for the model")


def prepare_image(image: Any, spec: InputSpec) -> Array:
    """``prepare``, of a PIL image in mode L or RGB."""
    channels, height, width = spec.size
    longest = LONGEST * min(image.size)
    if max(image.size) > longest:  # only the center stays; enlarging a line of pixels as a whole would take gigabytes
        left, top = max(0, (image.width - longest) // 2), max(0, (image.height - longest) // 2)
        image = image.crop((left, top, min(image.width, left + longest), min(image.height, top + longest)))
    scale = spec.resize / min(image.size)
    sides = [
        side * spec.resize // min(image.size) if spec.longer == "floor" else round(side * scale) for side in image.size
    ]
    size = tuple(max(side, low) for side, low in zip(sides, (width, height), strict=True))
    if spec.stretch:
        size = (spec.stretched[1], spec.stretched[0]) if spec.stretched else (width, height)
    if size != image.size:
        resampling = require("PIL.Image", extra="data").Resampling
        image = image.resize(size, resampling[spec.interpolation.upper()])
    left, top = (image.width - width) // 2, (image.height - height) // 2
    pixels = np.asarray(image.crop((left, top, left + width, top + height)), dtype=np.float32)
    low, high = spec.value_range
    pixels = pixels.reshape(height, width, channels) / 255.0 * (high - low) + low
    normalized = (pixels - np.asarray(spec.mean, np.float32)) / np.asarray(spec.std, np.float32)
    return np.ascontiguousarray(normalized.transpose(2, 0, 1), dtype=np.float32)
