"""Samples that belong together, in pairs, as groups of all that are linked."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt


class Links:
    """Union-find (Tarjan 1975) over ``count`` samples: each is alone until it is linked."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, sample: int) -> int:
        """The first sample of the group that one is in."""
        parent = self._parent
        while parent[sample] != sample:
            parent[sample] = parent[parent[sample]]
            sample = parent[sample]
        return sample

    def link(self, one: int, other: int) -> None:
        """Two samples are of one source."""
        a, b = self.root(one), self.root(other)
        self._parent[max(a, b)] = min(a, b)

    def link_all(self, samples: Iterable[int]) -> None:
        """All of these are."""
        samples = iter(samples)
        first = next(samples, None)
        for other in samples:
            assert first is not None
            self.link(first, other)

    def ids(self) -> npt.NDArray[np.int64]:
        """Of each sample the first one of its group."""
        return np.array([self.root(sample) for sample in range(len(self._parent))], np.int64)
