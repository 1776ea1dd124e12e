"""Targets numbered as a model's labels are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pocketzoo.core.errors import DataError, nearest
from pocketzoo.zoo.catalog.dataset import Dataset, Split
from pocketzoo.zoo.data.target_kinds import without_targets


def with_classes(dataset: Dataset, labels: Sequence[str]) -> Dataset:
    """The data set with its classes numbered as a model's ``labels`` are; of several labels per sample, the columns.

    A data set none of whose classes the model knows is taken without them: good for calibration and agreement. So is
    one that has other targets than classes.

    Raises:
        DataError: the model knows some of its classes but not all.
    """
    labels = tuple(labels)
    whole = all(split.targets is None or split.targets.dtype.kind in "iu" for split in dataset.splits.values())
    if not labels or not whole:
        return dataset if not dataset.labels and whole else without_targets(dataset)
    if dataset.labels == labels or not dataset.labels:
        return dataset
    unknown = [name for name in dataset.labels if name not in labels]
    if len(unknown) == len(dataset.labels):
        return without_targets(dataset)
    if unknown:
        raise DataError(
            f"{dataset.name} has classes unknown to the model: {', '.join(unknown[:5])}", nearest(unknown[0], labels)
        )
    number = np.array([labels.index(name) for name in dataset.labels], np.int64)
    splits = {}
    for name, split in dataset.splits.items():
        targets = split.targets
        if targets is not None and targets.ndim == 2:  # 0 or 1 for each label
            targets = np.zeros((len(targets), len(labels)), targets.dtype)
            targets[:, number] = split.targets
        elif targets is not None:
            targets = number[targets]
        splits[name] = Split(split.samples, targets)
    return Dataset(dataset.name, labels, splits, dataset.seed)
