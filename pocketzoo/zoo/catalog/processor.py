"""Processors: how what a person has becomes the named inputs of a model. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pocketzoo.zoo.catalog.signature import TensorSpec

if TYPE_CHECKING:
    from pocketzoo.core.arrays import Arrays
    from pocketzoo.zoo.catalog.dataset import Dataset
    from pocketzoo.zoo.catalog.processor_configs import TableSpec
    from pocketzoo.zoo.catalog.specs import InputSpec, TextSpec

Missing = Literal["", "mean", "median"]


class Processor(Protocol):
    """A processor that was opened. In numpy, without torch: the device runs it too.

    Its execution is the reference: whatever else does the same (a graph of Triton's) equals it to 1e-5. Start from
    ``zoo.data.processors.base.ProcessorBase``, which needs ``inputs`` and ``row`` alone. One that reads several images
    may also have ``images``, what each of them is like: augmentation changes all of a sample in the same way.
    """

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs of the model that it makes, in the model's order."""

    @property
    def lengths(self) -> tuple[int, int] | None:
        """The least and the most of the free axis besides the batch, such as tokens; None where none is free."""

    @property
    def image(self) -> InputSpec | None:
        """What the input is like that is an image, for augmentation and contact sheets; None where none is."""

    @property
    def text(self) -> TextSpec | None:
        """What the input is like that is token ids, for what works on tokens; None where none is."""

    @property
    def table(self) -> TableSpec | None:
        """What a sample is like that is a row of a table, for what reads tables; None where it is none."""

    def __call__(self, samples: Sequence[Any]) -> Arrays:
        """A batch: each input with its batch axis, filled up where samples differ in length.

        A sample is what ``ProcessorSpec.reads`` says, or a mapping of arrays that are ready, input -> array without the
        batch axis.

        Raises:
            DataError: a sample cannot be read, or does not fit; the hint says what does.
        """

    def batch(self, given: Any) -> Arrays:
        """What a caller of ``Runtime.predict`` has as a batch: one sample, several, or arrays that are ready.

        The same file, bytes or array gives the same inputs as in ``__call__``. Arrays that fit are not copied.

        Raises:
            DataError: as ``__call__``; or arrays are not as the model reads them.
        """

    def sample(self, argument: str | Path) -> Any:
        """The sample that an argument of the command line stands for: mostly a file."""

    def reads(self, dataset: Dataset) -> Dataset:
        """The data set with its samples as this reads them: columns of a table by name, in its order.

        Raises:
            DataError: they cannot be.
        """

    def random(self, count: int, length: int = 0) -> Arrays:
        """A batch of the right shapes, types and ranges that means nothing, the same every time.

        ``length`` is that of axes that are free besides the batch, where there are such; 0: rows of different lengths,
        of which the longest depends on ``count``.
        """

    def truncated(self, samples: Sequence[Any]) -> int:
        """How many of the samples are longer than the model accepts, and are cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSamples:
    """The training split, for what a processor learns of it before the model does."""

    samples: Sequence[Any]
    columns: tuple[str, ...] = ()  # of rows: what each number is, where that is known
    missing: Missing = ""  # of the values of a column, what stands for one that a row lacks; "": nothing does
    pretrained: bool = False  # the backbone is, so that what it reads stays what it learned from


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignInputs:
    """Inputs of a graph that does not say how they are made of samples, and what a user said of them."""

    inputs: tuple[TensorSpec, ...]
    source: str = ""  # the file that the graph is of, for errors
    mean: tuple[float, ...] = ()  # per channel, in units of value_range; () is not known
    std: tuple[float, ...] = ()
    value_range: tuple[float, float] = (0.0, 1.0)  # of pixels
    size: int | None = None  # pixels a side, where the graph takes any and both are of one length
    sides: tuple[int, int] | None = None  # (height, width) in pixels, of the same
    tokenizer: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorSpec:
    """A kind of processor. Each model has a description of its own, which its bundle keeps: ``config``."""

    name: str
    summary: str
    modality: str  # "image", "text", "tabular", "audio": what "*" stands for in the name of a head's task
    reads: str  # what a sample may be, for errors and help: "image files (PNG, JPEG, WebP) or uint8 pixels"
    config: type[Any]  # a frozen dataclass of plain data: what a BackboneSpec has as its ``input``
    # (config, files of the model by name); imports in its body. One with ``parts`` takes those, opened, as a third.
    open: Callable[..., Processor]
    argument: str = ""  # of ``pocketzoo predict``, for documents: "PHOTO.jpg"; "": it takes none
    suffixes: tuple[str, ...] = ()  # of the files that are one sample each, lower case: (".wav", ".flac")
    files: Callable[[Any], tuple[str, ...]] | None = None  # names of the model's files that a config needs
    parts: str = ""  # the field of a config that has configs of other processors, by the field of a sample they read
    # The config for what an older bundle, or plugin, has as its ``input``; None for what is not this processor's.
    earlier: Callable[[Mapping[str, Any]], Any] | None = None
    # (config, (height, width)) -> the config for images of another size; None where nothing has a size in pixels.
    resized: Callable[[Any, tuple[int, ...]], Any] | None = None
    # The config that makes all inputs of a foreign graph; None where they are not what this makes. Asked of every
    # processor: where several could, the arrays are read as they are.
    feeds: Callable[[ForeignInputs], Any] | None = None
    # (config, TrainingSamples) -> the config with what it learns of them, such as the mean of each column; by ``fit``.
    fit: Callable[[Any, TrainingSamples], Any] | None = None
    # (config, path) writes the same as an ONNX graph, for servers that run nothing else; raises UnsupportedModelError.
    graph: Callable[[Any, Path], None] | None = None
    # (config, folder) -> samples that were made up, in every form it reads, files in the folder among them. For the
    # conformance suite; those of one form are not the same.
    example: Callable[[Any, Path], Sequence[Any]] | None = None
