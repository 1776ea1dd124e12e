"""Graphs whose runs take one sample: several are run one by one, and come out as a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import DataError
from pocketzoo.zoo.artifacts.driver import Composite, End, Lengths, Repeated, Start, batch_of, check_names, written
from pocketzoo.zoo.bundles.manifest import MODEL
from pocketzoo.zoo.catalog.backend import Runner
from pocketzoo.zoo.catalog.signature import ModelSignature
from pocketzoo.zoo.graphs.foreign.one_sample import over_samples, with_run_axes

RunAxes = Mapping[str, int | None]


class OneByOneRunner(Composite):
    """A graph that runs one sample as a model of batches: inputs and outputs have an axis for samples.

    That is the one of length 1 that a run has for it, else a new one, the first.
    """

    def __init__(self, runner: Runner, run_axes: RunAxes) -> None:
        """Take over the runner. ``run_axes``: see ``Artifact``."""
        super().__init__({MODEL: runner})
        self._runner, self._axes = runner, run_axes
        self._signature = over_samples(with_run_axes(runner.signature, run_axes))

    @property
    def signature(self) -> ModelSignature:
        """Of a batch of samples."""
        return self._signature

    def infer(self, inputs: Arrays, out: Arrays | None = None) -> Arrays:
        """Run each sample, and put the outputs together.

        An output that has another shape for each sample, such as the boxes of a detector, is an array (N,) of objects:
        that of each sample, without an axis for it.

        Raises:
            DataError: an input is missing or unknown, or has another number of samples.
        """
        runs = [self._runner.infer(feed) for feed in feeds(inputs, self._signature, self._axes)]
        outputs: dict[str, npt.NDArray[Any]] = {}
        for name in (tensor.name for tensor in self._signature.outputs):
            values, axis = [run[name] for run in runs], self._axes.get(name)
            if len({value.shape for value in values}) > 1:
                outputs[name] = np.empty(len(values), object)
                for row, value in enumerate(values):
                    outputs[name][row] = value if axis is None else value.take(0, axis)
            else:
                outputs[name] = np.stack(values) if axis is None else np.concatenate(values, axis)
        return written(outputs, out)

    def __enter__(self) -> OneByOneRunner:
        return self


@dataclass(frozen=True)
class OneByOneEnd(End):
    """The end of another driver, all of whose runs take one sample."""

    end: End

    @property
    def graphs(self) -> tuple[str, ...]:
        return self.end.graphs

    def open(self, start: Start) -> Runner:
        return self._own.open(self._started(start))

    def calls(self, graph: str, samples: Iterable[Arrays], start: Start) -> Iterable[Arrays]:
        axes = self.artifact.run_axes or {}

        def each() -> Iterator[Arrays]:
            for batch in self._own.calls(graph, samples, self._started(start)):
                count = max((x.shape[axes.get(name) or 0] for name, x in batch.items()), default=1)
                for row in range(count):
                    yield {name: _sample(x, axes.get(name), row) for name, x in batch.items()}

        return Repeated(each)

    def timed(self, runner: Runner, inputs: Arrays) -> tuple[Callable[[], object], int]:
        return self.end.timed(runner, inputs)

    def lengths(self, graph: str, longest: int) -> Lengths:
        return self.end.lengths(graph, longest)

    @property
    def _own(self) -> End:
        """The end of its artifact: one that was put in place of another's has other graphs."""
        return replace(self.end, artifact=self.artifact)

    def _started(self, start: Start) -> Start:
        def one_by_one(path: Path) -> Runner:
            return OneByOneRunner(start(path), self.artifact.run_axes or {})

        return one_by_one


def feeds(inputs: Arrays, signature: ModelSignature, run_axes: RunAxes) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """What a graph reads in the run of each sample of a batch.

    Raises:
        DataError: an input is missing or unknown, or has another number of samples.
    """
    names = [tensor.name for tensor in signature.inputs]
    check_names(inputs, names)
    count = batch_of(inputs, signature.inputs)
    for tensor in signature.inputs:
        x = inputs[tensor.name]
        if x.ndim != len(tensor.shape) or x.shape[tensor.batch or 0] != count:
            raise DataError(
                f"input {tensor.name!r} is {x.shape}, the model expects {tensor.shape}", "reshape the input"
            )
    for row in range(count):
        yield {name: _sample(inputs[name], run_axes.get(name), row) for name in names}


def _sample(x: npt.NDArray[Any], axis: int | None, row: int) -> npt.NDArray[Any]:
    """One of a batch, as a run reads it."""
    return np.asarray(x[row]) if axis is None else np.ascontiguousarray(x.take([row], axis))
