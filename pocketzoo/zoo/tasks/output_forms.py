"""How outputs are held against those of a reference: part by part, and whole numbers as numbers or as labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pocketzoo.core.arrays import Array

if TYPE_CHECKING:
    from pocketzoo.zoo.graphs.foreign.selections import Selection


@dataclass(frozen=True, slots=True)
class OutputParts:
    """Parts side by side along ``axis``, which is counted from the end, below 0, and where each ends."""

    axis: int
    ends: tuple[int, ...]

    def fit(self, array: Array) -> bool:
        """Whether an array is as long along the axis as all parts."""
        return array.ndim >= -self.axis and array.shape[self.axis] == self.ends[-1]

    def split(self, array: Array) -> list[Array]:
        """The parts of an array that they ``fit``."""
        return np.split(array, self.ends[:-1], self.axis)

    def told(self, number: int) -> str:
        """Which part it is, in words."""
        begin = self.ends[number - 1] if number else 0
        return f"{begin} to {self.ends[number] - 1} of axis {self.axis}"


@dataclass(frozen=True, slots=True)
class OutputForms:
    """How outputs are held against others: part by part, and whole numbers as numbers, by the outputs' names."""

    parts: Mapping[str, OutputParts] = field(default_factory=dict)
    rounded: frozenset[str] = frozenset()  # whole numbers that floats are rounded to, such as pixels; others are labels
    # Those whose length depends on what is computed: what they are selected from is compared.
    selections: Mapping[str, Selection] = field(default_factory=dict)

    def compared(self, outputs: Iterable[str]) -> list[str]:
        """What is compared of outputs, by what it is called in any graph: each itself, or what it is selected from."""
        return [
            called
            for name in outputs
            for called in (self.selections[name].compared(name) if name in self.selections else (name,))
        ]
