"""Calibration samples as torch tensors, in batches of a given size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from pocketzoo.core.arrays import Array
from pocketzoo.core.errors import DataError


def first_batch(samples: Iterable[Array], size: int = 2) -> Tensor:
    """Two samples, for tracing."""
    batch = next((torch.from_numpy(batch)[:size] for batch in samples), None)
    if batch is None:
        raise DataError("there are no samples to calibrate on", "give a data set with a training split")
    return batch if len(batch) == size else batch.repeat(size, *[1] * (batch.ndim - 1))[:size]


def parts(samples: Iterable[Array], size: int, count: int | None = None) -> Iterator[Tensor]:
    """The samples in batches of ``size`` at most, ``count`` in all: memory is that of a batch's activations."""
    left = count if count is not None else -1
    for batch in samples:
        if left == 0:
            return
        taken = torch.from_numpy(batch) if left < 0 else torch.from_numpy(batch)[:left]
        left = left if left < 0 else left - len(taken)
        yield from (taken[i : i + size] for i in range(0, len(taken), size))
