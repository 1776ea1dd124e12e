"""Reproducible random samples, where only their shape matters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.processor import Processor
from pocketzoo.zoo.catalog.signature import TensorSpec
from pocketzoo.zoo.data.processors.open_processor import as_processor

TOKENS = 64  # of a free axis, such as tokens of a text, where nobody says how long it is


def random_samples(reads: Any, count: int, length: int | None = None) -> Arrays:
    """A batch that means nothing, for a processor or the config of one.

    All samples are equally long where they have a length: ``length``, else ``TOKENS``.

    Raises:
        DataError: the model has no lengths, or not this one.
    """
    processor = as_processor(reads)
    if length is not None:
        check_lengths(processor, [length])
    usual = 0 if processor.lengths is None else min(max(TOKENS, processor.lengths[0]), processor.lengths[1])
    return processor.random(count, usual if length is None else length)


def sample_of(batch: Arrays, row: int, inputs: Sequence[TensorSpec]) -> Arrays:
    """One sample of a batch, without the batch axis."""
    return {t.name: batch[t.name] if t.batch is None else batch[t.name].take(row, axis=t.batch) for t in inputs}


def check_lengths(processor: Processor, lengths: list[int]) -> None:
    """Raises:
    DataError: the model has no lengths, or not these.
    """
    if processor.lengths is None:
        raise DataError("the input of this model has one length", "leave out --length")
    least, most = processor.lengths
    if not least <= min(lengths) <= max(lengths) <= most:
        raise DataError(f"this model reads lengths of {least} to {most}, such as tokens", "give other lengths")
