"""Sources (photos, documents) divided once and for all: to calibrate, to test, and a third set to hold both against.

What is measured on crops of a photo that was calibrated on says little of other photos. So all benchmarks that judge
compression take their samples from here, and no source is on two sides.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal, TypeVar, get_args

T = TypeVar("T")
Side = Literal["calibration", "test", "third"]
FRACTIONS: dict[Side, float] = {"calibration": 0.4, "test": 0.4, "third": 0.2}
SEED = 17


def side_of(sources: Sequence[T], side: Side, limit: int | None = None) -> list[T]:
    """The sources of one side, by a fixed seed; the first ``limit``, so that fewer are always part of more.

    Raises:
        SystemExit: there are not so many.
    """
    order = list(sources)
    random.Random(SEED).shuffle(order)
    names = get_args(Side)
    ends = [round(len(order) * sum(FRACTIONS[name] for name in names[: i + 1])) for i in range(len(names))]
    place = names.index(side)
    found = order[ends[place - 1] if place else 0 : ends[place]]
    if len(found) < (limit or 1):
        raise SystemExit(f"the side {side!r} has {len(found)} sources, and {limit or 1} are needed")
    return found[:limit]
