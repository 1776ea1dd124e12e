"""Configs of the processors that ship, besides images and texts (tables, named arrays, mixtures); columns of data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pocketzoo.core.errors import RecipeError
from pocketzoo.zoo.catalog.signature import TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSpec:
    """A row of a table: numbers (B, columns), float32, in the order of ``columns``.

    What a sample lacks is an error, by the column's name, unless ``missing`` says what it is. Then ``(x - mean) / std``
    is taken of each column, where they are given.
    """

    width: int  # columns
    columns: tuple[str, ...] = ()  # their names; empty: they have none, and rows come in their order
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    missing: tuple[float, ...] = ()  # of each column, in its own units: what stands for a value that a sample lacks
    name: str = "vector"

    def __post_init__(self) -> None:
        if self.width < 1:
            raise RecipeError(f"a table cannot have {self.width} columns", "give the number of its columns")
        for what in ("columns", "mean", "std", "missing"):
            if (count := len(getattr(self, what))) not in (0, self.width):
                raise RecipeError(f"{what} has {count} values for {self.width} columns", "give one for each, or none")
        if len(set(self.columns)) < len(self.columns):
            raise RecipeError("two columns have one name", "give each its own")
        if not all(value > 0 for value in self.std):
            raise RecipeError(f"std cannot be {min(self.std)}", "give numbers above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraysSpec:
    """Arrays that are ready for the model, by the names of its inputs: of a foreign graph, or a state."""

    inputs: tuple[TensorSpec, ...]
    # Of free axes besides the batch: a length that the graph was seen to take, where it does not take short ones.
    lengths: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [tensor.name for tensor in self.inputs]
        if not names or len(set(names)) < len(names):
            raise RecipeError(f"inputs cannot be {names}", "give one or more, each with a name of its own")


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingSpec:
    """A sample of several things, each read by a processor of its own: field -> that one's config.

    A config is one that a registered processor declares, or in a bundle its ``Described`` as plain data.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.fields:
            raise RecipeError(
                "a mapping needs one field or more", "give each the config of a processor, such as an InputSpec"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DataColumns:
    """Which columns of a table a data set is of; a bundle keeps those that its model was fitted to."""

    text: str = ""  # of texts, or images; "" where samples are rows of numbers
    labels: tuple[str, ...] = ()  # of labels or targets


NO_COLUMNS = DataColumns()  # of what is no table
