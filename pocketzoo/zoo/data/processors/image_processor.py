"""The processor of images: files, bytes, Pillow images or pixels to a normalized array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
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
    FORMATS,
    NAMED,
    check_reads_images,
    convert_image,
    decode_image,
    prepare,
    prepare_image,
)

# How far beyond the range of normalized images values may go. Noise does, and so do models fed with made-up data;
# pixels of 0 to 255 that nobody normalized go tens of times as far.
SLACK = 8.0
Prepared = npt.NDArray[Any]


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
        if isinstance(sample, bytes):
            check_reads_images(self.spec)
            return prepare_image(decode_image(BytesIO(sample), "of these bytes", self.spec.size[0]), self.spec)
        if isinstance(sample, str | Path):
            return prepare(Path(sample), self.spec)
        if hasattr(sample, "getbands"):  # a Pillow image, told without importing Pillow
            if getattr(sample, "format", None) not in (None, "MPO", *FORMATS):  # which decode only now; MPO is a JPEG
                raise DataError(f"an image cannot be {sample.format}", f"give a {NAMED}, or its pixels as an array")
            check_reads_images(self.spec)
            return prepare_image(convert_image(sample, self.spec.size[0]), self.spec)
        if isinstance(sample, np.ndarray) and sample.dtype == np.uint8:
            return prepare(_without_gray_axis(sample) if sample.ndim == 3 else sample, self.spec)
        if isinstance(sample, np.ndarray):
            raise DataError(
                f"a sample has shape {by(sample.shape)}, the model reads {by(self.spec.size)}"
                if sample.dtype == self.spec.dtype
                else f"a sample cannot be {called(sample)}",
                self.wants,
            )
        raise DataError(f"a sample cannot be {called(sample)}", self.wants)

    def arrays(self, given: Any) -> Arrays | None:
        if isinstance(given, np.ndarray):
            return None if given.dtype == np.uint8 else {self.spec.name: given}
        if isinstance(given, list | tuple) and given:
            if all(isinstance(each, np.ndarray) and each.dtype != np.uint8 for each in given):
                if len(shapes := {each.shape for each in given}) > 1:
                    raise DataError(f"the arrays have different shapes: {sorted(shapes)}", self.wants)
                return {self.spec.name: np.stack(given)}
            return None
        return super().arrays(given)

    def samples(self, given: Any) -> Sequence[Any]:
        if isinstance(given, np.ndarray):
            return self._pixels(given)
        return [given] if hasattr(given, "getbands") else super().samples(given)

    def _pixels(self, batch: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
        """(H, W), (H, W, 1), (H, W, 3), or a batch of such, as a list of images: channels are last, as in an .npz."""
        batch = _without_gray_axis(batch) if batch.ndim in (3, 4) else batch
        if batch.ndim == 2 or (batch.ndim == 3 and batch.shape[-1] == 3 and batch.shape[1] != 3):
            return [batch]
        if batch.ndim == 3 or (batch.ndim == 4 and batch.shape[-1] == 3):
            return list(batch)
        raise DataError(f"pixels of shape {batch.shape} are not images", self.wants)

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
    return replace(spec, shape=(*spec.shape[:2], *size), resize=side)


def _without_gray_axis(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Gray pixels (..., H, W) of those with an axis for their one channel."""
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels
