"""What drivers share: an artifact is graphs by name, and its ends are where what they give is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import ClassVar, TypeVar

import numpy as np

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import BundleError, DataError
from pocketzoo.zoo.bundles.manifest import MODEL
from pocketzoo.zoo.catalog.backend import Runner
from pocketzoo.zoo.catalog.signature import TensorSpec
from pocketzoo.zoo.catalog.specs import GenerationSpec

C = TypeVar("C")
Start = Callable[[Path], Runner]  # a graph, or what a back end built of it, to what runs it
Lengths = Mapping[str, tuple[int, int, int]]  # of free axes: least, usual and greatest


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """Graphs by name, or what a back end built of them, and what their driver has to know."""

    graphs: Mapping[str, Path]
    driver: str = "single"
    states: Mapping[str, str] = field(default_factory=dict)  # output -> the input that it is at the next call
    generation: GenerationSpec | None = None
    # Of graphs whose runs take one sample: input or output -> its axis of length 1 that stands for it; None: it has
    # none. Others have no such.
    run_axes: Mapping[str, int | None] | None = None

    def graph(self, name: str) -> Path:
        """The graph of that name.

        Raises:
            BundleError: there is none.
        """
        if name not in self.graphs:
            raise BundleError(
                f"the driver {self.driver!r} needs a graph {name!r}, and there is none",
                f"there are: {', '.join(self.graphs)}",
            )
        return self.graphs[name]


Graphs = Path | Artifact  # a graph by itself, or all that an artifact runs


def as_artifact(graph: Graphs) -> Artifact:
    """A graph as an artifact of it alone."""
    return graph if isinstance(graph, Artifact) else Artifact(graphs={MODEL: graph})


@dataclass(frozen=True)
class End:
    """A place where an artifact is measured, and the graphs on the way to it."""

    name: ClassVar[str] = ""  # "" for that of predict, eval and budgets; every artifact has it, and it comes first
    unit: ClassVar[str] = "sample"  # what times are of
    alone: ClassVar[bool] = False  # whether samples are to come one by one, not filled up to one length
    most: ClassVar[int | None] = None  # samples that are enough to measure on

    artifact: Artifact

    @property
    def graphs(self) -> tuple[str, ...]:
        """Those that run on the way, by name."""
        return tuple(self.artifact.graphs)

    def open(self, start: Start) -> Runner:
        """The graphs as one runner: from samples to what comes out at this end. Closing it closes them all.

        Raises:
            BundleError: a graph is missing, or they do not fit together.
        """
        raise NotImplementedError

    def calls(self, graph: str, samples: Iterable[Arrays], start: Start) -> Iterable[Arrays]:
        """What a graph reads while ``samples`` run to this end, for calibration; iterable as often as they are."""
        raise NotImplementedError

    def sample(self, inputs: Arrays) -> Arrays:
        """A sample as it is to be measured on here."""
        return inputs

    def following(self, inputs: Arrays, reference: Arrays) -> Arrays:
        """The inputs as another is to be given them, so that its outputs can be held against the ``reference``'s."""
        return inputs

    def timed(self, runner: Runner, inputs: Arrays) -> tuple[Callable[[], object], int]:
        """What to time on a sample, and how many of ``unit`` it does each time."""
        return partial(runner.infer, inputs), 1

    def lengths(self, graph: str, longest: int) -> Lengths:
        """Of axes that engines of a graph are to be built for, where that is known here, by their name."""
        return {}


@dataclass(frozen=True)
class Repeated:
    """An iterable that runs a function each time it is gone through: what a graph reads is too much to keep."""

    make: Callable[[], Iterable[Arrays]]

    def __iter__(self) -> Iterator[Arrays]:
        return iter(self.make())


class Composite:
    """A runner made of several: what they share."""

    def __init__(self, runners: Mapping[str, Runner]) -> None:
        self.runners = dict(runners)

    def close(self) -> None:
        """Give the memory of all back."""
        for runner in self.runners.values():
            runner.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def start_all(graphs: Mapping[str, Path], start: Start) -> dict[str, Runner]:
    """Each graph started; those that were are closed again where one does not."""
    with ExitStack() as stack:
        runners = dict[str, Runner]()
        for name, path in graphs.items():
            runners[name] = start(path)
            stack.callback(runners[name].close)
        stack.pop_all()
    return runners


def composed(runners: Mapping[str, Runner], make: Callable[[Mapping[str, Runner]], C]) -> C:
    """What ``make`` makes of runners and then owns; they are closed where it fails."""
    with ExitStack() as stack:
        for runner in runners.values():
            stack.callback(runner.close)
        made = make(runners)
        stack.pop_all()
    return made


def check_names(inputs: Arrays, known: Iterable[str], optional: Iterable[str] = ()) -> None:
    """Raises:
    DataError: an input is unknown, or one is missing that is not ``optional``.
    """
    names, more = tuple(known), tuple(optional)
    for name in inputs:
        if name not in names and name not in more:
            raise DataError(f"the model has no input {name!r}", f"its inputs: {', '.join(names)}")
    for name in names:
        if name not in inputs:
            raise DataError(f"the input {name!r} is missing", f"give all inputs: {', '.join(names)}")


def written(outputs: Arrays, out: Arrays | None) -> Arrays:
    """The outputs, with those that ``out`` has an array for put there.

    Raises:
        DataError: an array of ``out`` is for no output, or of another shape or type.
    """
    if out is None:
        return outputs
    for name, array in out.items():
        if name not in outputs:
            raise DataError(f"the model has no output {name!r}", f"its outputs: {', '.join(outputs)}")
        value = outputs[name]
        if (array.shape, array.dtype) != (value.shape, value.dtype):
            raise DataError(
                f"out for {name!r} is {array.dtype} of {array.shape}, the output is {value.dtype} of {value.shape}",
                "make it with numpy.empty",
            )
        np.copyto(array, value)
    return {**outputs, **out}


def batch_of(inputs: Arrays, specs: Iterable[TensorSpec]) -> int:
    """How many samples a batch has; 1 where no input has an axis for them."""
    for spec in specs:
        if spec.batch is not None and spec.name in inputs:
            return int(inputs[spec.name].shape[spec.batch])
    return 1
