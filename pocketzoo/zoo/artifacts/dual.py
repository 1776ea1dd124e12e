"""The driver ``dual``: two encoders whose embeddings are of one space, as CLIP's of images and texts are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import BundleError, DataError
from pocketzoo.zoo.artifacts.driver import Artifact, Composite, End, Repeated, Start, composed, start_all, written
from pocketzoo.zoo.catalog.backend import Runner
from pocketzoo.zoo.catalog.signature import ModelSignature, TensorSpec

SIMILARITY = "similarity"
LEAST = 1e-12  # of a length, below which nothing is divided by it


class DualRunner(Composite):
    """Two encoders as one model: the inputs of both, each one's embedding by its name, and their cosines.

    Embeddings (B, channels) have length 1. ``similarity`` (B of the first, B of the second) is the cosine of each of
    the first with each of the second. An input that both have is called ``ENCODER.INPUT``. Where the inputs of one
    encoder are left out it does not run, and its embedding and the cosines are left out too.
    """

    def __init__(self, runners: Mapping[str, Runner]) -> None:
        """Take over the runner of each encoder.

        Raises:
            BundleError: their embeddings are not of one space.
        """
        super().__init__(runners)
        self.names = input_names({name: runner.signature for name, runner in runners.items()})
        self.embeddings = {name: _embedding(name, runner.signature) for name, runner in runners.items()}
        (one, first), (other, second) = self.embeddings.items()
        if first.shape[1] != second.shape[1] and isinstance(first.shape[1], int) and isinstance(second.shape[1], int):
            raise BundleError(
                f"the embeddings of {one!r} have {first.shape[1]} channels, those of {other!r} {second.shape[1]}",
                "give two encoders that were trained together",
            )
        self._signature = _signature(runners, self.names, self.embeddings)

    @property
    def signature(self) -> ModelSignature:
        """Of both."""
        return self._signature

    def infer(self, inputs: Arrays, out: Arrays | None = None) -> Arrays:
        """Run the encoders whose inputs are there.

        Raises:
            DataError: an input is unknown, or one of an encoder is missing; or as the encoders'.
        """
        known = {name for names in self.names.values() for name in names.values()}
        if unknown := [name for name in inputs if name not in known]:
            raise DataError(f"the model has no input {unknown[0]!r}", f"its inputs: {', '.join(sorted(known))}")
        outputs: dict[str, npt.NDArray[Any]] = {}
        for encoder, names in self.names.items():
            own = {name: inputs[called] for name, called in names.items() if called in inputs}
            if own:
                answer = self.runners[encoder].infer(own)[self.embeddings[encoder].name]
                outputs[encoder] = answer / np.maximum(np.linalg.norm(answer, axis=-1, keepdims=True), LEAST)
        if not outputs:
            raise DataError("there are no inputs", f"give those of an encoder: {', '.join(sorted(known))}")
        if len(outputs) == 2:
            first, second = outputs.values()
            outputs[SIMILARITY] = first @ second.T
        return written(outputs, out)

    def __enter__(self) -> DualRunner:
        return self


class DualEnd(End):
    """Both embeddings and their cosines."""

    def open(self, start: Start) -> DualRunner:
        if len(self.artifact.graphs) != 2:
            raise BundleError(
                f"the driver 'dual' runs two graphs, and there are {len(self.artifact.graphs)}",
                f"give the two encoders alone, not {', '.join(self.artifact.graphs)}",
            )
        return composed(start_all(self.artifact.graphs, start), DualRunner)

    def calls(self, graph: str, samples: Iterable[Arrays], start: Start) -> Iterable[Arrays]:
        with self.open(start) as runner:
            names = runner.names[graph]

        def own() -> Iterable[Arrays]:
            for sample in samples:
                part = {name: sample[called] for name, called in names.items() if called in sample}
                if part:
                    yield part

        return Repeated(own)


def ends(artifact: Artifact) -> tuple[End, ...]:
    """Its one end."""
    return (DualEnd(artifact),)


def input_names(signatures: Mapping[str, ModelSignature]) -> dict[str, dict[str, str]]:
    """What each encoder's inputs are called in the two as one: encoder -> its own name -> that."""
    names = [each.name for signature in signatures.values() for each in signature.inputs]
    return {
        encoder: {i.name: f"{encoder}.{i.name}" if names.count(i.name) > 1 else i.name for i in signature.inputs}
        for encoder, signature in signatures.items()
    }


def _embedding(encoder: str, signature: ModelSignature) -> TensorSpec:
    """The first output that is a row of numbers for each sample."""
    for output in signature.outputs:
        if len(output.shape) == 2 and output.batch == 0 and output.dtype.startswith("float"):
            return output
    shapes = "; ".join(f"{o.name} {o.dtype} {o.shape}" for o in signature.outputs)
    raise BundleError(
        f"the encoder {encoder!r} outputs no embedding: {shapes}", "give a graph that outputs (B, channels)"
    )


def _signature(
    runners: Mapping[str, Runner], names: Mapping[str, Mapping[str, str]], embeddings: Mapping[str, TensorSpec]
) -> ModelSignature:
    inputs, outputs, axes = [], [], []
    for encoder, runner in runners.items():
        for spec in runner.signature.inputs:
            inputs.append(TensorSpec(
                name=names[encoder][spec.name], shape=spec.shape, dtype=spec.dtype, batch=spec.batch
            ))  # fmt: skip
        spec = embeddings[encoder]
        outputs.append(TensorSpec(name=encoder, shape=spec.shape, dtype=spec.dtype))
        axes.append(spec.shape[0])
    # The second axis counts samples of the other encoder: any number, whatever the first is.
    across = f"{axes[1]}_other" if isinstance(axes[1], str) and axes[1] == axes[0] else axes[1]
    outputs.append(TensorSpec(name=SIMILARITY, shape=(axes[0], across)))
    return ModelSignature(inputs=tuple(inputs), outputs=tuple(outputs))
