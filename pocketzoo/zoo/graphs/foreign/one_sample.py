"""Graphs without an axis for samples: each sample is a run of its own, and the file says so.

A graph may mix the samples of a batch on purpose, have one of one sample fixed inside, or no axis for samples at all.
What is said here is read wherever the signature of a graph is: in a property of the file, since a free first axis
would be taken for that of samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pocketzoo.zoo.catalog.signature import BATCH, ModelSignature, TensorSpec

CALLED = ("batch", "batch_size", "n", "b", "bs")  # what exporters call the axis of samples


def sample_axis(tensor: TensorSpec) -> int | None:
    """Of an input, which axis has length 1 as a run takes one sample; None: a sample is all of it."""
    first = tensor.shape[0] if tensor.shape else 0
    unnamed = first == f"{tensor.name}_0"
    return 0 if first == 1 or unnamed or (isinstance(first, str) and first.lower() in CALLED) else None


def over_samples(signature: ModelSignature) -> ModelSignature:
    """The signature of several samples that are run one by one, of that of one run.

    Along the axis of a tensor that counts samples a run has one; what has no such axis gets one, the first.
    """
    return ModelSignature(
        inputs=tuple(map(_counted, signature.inputs)), outputs=tuple(map(_counted, signature.outputs))
    )


def with_run_axes(signature: ModelSignature, axes: Mapping[str, int | None]) -> ModelSignature:
    """The signature of a run with the axes that stand for its sample."""
    inputs, outputs = (
        tuple(replace(tensor, batch=axes.get(tensor.name)) for tensor in side)
        for side in (signature.inputs, signature.outputs)
    )
    return replace(signature, inputs=inputs, outputs=outputs)


def run_axes(signature: ModelSignature) -> Mapping[str, int | None]:
    """Input or output -> its axis of length 1 that stands for the sample of a run; None where there is none."""
    return {tensor.name: tensor.batch for tensor in (*signature.inputs, *signature.outputs)}


def _counted(tensor: TensorSpec) -> TensorSpec:
    if tensor.batch is None:
        return replace(tensor, shape=(BATCH, *tensor.shape), batch=0)
    return replace(tensor, shape=tuple(BATCH if i == tensor.batch else dim for i, dim in enumerate(tensor.shape)))
