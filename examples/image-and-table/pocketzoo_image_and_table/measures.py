"""The data: scikit-learn's handwritten digits, and what is measured of each."""

from __future__ import annotations

import numpy as np

from pocketzoo.api import Dataset, from_arrays, require


def measured(pixels: np.ndarray) -> dict[str, float]:
    """What a digit (8, 8) of uint8 is like: fractions of ink, and pixels."""
    ink = pixels.astype(np.float64) / 255
    total = max(float(ink.sum()), 1e-9)
    rows, columns = np.indices(ink.shape)
    row, column = float((rows * ink).sum() / total), float((columns * ink).sum() / total)
    high = float(((rows - row) ** 2 * ink).sum() / total)
    wide = float(((columns - column) ** 2 * ink).sum() / total)
    slant = float(((rows - row) * (columns - column) * ink).sum() / total)
    return {
        "ink": float(ink.mean()),
        "row": row,
        "column": column,
        "height": high**0.5,
        "width": wide**0.5,
        "slant": slant,
    }


def load(seed: int = 0) -> Dataset:
    """Mappings of an image and its measures, with the digit that each is."""
    digits = require("sklearn.datasets").load_digits()
    images = np.rint(digits.images * 255 / 16).astype(np.uint8)
    samples = [{"image": image, "measures": measured(image)} for image in images]
    return from_arrays("digits-and-measures", tuple(map(str, range(10))), samples, digits.target.astype(np.int64), seed)
