"""Conformance of data sets: three disjoint splits, class names, the same every time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketzoo.core.errors import DataError, MissingDependencyError
from pocketzoo.testing.checks import blaming, wrong
from pocketzoo.zoo.catalog.dataset import SPLITS, Dataset, Split
from pocketzoo.zoo.catalog.registry import Entry

DOUBLES = 0.01  # of a split may be in another: published sets hold some images twice


@pytest.fixture(scope="module")
def attempt(dataset: Entry) -> Dataset | Exception:
    """The data set, or why it cannot be loaded."""
    try:
        loaded = dataset.spec.load()
    except Exception as error:  # test_it_loads says so
        return error
    return loaded if isinstance(loaded, Dataset) else TypeError(f"it returns a {type(loaded).__name__}, no Dataset")


@pytest.fixture(scope="module")
def loaded(attempt: Dataset | Exception) -> Dataset:
    """The data set, for the checks of what is in it."""
    if isinstance(attempt, Exception):
        pytest.skip("it cannot be loaded (see test_it_loads)")
    return attempt


def test_it_loads(attempt: Dataset | Exception) -> None:
    """Where what it needs is not installed here, it says so with an error of pocketzoo's."""
    if isinstance(attempt, (DataError, MissingDependencyError)):
        pytest.skip(f"{attempt.message} ({attempt.hint})")
    with blaming(
        "load() fails", "return a pocketzoo.zoo.catalog.dataset.Dataset; raise errors.DataError where there is no data"
    ):
        if isinstance(attempt, Exception):
            raise attempt


def test_it_has_three_splits(loaded: Dataset) -> None:
    """None of them is empty."""
    sizes = {name: len(loaded.splits[name]) if name in loaded.splits else 0 for name in SPLITS}
    if not all(sizes.values()):
        wrong(
            f"its splits have {sizes} samples", "give train, val and test; pocketzoo.zoo.data.batches.divide makes them"
        )


def test_its_splits_share_no_sample(loaded: Dataset) -> None:
    """What is tested on was never trained or tuned on."""
    seen = {name: _digests(loaded.splits[name]) for name in SPLITS if name in loaded.splits}
    for i, (one, mine) in enumerate(seen.items()):
        for other, theirs in list(seen.items())[i + 1 :]:
            common = len(mine & theirs)
            if common > DOUBLES * min(len(mine), len(theirs)):
                wrong(f"{common} samples of {one} are in {other} as well", "divide the samples before, not after")


def test_its_classes_have_names(loaded: Dataset) -> None:
    """A target is a number below the number of labels; every class can be learned."""
    if not loaded.labels:
        pytest.skip("its classes are not known")
    if len(set(loaded.labels)) != len(loaded.labels):
        wrong(f"its labels are {loaded.labels!r:.80}", "give each class a name of its own")
    for name, split in loaded.splits.items():
        if split.targets is None or len(split.targets) != len(split):
            wrong(
                f"{name} has no target for each of its {len(split)} samples", "give one number a sample, or no labels"
            )
        if len(split) == 0 or split.targets.ndim != 1 or split.targets.dtype.kind not in "iu":
            continue  # another check's; or its labels name something else than classes
        low, high = split.targets.min(), split.targets.max()
        if low < 0 or high >= len(loaded.labels):
            wrong(f"{name} has targets from {low} to {high} for {len(loaded.labels)} labels", "number them from 0")
    taught = loaded.split("train").targets
    if taught is None or taught.ndim != 1 or taught.dtype.kind not in "iu":
        return
    if missing := set(range(len(loaded.labels))) - set(np.unique(taught).tolist()):
        wrong(f"train has no sample of {[loaded.labels[i] for i in sorted(missing)]}", "divide every class alike")


def test_it_is_the_same_each_time(dataset: Entry, loaded: Dataset) -> None:
    """A seed decides what goes where."""
    if dataset.spec.load().digest() != loaded.digest():
        wrong("it is another data set when it is loaded again", "divide it with a fixed seed")


def _digests(split: Split) -> set[bytes]:
    """A sample is its pixels, its file, or its text."""

    def digest(x: Any) -> bytes:
        if isinstance(x, (Path, str)):
            return str(x.resolve() if isinstance(x, Path) else x).encode()
        if isinstance(x, Mapping):  # of several things
            return b"".join(name.encode() + digest(np.asarray(value)) for name, value in sorted(flat(x).items()))
        return hashlib.sha256(x.tobytes()).digest()

    def flat(x: Mapping[str, Any], before: str = "") -> dict[str, Any]:
        parts = [flat(v, f"{before}{k}.") if isinstance(v, Mapping) else {f"{before}{k}": v} for k, v in x.items()]
        return {name: value for part in parts for name, value in part.items()}

    return {digest(x) for x in split.samples}
