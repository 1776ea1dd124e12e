"""Convert and check runtime inputs: images, texts or arrays to the array the graph reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import Array
from pocketzoo.core.errors import DataError
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.catalog.specs import InputSpec, TextSpec
from pocketzoo.zoo.data.image_preprocessing import FORMATS, NAMED, prepare
from pocketzoo.zoo.data.text_encoder import TextEncoder

# How far beyond the range of normalized images values may go. Noise does, and so do models fed with made-up data;
# pixels of 0 to 255 that nobody normalized go tens of times as far.
SLACK = 8.0

Prepared = npt.NDArray[Any]


class InputReader:
    """From a batch, as ``Runtime.predict`` takes it, to what the graph reads: (B, *size)."""

    def __init__(self, bundle: Bundle) -> None:
        """Read the tokenizer, of a model that has one.

        Raises:
            MissingDependencyError, BundleError: it cannot be read here.
        """
        self.spec = bundle.manifest.input
        self.encoder: TextEncoder | None = None
        if isinstance(self.spec, TextSpec) and self.spec.tokenizer in (files := bundle.source_files()):
            self.encoder = TextEncoder(self.spec, files)

    def __call__(self, batch: Any) -> Prepared:
        """The array for a batch.

        Raises:
            DataError: the model cannot be given that; the message says what is wrong, the hint what it takes.
        """
        if isinstance(self.spec, TextSpec):
            return _texts(batch, self.spec, self.encoder)
        return _images(batch, self.spec)


def _images(batch: Any, spec: InputSpec) -> Prepared:
    if isinstance(batch, np.ndarray) and batch.dtype != np.uint8:
        return _ready(batch, spec)
    if isinstance(batch, np.ndarray):
        samples: Sequence[Any] = _pixels(batch, spec)
    elif isinstance(batch, (str, Path)) or hasattr(batch, "getbands"):
        samples = [batch]
    else:
        samples = _sequence(batch, spec)
        if all(isinstance(s, np.ndarray) and s.dtype != np.uint8 for s in samples):
            shapes = {s.shape for s in samples}
            if len(shapes) > 1:
                raise DataError(f"the arrays have different shapes: {sorted(shapes)}", _wanted(spec))
            return _ready(np.stack(samples), spec)
    return np.stack([_image(sample, spec) for sample in samples])


def _image(sample: Any, spec: InputSpec) -> Array:
    if isinstance(sample, (str, Path)):
        return prepare(Path(sample), spec)
    if hasattr(sample, "getbands"):  # a Pillow image, told without importing Pillow
        if getattr(sample, "format", None) not in (None, "MPO", *FORMATS):  # which decode only now; MPO is a JPEG
            raise DataError(f"an image cannot be {sample.format}", f"give a {NAMED}, or its pixels as an array")
        return prepare(np.asarray(sample.convert("L" if spec.size[:1] == (1,) else "RGB")), spec)
    if isinstance(sample, np.ndarray) and sample.dtype == np.uint8:
        return prepare(sample, spec)
    raise DataError(f"a sample cannot be {_called(sample)}", _wanted(spec))


def _pixels(batch: npt.NDArray[np.uint8], spec: InputSpec) -> list[npt.NDArray[np.uint8]]:
    """(H, W), (H, W, 3), (B, H, W) or (B, H, W, 3) as a list of images."""
    if batch.ndim == 2 or (batch.ndim == 3 and batch.shape[-1] == 3 and batch.shape[1] != 3):
        return [batch]
    if batch.ndim == 3 or (batch.ndim == 4 and batch.shape[-1] == 3):
        return list(batch)
    raise DataError(f"pixels of shape {batch.shape} are not images", _wanted(spec))


def _ready(x: npt.NDArray[Any], spec: InputSpec) -> Prepared:
    """An array that is ready for the graph, as it is: no copy is made of what fits."""
    shape = ("batch", *spec.size)
    if x.ndim != len(shape) or x.shape[1:] != spec.size:
        missing = " (one sample alone needs a batch axis: x[None])" if x.shape == spec.size else ""
        raise DataError(f"input {spec.name!r} is {x.shape}, the model expects {shape}{missing}", _wanted(spec))
    if len(x) == 0:
        raise DataError("the batch is empty", _wanted(spec))
    if x.dtype != spec.dtype:
        raise DataError(f"input {spec.name!r} is {x.dtype}, the model expects {spec.dtype}", _wanted(spec))
    low, high = float(x.min()), float(x.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(f"input {spec.name!r} has non-finite values", "check the data for NaN and infinity")
    if spec.mean and len(spec.size) == 3:  # pixels; numbers of a table or a state may be any
        ends = [(end - m) / s for end in spec.value_range for m, s in zip(spec.mean, spec.std, strict=True)]
        if max(-low, high) > SLACK * max(map(abs, ends)):
            raise DataError(
                f"input {spec.name!r} ranges from {low:.4g} to {high:.4g}; the model expects normalized images,"
                f" from {min(ends):.3g} to {max(ends):.3g}",
                _wanted(spec),
            )
    return x


def _wanted(spec: InputSpec) -> str:
    ready = f"{spec.dtype} of {('batch', *spec.size)}"
    if len(spec.size) != 3 or not spec.mean:
        return f"give {ready}"
    return f"give image files, uint8 pixels (height, width, 3), or {ready}, scaled and normalized"


def _texts(batch: Any, spec: TextSpec, encoder: TextEncoder | None) -> Prepared:
    if isinstance(batch, np.ndarray) and batch.dtype.kind not in "US":
        return _ids(batch, spec)
    texts = [batch] if isinstance(batch, (str, Path)) else _sequence(batch, spec)
    if bad := next((t for t in texts if not isinstance(t, (str, Path))), None):
        raise DataError(f"a text cannot be {_called(bad)}", _wanted_text(spec))
    if encoder is None:
        raise DataError(
            "this model has no tokenizer, so it cannot read text", "give token ids: int64 of (batch, length)"
        )
    return encoder([_text_of(t) if isinstance(t, Path) else str(t) for t in texts])


def _text_of(file: Path) -> str:
    try:
        return file.read_text("utf8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the text {file}: {error}", "give the text itself, or a file in UTF-8") from error


def _ids(x: npt.NDArray[Any], spec: TextSpec) -> Prepared:
    if x.ndim != 2 or 0 in x.shape:
        raise DataError(f"input {spec.name!r} is {x.shape}, the model expects ('batch', 'length')", _wanted_text(spec))
    if x.dtype != spec.dtype:
        raise DataError(f"input {spec.name!r} is {x.dtype}, the model expects {spec.dtype}", _wanted_text(spec))
    if x.shape[1] > spec.max_length:
        raise DataError(f"the texts have {x.shape[1]} tokens, the model expects {spec.max_length}", "truncate them")
    low, high = int(x.min()), int(x.max())
    if low < 0 or (spec.vocabulary and high >= spec.vocabulary):
        raise DataError(
            f"token ids range from {low} to {high}, the vocabulary is 0 to {spec.vocabulary - 1}",
            f"encode the texts with the model's own {spec.tokenizer}",
        )
    return x


def _wanted_text(spec: TextSpec) -> str:
    return f"give texts, or token ids: {spec.dtype} of (batch, length), of at most {spec.max_length} tokens"


def _sequence(batch: Any, spec: InputSpec | TextSpec) -> Sequence[Any]:
    hint = _wanted_text(spec) if isinstance(spec, TextSpec) else _wanted(spec)
    if isinstance(batch, (bytes, dict)) or not hasattr(batch, "__iter__"):
        raise DataError(f"a batch cannot be {_called(batch)}", hint)
    samples = list(batch)
    if not samples:
        raise DataError("the batch is empty", hint)
    return samples


def _called(thing: object) -> str:
    if isinstance(thing, np.ndarray):
        return f"an array of {thing.dtype}, {thing.shape}"
    return f"{type(thing).__name__}"
