"""Tables as data sets."""

from __future__ import annotations

import numpy as np

from pocketzoo.zoo.arrays import as_numbers
from pocketzoo.zoo.data import Dataset, Split, SplitName, Targets, divide


def from_texts(name: str, texts: list[str], classes: list[str] | None, seed: int, numeric: bool = False) -> Dataset:
    """Texts with their classes, or with ``numeric`` numbers, as a data set."""
    targets: Targets | None
    if classes is not None and numeric:
        labels: tuple[str, ...] = ()
        targets = as_numbers(name, np.array(classes), len(texts))
    elif classes is None:
        labels = ()
        targets = None
    else:
        labels = tuple(sorted(set(classes)))
        number = {label: i for i, label in enumerate(labels)}
        targets = np.array([number[c] for c in classes], np.int64)
    indices = divide(targets, len(texts), seed)
    splits: dict[SplitName, Split] = {
        k: Split([texts[j] for j in i], None if targets is None else targets[i]) for k, i in indices.items()
    }
    return Dataset(name, labels, splits, seed)
