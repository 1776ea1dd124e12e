"""Calibration samples as torch tensors, in batches of a given size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from pocketzoo.core.arrays import Arrays, named
from pocketzoo.core.errors import DataError
from pocketzoo.zoo.data.grouping.left_out import held_out

Inputs = tuple[Tensor, ...]  # a batch of what a module reads: ``module(*inputs)``; samples are along the first axes


def as_tensors(batch: Arrays) -> Inputs:
    """A batch as the arguments of a module, in its order."""
    return tuple(torch.from_numpy(x) for x in named(batch).values())


def size_of(batch: Inputs) -> int:
    """How many samples it has."""
    return len(batch[0])


def take(batch: Inputs, which: slice | Tensor) -> Inputs:
    """Some of its samples."""
    return tuple(x[which] for x in batch)


def first_batch(samples: Iterable[Arrays], size: int = 2) -> Inputs:
    """Two samples, for tracing."""
    batch = next((take(as_tensors(batch), slice(size)) for batch in samples), None)
    if batch is None:
        raise DataError("there are no samples to calibrate on", "give a data set with a training split")
    if size_of(batch) == size:
        return batch
    return tuple(x.repeat(size, *[1] * (x.ndim - 1))[:size] for x in batch)


def held_out_of(samples: Iterable[Arrays], one_in: int, count: int | None = None) -> Tensor | None:
    """Which samples to hold out (N,), one in so many, with whole sources (photos, documents) on each side.

    ``count``: of the first so many samples; None: of all. None where the samples do not say what they are of, or that
    cannot be: then each counts as its own source.
    """
    ids = getattr(samples, "groups", None)
    held = None if ids is None else held_out(ids[:count], len(ids[:count]), one_in)
    return None if held is None else torch.from_numpy(held)


def parts(samples: Iterable[Arrays], size: int, count: int | None = None) -> Iterator[Inputs]:
    """The samples in batches of ``size`` at most, ``count`` in all: memory is that of a batch's activations."""
    left = count if count is not None else -1
    for batch in samples:
        if left == 0:
            return
        taken = as_tensors(batch) if left < 0 else take(as_tensors(batch), slice(left))
        left = left if left < 0 else left - size_of(taken)
        yield from (take(taken, slice(i, i + size)) for i in range(0, size_of(taken), size))
