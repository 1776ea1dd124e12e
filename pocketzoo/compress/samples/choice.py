"""Whether samples that were made of others help, as sources say that neither were made of.

A step says what it does with samples and how far off that is on others: ``error``. It is asked twice, of some of the
sources alone and of the same with more made of them, and judged on those that were left out of both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.compress.plans import FurtherChoice
from pocketzoo.compress.samples.further import Joined, further
from pocketzoo.core.arrays import Arrays, batch_size, named, rows
from pocketzoo.zoo.data.grouping.left_out import held_out

Error = Callable[
    [Iterable[Arrays], Iterable[Arrays]], float
]  # (samples to calibrate on, and to judge on): less is better

Make = Callable[[Iterable[Arrays], int, int], Iterable[Arrays] | None]  # (samples, how many to make, seed)

ONE_IN = 4  # sources are left out to judge by
BETTER = 0.98  # times the error of real samples alone: what helps by less is not worth its time


def choose(
    samples: Iterable[Arrays],
    count: int,
    error: Error,
    seed: int = 0,
    make: Make = further,
    one_in: int = ONE_IN,
) -> FurtherChoice | None:
    """Try ``count`` further samples for as many as there are, which ``make`` makes; None where that cannot be told.

    One in ``one_in`` sources is left out.

    It cannot where sources are not known or there is one alone, or where nothing can be made of such samples.
    """
    ids = getattr(samples, "groups", None)
    held = None if ids is None else held_out(np.asarray(ids), len(ids), one_in)
    if held is None:
        return None
    kept, left_out = Some(samples, ~held), Some(samples, held)
    made = make(kept, max(round(count * float((~held).mean())), 1), seed)
    if made is None:
        return None
    alone, together = error(kept, left_out), error(Joined((kept, made)), left_out)
    return FurtherChoice(made=count, real=alone, joined=together, used=together < BETTER * alone)


@dataclass(frozen=True)
class Some:
    """Those of the samples that ``which`` (N,) says, with their sources and what their image is like."""

    samples: Iterable[Arrays]
    which: npt.NDArray[np.bool_]

    def __iter__(self) -> Iterator[Arrays]:
        start = 0
        for batch in self.samples:
            arrays = named(batch)
            end = start + batch_size(arrays)
            if (chosen := np.flatnonzero(self.which[start:end])).size:
                yield rows(arrays, chosen)
            start = end

    @property
    def groups(self) -> npt.NDArray[np.int64] | None:
        """The source of each; None where they do not say."""
        ids = getattr(self.samples, "groups", None)
        return None if ids is None else np.asarray(ids)[self.which]

    @property
    def image(self) -> Any:
        """See ``further``."""
        return getattr(self.samples, "image", None)
