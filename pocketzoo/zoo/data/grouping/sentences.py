"""What a user should hear of the sources of a data set."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from pocketzoo.zoo.catalog.dataset import SPLITS, Dataset, Groups, SplitName

FEWEST = 4  # sources that samples are divided by: two to learn of, and one for each of the other splits


def sentences(dataset: Dataset) -> Iterator[str]:
    """How many sources there are, where samples have some in common, and which are in two splits."""
    known = {name: groups for name in SPLITS if (groups := _groups(dataset, name)) is not None}
    if "train" not in known:
        return
    by = known["train"].by
    ids = np.concatenate([groups.ids for groups in known.values()])
    count = len(np.unique(ids))
    both = {pair: shared(known[pair[0]], known[pair[1]]) for pair in combinations(known, 2)}
    if count < len(ids):
        few = count < FEWEST and any(both.values())
        why = ", too few to leave any out: scores are of the sources that were learned from" if few else ""
        yield f"{dataset.name}: {len(ids):,} samples are of {counted(count)}, told apart by {by}{why}"
        for (one, other), sources in both.items() if not few else ():
            if sources:
                yield f"{counted(sources)} of {dataset.name} in both {one} and {other}: scores are too optimistic"
    yield from known["train"].notes


def _groups(dataset: Dataset, name: SplitName) -> Groups | None:
    return dataset.splits[name].groups if name in dataset.splits else None


def counted(sources: int) -> str:
    """ "12 sources"."""
    return f"{sources:,} source{'s' * (sources != 1)}"


def shared(one: Groups, other: Groups) -> int:
    """How many sources two splits have in common."""
    return len(np.intersect1d(one.ids, other.ids))
