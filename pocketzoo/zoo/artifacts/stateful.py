"""The driver ``stateful``: a graph with outputs that are inputs of its next call, such as the state of an LSTM."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import BundleError, DataError
from pocketzoo.zoo.artifacts.driver import (
    Artifact,
    Composite,
    End,
    Repeated,
    Start,
    batch_of,
    check_names,
    composed,
    written,
)
from pocketzoo.zoo.bundles.manifest import MODEL
from pocketzoo.zoo.catalog.backend import Runner
from pocketzoo.zoo.catalog.signature import ModelSignature, TensorSpec
from pocketzoo.zoo.graphs.states import CALLS, calls_axis, check_states, growing_axes, over_calls


class Stream:
    """One stream of calls, or a batch of them side by side, whose state is kept from each to the next."""

    def __init__(self, runner: Runner, states: Mapping[str, str], began_with: Arrays | None = None) -> None:
        """``states``: output -> input. ``began_with`` are states by input, where they do not begin with zeros."""
        self._runner, self._states = runner, states
        self._growing = growing_axes(runner.signature, states)
        self._began_with = dict(began_with or {})
        self.state: dict[str, npt.NDArray[Any]] = dict(self._began_with)

    def reset(self) -> None:
        """Forget all calls: the next one begins another sequence."""
        self.state = dict(self._began_with)

    def inputs(self, inputs: Arrays) -> Arrays:
        """What the graph reads at this call: the inputs, and the state."""
        signature = self._runner.signature
        fed = set(self._states.values())
        specs = [spec for spec in signature.inputs if spec.name not in fed]
        check_names(inputs, [spec.name for spec in specs])
        batch = batch_of(inputs, specs)
        for spec in signature.inputs:
            if spec.name not in fed:
                continue
            known = self.state.get(spec.name)
            if known is None:
                self.state[spec.name] = zeros(spec, batch, self._growing.get(spec.name))
            elif spec.batch is not None and known.shape[spec.batch] != batch:
                raise DataError(
                    f"a batch of {batch} follows one of {known.shape[spec.batch]}, whose state {spec.name!r} is kept",
                    "reset between sequences, or continue with the same number of them",
                )
        return {**inputs, **self.state}

    def infer(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """One call: the outputs, without those that are states.

        Raises:
            DataError: an input is missing or unknown, or of another number of samples than the call before.
            BundleError: a state that begins with length 0 keeps it.
        """
        outputs = self._runner.infer(self.inputs(inputs))
        self.state = {fed: outputs[name] for name, fed in self._states.items()}
        for fed, axis in self._growing.items():
            if not self.state[fed].shape[axis]:
                raise BundleError(
                    f"the state {fed!r} begins with length 0 along axis {axis}, and no call makes it longer",
                    f"export it with a fixed length of axis {axis}",
                )
        return {name: value for name, value in outputs.items() if name not in self._states}


class StatefulRunner(Composite):
    """A graph as a model of whole sequences: each begins with a state of its own, zeros where none is given.

    Inputs that count samples have an axis ``calls`` after that of the batch, outputs likewise; the others are the same
    for all calls. A state may be given as an input, to begin with; each is an output too, as it is after the last call.
    """

    def __init__(self, runner: Runner, states: Mapping[str, str]) -> None:
        """Take over the runner.

        Raises:
            BundleError: the graph has no such input or output, or none that a call gets anew.
        """
        super().__init__({MODEL: runner})
        self._runner, self._states = runner, dict(states)
        check_states(runner.signature, states)
        self._signature = over_calls(runner.signature, states)
        if not any(CALLS in spec.shape for spec in self._signature.inputs):
            raise BundleError("no input of the graph is another at each call", "give states for some inputs only")

    @property
    def signature(self) -> ModelSignature:
        """Of a batch of sequences."""
        return self._signature

    def stream(self) -> Stream:
        """For calls that come one by one."""
        return Stream(self._runner, self._states)

    def infer(self, inputs: Arrays, out: Arrays | None = None) -> Arrays:
        """Run sequences from their beginning.

        Raises:
            DataError: an input is missing or unknown, or sequences differ in length.
            BundleError: an output has another shape at each call.
        """
        stream, calls = self._begin(inputs)
        kept: dict[str, list[npt.NDArray[Any]]] = {}
        for call in calls:
            for name, value in stream.infer(call).items():
                kept.setdefault(name, []).append(value)
        outputs: dict[str, npt.NDArray[Any]] = {}
        for spec in self._runner.signature.outputs:
            if spec.name in self._states:
                outputs[spec.name] = stream.state[self._states[spec.name]]
                continue
            shapes = list(dict.fromkeys(value.shape for value in kept[spec.name]))
            if len(shapes) > 1:
                raise BundleError(
                    f"the output {spec.name!r} has another shape at each call, {shapes[0]} and then {shapes[1]}",
                    "export the model without it",
                )
            outputs[spec.name] = np.stack(kept[spec.name], calls_axis(spec))
        return written(outputs, out)

    def graph_inputs(self, inputs: Arrays) -> Iterator[Arrays]:
        """What the graph reads at each call of sequences, states included."""
        stream, calls = self._begin(inputs)
        for call in calls:
            yield {name: np.asarray(value, order="C") for name, value in stream.inputs(call).items()}
            stream.infer(call)

    def _begin(self, inputs: Arrays) -> tuple[Stream, list[dict[str, npt.NDArray[Any]]]]:
        fed = set(self._states.values())
        own = {spec.name: spec for spec in self._runner.signature.inputs if spec.name not in fed}
        check_names(inputs, own, fed)
        axes = {name: calls_axis(spec) for name, spec in own.items() if spec.batch is not None}
        lengths = {name: inputs[name].shape[axis] if inputs[name].ndim > axis else -1 for name, axis in axes.items()}
        if len(set(lengths.values())) > 1 or min(lengths.values()) < 1:
            shapes = ", ".join(f"{name} {inputs[name].shape}" for name in axes)
            raise DataError(
                f"these are not sequences of one length: {shapes}",
                f"give each with an axis of calls after that of the batch: {self._shapes()}",
            )
        began_with = {name: inputs[name] for name in fed if name in inputs}
        count = next(iter(lengths.values()))
        calls = [
            {
                name: np.asarray(np.take(inputs[name], i, axes[name]), order="C") if name in axes else inputs[name]
                for name in own
            }
            for i in range(count)
        ]
        return Stream(self._runner, self._states, began_with), calls

    def _shapes(self) -> str:
        return ", ".join(f"{spec.name} {spec.shape}" for spec in self._signature.inputs if CALLS in spec.shape)

    def __enter__(self) -> StatefulRunner:
        return self


class StatefulEnd(End):
    """The outputs of all calls of a sequence, and the states after the last: errors add up in them."""

    unit = "call"

    @property
    def graphs(self) -> tuple[str, ...]:
        return (MODEL,)

    def open(self, start: Start) -> StatefulRunner:
        runners = {MODEL: start(self.artifact.graph(MODEL))}
        return composed(runners, lambda started: StatefulRunner(started[MODEL], self.artifact.states))

    def calls(self, graph: str, samples: Iterable[Arrays], start: Start) -> Iterable[Arrays]:
        def each() -> Iterator[Arrays]:
            with self.open(start) as runner:
                for sample in samples:
                    yield from runner.graph_inputs(sample)

        return Repeated(each)

    def timed(self, runner: Runner, inputs: Arrays) -> tuple[Callable[[], object], int]:
        calls = max(
            inputs[spec.name].shape[spec.shape.index(CALLS)]
            for spec in runner.signature.inputs
            if CALLS in spec.shape and spec.name in inputs
        )
        return super().timed(runner, inputs)[0], calls


def ends(artifact: Artifact) -> tuple[End, ...]:
    """Its one end."""
    return (StatefulEnd(artifact),)


def zeros(spec: TensorSpec, batch: int, growing: int | None = None) -> npt.NDArray[Any]:
    """What a state begins as: of length 0 along the axis that is ``growing``.

    Raises:
        BundleError: another axis that no sample counts is free.
    """
    shape = [batch if i == spec.batch else 0 if i == growing else dim for i, dim in enumerate(spec.shape)]
    if free := [i for i, dim in enumerate(shape) if isinstance(dim, str)]:
        axes = " and ".join(f"{i} ({spec.shape[i]!r})" for i in free)
        raise BundleError(
            f"the state {spec.name!r} is of {spec.shape}, which says no size of axis {axes}",
            "export it with that length; or where it grows with each call, with the axis named otherwise in the output",
        )
    return np.zeros([int(dim) for dim in shape], spec.dtype)
