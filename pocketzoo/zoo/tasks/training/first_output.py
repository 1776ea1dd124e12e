"""The output that a loss of one tensor is of."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def first(outputs: Mapping[str, Tensor]) -> Tensor:
    """The first output, whatever it is called."""
    return next(iter(outputs.values()))
