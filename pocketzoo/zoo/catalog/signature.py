"""The signature of a model: what it reads and what it outputs, by name. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pocketzoo.core.errors import UnknownNameError, nearest

Dim = str | int  # a string names an axis of free length


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output: its name, type and axes."""

    name: str
    shape: tuple[Dim, ...]  # all axes, the batch included: ("batch", 3, 224, 224)
    dtype: str = "float32"  # numpy's name for it
    batch: int | None = 0  # which axis counts samples; None where no axis does
    feeds: str = ""  # of an output: the input that it is at the next call, which makes it a state

    def __post_init__(self) -> None:
        if self.batch is not None and not 0 <= self.batch < max(len(self.shape), 1):
            raise ValueError(f"{self.name!r} has no axis {self.batch}, its shape is {self.shape}")

    @property
    def sample_shape(self) -> tuple[Dim, ...]:
        """The axes of one sample, without that of the batch."""
        return tuple(dim for i, dim in enumerate(self.shape) if i != self.batch)

    @property
    def free(self) -> dict[int, str]:
        """The axes of free length by their place, that of the batch included."""
        return {i: dim for i, dim in enumerate(self.shape) if isinstance(dim, str)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSignature:
    """The named inputs and outputs of a graph or module, in its order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        for side, tensors in (("inputs", self.inputs), ("outputs", self.outputs)):
            names = [tensor.name for tensor in tensors]
            if len(set(names)) < len(names):
                raise ValueError(f"two {side} have one name: {', '.join(sorted(names))}")

    def input(self, name: str) -> TensorSpec:
        """The input of that name.

        Raises:
            UnknownNameError: there is none; the hint is the nearest.
        """
        return _named(self.inputs, name, "input")

    def output(self, name: str) -> TensorSpec:
        """The output of that name.

        Raises:
            UnknownNameError: there is none; the hint is the nearest.
        """
        return _named(self.outputs, name, "output")

    @property
    def batch_axes(self) -> dict[str, int | None]:
        """Input -> which of its axes counts samples; None where none does."""
        return {tensor.name: tensor.batch for tensor in self.inputs}

    @property
    def states(self) -> dict[str, str]:
        """Output -> the input that it is at the next call."""
        return {tensor.name: tensor.feeds for tensor in self.outputs if tensor.feeds}


BATCH = "batch"  # what the axis of samples is called in graphs
SAMPLES, ONE = "pocketzoo.samples", "one"  # a property of files of graphs whose runs take one sample, and its value


def signature_of_axes(
    inputs: Iterable[tuple[str, Sequence[Dim | None], str]], outputs: Iterable[tuple[str, Sequence[Dim | None], str]]
) -> ModelSignature:
    """A signature from name, axes and type of each tensor, as a runtime tells them; None is an axis without a name.

    Which axis counts samples is the one called ``BATCH``, wherever a side has one of that name; else the first one,
    where it is free. No state is known.
    """
    return ModelSignature(inputs=_specs(inputs), outputs=_specs(outputs))


def without_samples(signature: ModelSignature) -> ModelSignature:
    """The signature of a graph that no axis counts samples of."""
    inputs, outputs = (
        tuple(replace(tensor, batch=None) for tensor in side) for side in (signature.inputs, signature.outputs)
    )
    return replace(signature, inputs=inputs, outputs=outputs)


def _specs(tensors: Iterable[tuple[str, Sequence[Dim | None], str]]) -> tuple[TensorSpec, ...]:
    given = [(name, tuple(axes), dtype) for name, axes, dtype in tensors]
    named = any(BATCH in axes for _, axes, _ in given)
    specs = []
    for name, axes, dtype in given:
        shape = tuple(dim if dim is not None and dim != "" else f"{name}_{i}" for i, dim in enumerate(axes))
        first = 0 if shape and isinstance(shape[0], str) else None
        batch = (shape.index(BATCH) if BATCH in shape else None) if named else first
        specs.append(TensorSpec(name=name, shape=shape, dtype=dtype, batch=batch))
    return tuple(specs)


def _named(tensors: Iterable[TensorSpec], name: str, side: str) -> TensorSpec:
    known = {tensor.name: tensor for tensor in tensors}
    if name not in known:
        raise UnknownNameError(f"the model has no {side} {name!r}", nearest(name, known))
    return known[name]
