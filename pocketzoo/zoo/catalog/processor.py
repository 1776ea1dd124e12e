"""Processors: how what a person has becomes the named inputs of a model. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pocketzoo.zoo.catalog.signature import TensorSpec

if TYPE_CHECKING:
    from pocketzoo.core.arrays import Arrays


class Processor(Protocol):
    """A processor that was opened. In numpy, without torch: the device runs it too.

    Its execution is the reference: whatever else does the same (a graph of Triton's) equals it to 1e-5.
    """

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs of the model that it makes, in the model's order."""

    def __call__(self, samples: Sequence[Any]) -> Arrays:
        """A batch: each input with its batch axis, filled up where samples differ in length.

        A sample is what ``ProcessorSpec.reads`` says, or a mapping of arrays that are ready, input -> array without the
        batch axis.

        Raises:
            DataError: a sample cannot be read, or does not fit; the hint says what does.
        """

    def random(self, count: int, length: int = 0) -> Arrays:
        """A batch of the right shapes, types and ranges that means nothing, the same every time.

        ``length`` is that of axes that are free besides the batch, where there are such; 0: as is usual for it.
        """

    def truncated(self, samples: Sequence[Any]) -> int:
        """How many of the samples are longer than the model accepts, and are cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorSpec:
    """A kind of processor. Each model has a description of its own, which its bundle keeps: ``config``."""

    name: str
    summary: str
    modality: str  # "image", "text", "tabular", "audio": what "*" stands for in the name of a head's task
    reads: str  # what a sample may be, for errors and help: "image files (PNG, JPEG, WebP) or uint8 pixels"
    config: type[Any]  # a frozen dataclass of plain data: what a BackboneSpec has as its ``input``
    open: Callable[[Any, Mapping[str, Path]], Processor]  # (config, files of the model by name); imports in its body
    suffixes: tuple[str, ...] = ()  # of the files that are one sample each, lower case: (".wav", ".flac")
    files: Callable[[Any], tuple[str, ...]] | None = None  # names of the model's files that a config needs
