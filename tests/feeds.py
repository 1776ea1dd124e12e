"""Bare arrays for tests of models that have one input: what they read, and their first output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from pocketzoo.core.arrays import Arrays, first
from pocketzoo.zoo.catalog.backend import Runner
from pocketzoo.zoo.catalog.dataset import SPLITS, Dataset


def only(runner: Runner, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """The first output of a model with one input; written to ``out`` where that is given."""
    signature = runner.signature
    name = signature.outputs[0].name
    return runner.infer({signature.inputs[0].name: x}, None if out is None else {name: out})[name]


def arrays(batches: Iterable[tuple[Arrays, Any]]) -> Iterator[tuple[np.ndarray, Any]]:
    """Batches of what a model with one input reads."""
    return ((first(x), y) for x, y in batches)


def pairs(data: Dataset) -> list[tuple[Any, str]]:
    """Every sample of a data set with the label of its class, "" where it has none, sorted."""
    found: list[tuple[Any, str]] = []
    for name in SPLITS:
        split = data.split(name)
        labels = [""] * len(split) if split.targets is None else [data.labels[t] for t in split.targets]
        found += zip(split.samples, labels, strict=True)
    return sorted(found)
