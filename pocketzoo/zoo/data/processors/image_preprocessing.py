"""Image preprocessing in Pillow and numpy: the same code for training and on the device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pocketzoo.core.arrays import Array, ImageLike
from pocketzoo.core.errors import DataError, TooLargeError, message_of
from pocketzoo.core.files import check_file
from pocketzoo.core.optional import require
from pocketzoo.core.renamed import keywords_renamed
from pocketzoo.core.untrusted.limits import PIXELS
from pocketzoo.zoo.catalog.specs import InputSpec

FORMATS = ("PNG", "JPEG", "WEBP")  # by content. Of the others, Pillow gives an EPS to Ghostscript, which is a program
NAMED = "PNG, JPEG or WebP"
UNREADABLE = "remove it, or use --skip-bad"
LAYOUTS = "give (height, width), or (height, width, 3) in the order red, green, blue"  # of pixels
LONGEST = 16  # sides that differ by more than this factor are cut before resizing


@keywords_renamed(picture="source")
def read_image(source: ImageLike | str | bytes | Any, channels: int) -> Any:
    """A PIL image in mode L (1 channel) or RGB (3), the same whichever way it comes.

    ``source`` is a file, its bytes, a Pillow image, a cell of a data set that holds bytes, or pixels: uint8, uint16 or
    bool of (height, width), or uint8 or uint16 of (height, width, 3).

    Raises:
        DataError: the file is missing or is not an image, of a format of ``FORMATS``; or pixels have another layout.
    """
    if isinstance(source, np.ndarray):
        return _of_pixels(source, channels)
    if isinstance(source, Mapping) and isinstance(source.get("bytes"), bytes) and source.keys() <= {"bytes", "path"}:
        source = source["bytes"]
    if isinstance(source, bytes | bytearray | memoryview):
        return decode_image(BytesIO(source), "of these bytes", channels)
    if hasattr(source, "getbands"):  # a Pillow image, told without importing Pillow
        return convert_image(source, channels)
    return decode_image(Path(source), str(source), channels)


def is_pixels(dtype: np.dtype[Any]) -> bool:
    """Whether arrays of this type are pixels as a file has them: of 8, 16 or 1 bits. Others are ready for the model."""
    return dtype.kind == "b" or (dtype.kind == "u" and dtype.itemsize <= 2)


def _of_pixels(pixels: Any, channels: int) -> Any:
    """Pixels with the rounding that Pillow has for a file of so many bits."""
    if pixels.shape[2:] not in ((), (3,)) or pixels.ndim < 2 or 0 in pixels.shape:
        raise DataError(f"pixels of shape {pixels.shape} are not an image", LAYOUTS)
    if not is_pixels(pixels.dtype) or (pixels.dtype.kind == "b" and pixels.ndim > 2):
        raise DataError(f"pixels of {pixels.dtype}, {pixels.shape}, are not an image", LAYOUTS)
    if pixels.dtype.kind == "b":
        pixels = pixels * np.uint8(255)
    elif pixels.dtype.itemsize == 2:
        pixels = _eight_bits(pixels) if pixels.ndim == 2 else (pixels >> 8).astype(np.uint8)
    return _with_channels(require("PIL.Image", extra="data").fromarray(pixels), channels)


def _eight_bits(pixels: Any) -> Any:
    """Gray values of 16 bits in 8. Of color Pillow itself reads the upper 8."""
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def decode_image(file: Path | BinaryIO, name: str, channels: int, least: int = 0) -> Any:
    """A PIL image in mode L (1 channel) or RGB (3) from an encoded file: the one place where Pillow is given bytes.

    With ``least`` it may be smaller than it is, though no side is below so many pixels: a JPEG decodes faster so.

    Raises:
        DataError: ``name``, as the message calls it, is missing or is not an image of a format of ``FORMATS``.
    """
    pil = require("PIL.Image", extra="data")
    if isinstance(file, Path):
        check_file(file)
    if (most := PIXELS.value) > PIXELS.default:  # Pillow has a limit of its own, the same as ours unless ours is raised
        setattr(pil, "MAX_IMAGE_PIXELS", most)  # noqa: B010 - its stubs lack it
    try:
        with pil.open(file, formats=FORMATS) as image:
            PIXELS.check(image.width * image.height, name)
            if least:
                image.draft(None, (least, least))
            return _shown(image, channels)
    except (TooLargeError, pil.DecompressionBombError) as error:
        what = error.message if isinstance(error, TooLargeError) else f"{name} has more than {most:,} pixels"
        raise DataError(
            f"cannot read the image {name}: {what}", f"set {PIXELS.variable} higher, or {UNREADABLE}"
        ) from error
    except FileNotFoundError as error:
        raise DataError(f"there is no image {name}", "check the path") from error
    except IsADirectoryError as error:
        raise DataError(f"{name} is a folder, not an image", "name the images in it") from error
    except require("PIL", extra="data").UnidentifiedImageError as error:
        raise DataError(f"cannot read the image {name}: it is not a {NAMED} file", UNREADABLE) from error
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise SyntaxError, struct.error, ... for damaged files
        raise DataError(f"cannot read the image {name}: {message_of(error)}", UNREADABLE) from error


def convert_image(image: Any, channels: int) -> Any:
    """A PIL image, perhaps not decoded yet, in mode L or RGB: the same as ``decode_image`` of its file.

    Raises:
        DataError: its file is damaged, or of a format that is not read; or its values have no known range.
    """
    if getattr(image, "format", None) not in (None, "MPO", *FORMATS):  # which decode only now; MPO is a JPEG
        raise DataError(f"an image cannot be {image.format}", f"give a {NAMED}, or its pixels as an array")
    try:
        return _shown(image, channels)
    except DataError:
        raise
    except Exception as error:  # as above
        raise DataError(f"cannot read the image: {message_of(error)}", UNREADABLE) from error


def _shown(image: Any, channels: int) -> Any:
    """An image as people see it: turned as its camera says, in mode L or RGB."""
    if 0 in image.size:
        raise DataError(f"an image of {image.width} x {image.height} pixels has none", UNREADABLE)
    upright = require("PIL.ImageOps", extra="data").exif_transpose(image)
    mode, deep = upright.mode, upright.mode.startswith("I;16")
    if deep or (mode == "I" and image.format == "PNG"):  # Pillow would clip 16 bits to 8: most would be white
        upright = require("PIL.Image", extra="data").fromarray(_eight_bits(np.asarray(upright)))
    elif mode in ("I", "F"):
        raise DataError(
            f"an image of mode {mode} has no known range of values", "give its pixels as an array of uint8 or uint16"
        )
    elif mode in ("La", "RGBa"):  # which Pillow converts to no other
        upright = upright.convert({"La": "LA", "RGBa": "RGBA"}[mode])
    elif (mode == "P" and "transparency" in upright.info) or mode == "PA":  # Pillow warns unless it goes through RGBA
        upright = upright.convert("RGBA")
    return _with_channels(upright, channels)


def _with_channels(image: Any, channels: int) -> Any:
    """In mode L or RGB. What has colors becomes gray from RGB: Pillow rounds a palette and inks otherwise."""
    image = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    return image.convert("L" if channels == 1 else "RGB")


@keywords_renamed(picture="source")
def prepare(source: ImageLike | str | bytes | Any, spec: InputSpec) -> Array:
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
    PIXELS.check(math.prod(size), "the image, resized as the model's config asks,", "pixels")
    if size != image.size:
        resampling = require("PIL.Image", extra="data").Resampling
        image = image.resize(size, resampling[spec.interpolation.upper()])
    rest = (image.width - width, image.height - height)
    left, top = (round(each / 2) if spec.center == "even" else each // 2 for each in rest)
    pixels = np.asarray(image.crop((left, top, left + width, top + height)), dtype=np.float32)
    low, high = spec.value_range
    pixels = pixels.reshape(height, width, channels) / 255.0 * (high - low) + low
    normalized = (pixels - np.asarray(spec.mean, np.float32)) / np.asarray(spec.std, np.float32)
    return np.ascontiguousarray(normalized.transpose(2, 0, 1), dtype=np.float32)
