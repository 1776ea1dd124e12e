"""What an ONNX file does not say: the preprocessing of its inputs, and the meaning of its outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pocketzoo.core.errors import RecipeError

Number = int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxMetadata:
    """What an ONNX file does not record of its inputs and outputs. All of it may be left out."""

    mean: tuple[float, ...] = ()  # per channel, in units of value_range; () is not known
    std: tuple[float, ...] = ()
    value_range: tuple[float, float] = (0.0, 1.0)  # of pixels
    size: int | tuple[int, int] | None = None  # pixels a side, or (height, width), for graphs that take any
    axes: Mapping[str, int] = field(default_factory=dict)  # free axis by its name -> the usual length
    seen: Mapping[str, int] = field(default_factory=dict)  # the same as data shows it, where it is not told
    whole: bool = False  # as data shows it: a sample is all that a run reads, no axis counts samples
    values: Mapping[str, Number | tuple[Number, ...]] = field(default_factory=dict)  # input -> what it is in all calls
    states: Mapping[str, str] = field(default_factory=dict)  # output -> the input that it is at the next call
    labels: tuple[str, ...] = ()
    # The axis of an output of three axes or more that counts classes: (name, axis), "" the first output. None: the one
    # that is as long as there are labels.
    classes_axis: tuple[str, int] | None = None
    tokenizer: Path | None = None  # None: a tokenizer.json alongside the graph, if there is one
    processor: str = ""  # what makes its inputs of samples, by name; "": the one that can, or arrays as they are
    task: str = ""  # what its outputs are for, by name; "": classification where there are labels
    decoder: str = ""  # how its outputs become answers, by name; "": as the task has it

    def __post_init__(self) -> None:
        if bool(self.mean) != bool(self.std) or not all(s > 0 and math.isfinite(s) for s in self.std):
            raise RecipeError("mean and std must be given together, with std above 0", "such as --mean 0.5 --std 0.5")
        if self.sides is not None and min(self.sides) < 1:
            raise RecipeError(f"size cannot be {self.size}", "give pixels, 1 or more: 224, or (320, 480)")
        for name, length in self.axes.items():
            if length < 1:
                raise RecipeError(f"the axis {name!r} cannot be {length} long", "give its length, 1 or more")
        if self.decoder and not self.task:
            raise RecipeError(f"the decoder {self.decoder!r} is of no task", "give --task, too")

    @property
    def sides(self) -> tuple[int, int] | None:
        """(height, width) in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size
