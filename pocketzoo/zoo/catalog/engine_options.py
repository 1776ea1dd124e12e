"""Options for building an engine, in addition to its target. Standard library."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

from pocketzoo.core.errors import ExportError, RecipeError, check_field

Sizes = tuple[int, int, int]  # smallest, best and largest length of an axis
DEFAULTS = ("usual", "others")  # what is built for where nobody asks, so that a back end may pass it by
OPTIONS = {"shapes": "shape", "stripped": "strip"}  # what the command line calls some of them


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """``shapes`` are those of free axes by their name, and every name is one of the graph's."""

    shapes: Mapping[str, Sizes] = field(default_factory=dict)
    usual: Mapping[str, Sizes] = field(default_factory=dict)  # of axes that the graph may have and ``shapes`` has not
    others: Sizes = (1, 8, 32)  # of all other axes
    version_compatible: bool = False  # also with later versions of TensorRT, by its lean runtime
    hardware_compatible: bool = False  # also on other GPUs since Ampere, at some cost in speed
    stripped: bool = False  # without weights, which are put in on the device
    dla: int | None = None  # the core to run on; what it cannot falls back to the GPU
    workspace: int = 0  # MiB that a layer may take to work in; 0: all there is

    def __post_init__(self) -> None:
        for name, sizes in {**self.usual, **self.shapes, "": self.others}.items():
            if not 0 <= sizes[0] <= sizes[1] <= sizes[2] or sizes[2] == 0:
                raise RecipeError(
                    f"the sizes of {name or 'an axis'} cannot be {':'.join(map(str, sizes))}",
                    "give minimum, optimum and maximum, in this order",
                )
        check_field(self, "workspace", self.workspace >= 0, "0 or more MiB")
        check_field(self, "dla", self.dla is None or self.dla >= 0, "the number of a core, from 0")

    def check(self, known: Iterable[str], owner: str) -> None:
        """Raises:
        ExportError: an option was given that ``owner``, which knows those of ``known``, does not build by.
        """
        given = [f.name for f in fields(self) if f.name not in DEFAULTS and getattr(self, f.name) != _default(f)]
        if unknown := [name for name in given if name not in known]:
            words = unknown[0].replace("_", "-")
            raise ExportError(
                f"{owner} has no option {words!r} to build by", f"leave out --{OPTIONS.get(words, words)}"
            )

    def sizes(self, axis: str) -> Sizes:
        """The lengths of an axis of this name, or of one without."""
        return self.shapes.get(axis) or self.usual.get(axis) or self.others


def _default(f: Field[Any]) -> Any:
    return f.default if f.default_factory is MISSING else f.default_factory()


def read_sizes(text: str) -> Sizes:
    """``1:8:32``, or one number for all three.

    Raises:
        ValueError: it is neither.
    """
    parts = [int(part) for part in text.split(":")]
    if len(parts) == 1:
        parts *= 3
    smallest, best, largest = parts
    return smallest, best, largest
