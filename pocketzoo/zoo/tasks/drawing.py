"""Samples as a person sees them, in HTML."""

from __future__ import annotations

import io
from base64 import b64encode
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from pocketzoo.core.optional import require
from pocketzoo.zoo.data.processors.image_preprocessing import read_image

SIDE = 96  # pixels of a thumbnail's longer side
LETTERS = 240  # of a text


def shown(sample: Any, side: int = SIDE) -> tuple[str, str]:
    """A sample in words (a text, or its file's name), and as the URL of a JPEG that holds it; "" where it has none.

    Images are files or uint8 pixels; the longer side becomes ``side`` pixels.
    """
    if isinstance(sample, str):
        return sample if len(sample) <= LETTERS else f"{sample[:LETTERS]}\u2026", ""
    if isinstance(sample, Path) and sample.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        return f"{sample.parent.name}/{sample.name}", ""
    name = f"{sample.parent.name}/{sample.name}" if isinstance(sample, Path) else ""
    if not isinstance(sample, Path) and (
        not isinstance(sample, np.ndarray) or sample.dtype != np.uint8 or sample.ndim not in (2, 3)
    ):
        return name, ""
    image = read_image(sample, 3)
    scale = side / max(image.size)
    resampling = require("PIL.Image", extra="data").Resampling
    size = tuple(max(1, round(length * scale)) for length in image.size)
    image = image.resize(size, resampling.NEAREST if scale > 2 else resampling.BILINEAR)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)
    return name, f"data:image/jpeg;base64,{b64encode(out.getvalue()).decode()}"


def sample_html(sample: Any) -> str:
    """A sample as a small image, or its text; "" where it has neither."""
    words, source = shown(sample)
    if source:
        return f'<img src="{source}" alt="{escape(words)}" title="{escape(words)}">'
    return f'<p class="said">{escape(words)}</p>' if words else ""


def captioned(sample: Any, right: str, answer: str, certainty: float | None = None) -> str:
    """A sample with what is right below it ("" where that is not known), what was answered, and how surely, 0-1."""
    surely = "" if certainty is None else f" {certainty:.0%}"
    truth = f'<span class="label">{escape(right)}</span> ' if right else ""
    return (
        f'{sample_html(sample)}<p>{truth}<span class="taken-for">predicted <b>{escape(answer)}</b>{surely}</span></p>'
    )
