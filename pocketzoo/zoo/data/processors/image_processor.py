"""The processor of images: files, bytes, Pillow images or pixels to a normalized array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.signature import TensorSpec
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.data.processors.base import ProcessorBase, by, called, check_finite
from pocketzoo.zoo.data.processors.image_preprocessing import (
    LAYOUTS,
    check_reads_images,
    is_pixels,
    prepare,
)

# How far beyond the range of normalized images values may go. Noise does, and so do models fed with made-up data;
# pixels of 0 to 255 that nobody normalized go tens of times as far.
SLACK = 8.0
Prepared = npt.NDArray[Any]
Pixels = npt.NDArray[Any]  # of a type of ``is_pixels``


class ImageProcessor(ProcessorBase):
    """Images as float32 (B, C, H, W); of an ``InputSpec`` of another shape, arrays that are ready."""

    def __init__(self, spec: InputSpec) -> None:
        self.spec = spec
        self.inputs = (TensorSpec(name=spec.name, shape=spec.shape, dtype=spec.dtype),)
        self.image = spec if len(spec.size) == 3 else None
        ready = f"{spec.dtype} of {('batch', *spec.size)}"
        pixels = f"image files, uint8 pixels (height, width, 3), or {ready}, scaled and normalized"
        self.wants = f"give {pixels if self.image and spec.mean else ready}"

    def row(self, sample: Any) -> Arrays:
        return {self.spec.name: self._row(sample)}

    def _row(self, sample: Any) -> Prepared:
        if isinstance(sample, np.ndarray):
            if not is_pixels(sample.dtype):
                raise DataError(
                    f"a sample has shape {by(sample.shape)}, the model reads {by(self.spec.size)}"
                    if sample.dtype == self.spec.dtype
                    else f"a sample cannot be {called(sample)}",
                    self.wants,
                )
            check_reads_images(self.spec)
            sample = _one_image(sample)
        elif not (isinstance(sample, str | bytes | bytearray | memoryview | Path) or _is_stored(sample)):
            raise DataError(f"a sample cannot be {called(sample)}", self.wants)
        return prepare(sample, self.spec)

    def arrays(self, given: Any) -> Arrays | None:
        if isinstance(given, np.ndarray):
            return None if is_pixels(given.dtype) else {self.spec.name: given}
        if isinstance(given, list | tuple) and given:
            if all(isinstance(each, np.ndarray) and not is_pixels(each.dtype) for each in given):
                if len(shapes := {each.shape for each in given}) > 1:
                    raise DataError(f"the arrays have different shapes: {sorted(shapes)}", self.wants)
                return {self.spec.name: np.stack(given)}
            return None
        return super().arrays(given)

    def samples(self, given: Any) -> Sequence[Any]:
        if isinstance(given, np.ndarray):
            return _images(given)
        return (
            [given]
            if hasattr(given, "getbands") or isinstance(given, bytearray | memoryview)
            else super().samples(given)
        )

    def check_values(self, arrays: Arrays) -> None:
        spec, x = self.spec, arrays[self.spec.name]
        check_finite(spec.name, x)
        if not (spec.mean and len(spec.size) == 3):  # numbers of a table or a state may be any
            return
        low, high = float(x.min()), float(x.max())
        ends = [(end - m) / s for end in spec.value_range for m, s in zip(spec.mean, spec.std, strict=True)]
        if max(-low, high) > SLACK * max(map(abs, ends)):
            raise DataError(
                f"input {spec.name!r} ranges from {low:.4g} to {high:.4g}; the model expects normalized images,"
                f" from {min(ends):.3g} to {max(ends):.3g}",
                self.wants,
            )

    def random(self, count: int, length: int = 0) -> Arrays:
        """See ``Processor``: pixels of any value, normalized."""
        spec = self.spec
        low, high = spec.value_range
        x = np.random.default_rng(0).random((count, *spec.size)) * (high - low) + low
        shape = (-1, *[1] * (len(spec.size) - 1))
        if spec.mean:
            x = (x - np.reshape(spec.mean, shape)) / np.reshape(spec.std, shape)
        return {spec.name: x.astype(spec.dtype)}


def resized(spec: InputSpec, size: tuple[int, ...]) -> InputSpec | None:
    """The spec for images of ``size`` (height, width): resized before they are cut out in the same proportion.

    None where it does not read images.
    """
    if len(spec.size) != 3:
        return None
    side = max(min(size), round(spec.resize * min(size) / min(spec.size[1:])))
    stretched = tuple(round(n * new / old) for n, new, old in zip(spec.stretched, size, spec.size[1:], strict=False))
    return replace(spec, shape=(*spec.shape[:2], *size), resize=side, stretched=stretched)


def _is_stored(sample: Any) -> bool:
    """Whether it is a Pillow image, or a cell of a data set with the bytes of an image."""
    if isinstance(sample, Mapping):
        return isinstance(sample.get("bytes"), bytes) and sample.keys() <= {"bytes", "path"}
    return hasattr(sample, "getbands")


def _one_image(pixels: Pixels) -> Pixels:
    """(H, W) or (H, W, 3) of those, or of (H, W, 1).

    Raises:
        DataError: they have another layout, or one that may be two.
    """
    if pixels.ndim != 3:
        return pixels
    if pixels.shape[-1] == 3 and pixels.shape[0] == 3:
        raise DataError(
            f"pixels of shape {pixels.shape} may have their colors first or last", "give an image higher than 3 pixels"
        )
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def _images(batch: Pixels) -> list[Pixels]:
    """The images of (H, W), (H, W, 1), (H, W, 3), or of a batch of such: channels are last, as in an .npz.

    Raises:
        DataError: they have another layout, or one that may be two.
    """
    shape, said = batch.shape, f"pixels of shape {batch.shape}"
    if batch.ndim == 2:
        return [batch]
    if batch.ndim == 4:
        if shape[-1] not in (1, 3):
            raise DataError(f"{said} are not images with their channels last", LAYOUTS)
        return list(batch)
    if batch.ndim != 3:
        raise DataError(f"{said} are not images", LAYOUTS)
    if shape[-1] == 1 or (shape[-1] == 3 and 3 not in shape[:2]):
        return [batch]
    if 3 in (shape[0], shape[-1]):  # colors first, or colors last, or gray images
        raise DataError(
            f"{said} may be one image of 3 colors or several gray ones",
            "give one as (height, width, 3), gray ones as (number, height, width, 1)",
        )
    return list(batch)
