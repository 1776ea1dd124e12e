"""Targets numbered as a model's labels are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pocketzoo.core.errors import DataError, nearest
from pocketzoo.zoo.catalog.dataset import Dataset
from pocketzoo.zoo.data.target_kinds import IGNORED, holds, labels_of, without_targets


def with_tags(dataset: Dataset, labels: Sequence[str]) -> Dataset:
    """The data set with the tags of its words, (N, words), numbered as a model's ``labels`` are.

    One whose tags have no names is numbered so already. Without targets it comes back where the model knows none.

    Raises:
        DataError: the model knows some of its tags but not all, or a number has no label.
    """
    if not holds(dataset, 2, "iu"):
        return without_targets(dataset)
    known = {name: split.targets for name, split in dataset.splits.items() if split.targets is not None}
    most = max((int(targets.max(initial=0)) for targets in known.values()), default=0)
    if not dataset.labels or not labels or dataset.labels == tuple(labels):
        if labels and most >= len(labels):
            raise DataError(
                f"{dataset.name} has the tag {most}, and the model {len(labels)} labels", "number them from 0"
            )
        return dataset
    number, unknown = np.full(len(dataset.labels), IGNORED, np.int64), list[str]()
    for i, name in enumerate(dataset.labels):
        if name in labels:
            number[i] = list(labels).index(name)
        else:
            unknown.append(name)
    if len(unknown) == len(dataset.labels):
        return without_targets(dataset)
    if unknown:
        raise DataError(
            f"{labels_of(dataset)} has tags unknown to the model: {', '.join(unknown[:5])}",
            nearest(unknown[0], labels),
        )
    splits = {
        name: replace(split, targets=np.where(known[name] == IGNORED, IGNORED, number[known[name]]))
        if name in known
        else split
        for name, split in dataset.splits.items()
    }
    return replace(dataset, labels=tuple(labels), splits=splits)


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
            f"{labels_of(dataset)} has classes unknown to the model: {', '.join(unknown[:5])}",
            nearest(unknown[0], labels),
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
        splits[name] = replace(split, targets=targets)
    return replace(dataset, labels=labels, splits=splits)
