"""Reproducible random samples, where only their shape matters."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import Array
from pocketzoo.zoo.catalog.specs import Input, TextSpec

TOKENS = 64  # of a text, at most


def random_samples(spec: Input, count: int) -> Array:
    """Samples of the right shape that mean nothing: normal numbers, or texts of ``TOKENS`` at most."""
    if isinstance(spec, TextSpec):
        return random_ids(spec, count, min(TOKENS, spec.max_length))
    return np.random.default_rng(0).normal(size=(count, *spec.size)).astype(np.float32)


def random_ids(spec: TextSpec, count: int, length: int) -> Array:
    """Token ids (count, length) without padding."""
    ids: npt.NDArray[Any] = np.random.default_rng(0).integers(0, max(spec.vocabulary, 2), (count, length))
    return np.where(ids == spec.pad, (spec.pad + 1) % max(spec.vocabulary, 2), ids)
