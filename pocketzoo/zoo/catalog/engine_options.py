"""Options for building an engine, in addition to its target. Standard library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pocketzoo.core.errors import RecipeError, check_field
from pocketzoo.zoo.catalog.specs import Input

Sizes = tuple[int, int, int]  # smallest, best and largest length of an axis


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

    def sizes(self, axis: str) -> Sizes:
        """The lengths of an axis of this name, or of one without."""
        return self.shapes.get(axis) or self.usual.get(axis) or self.others


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """What an exporter that ``asks`` gets besides: whose graph it is, and how its engine is to be built."""

    name: str  # of the model
    input: Input  # the config of its processor
    modality: str = "sample"  # of its processor: "image"
    graph: Callable[[Path], None] | None = None  # writes an ONNX graph that does what its processor does
    labels: tuple[str, ...] = ()
    returns: str = "logits"
    options: EngineOptions = field(default_factory=EngineOptions)


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
