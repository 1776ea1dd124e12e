"""What a module returns, as named outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pocketzoo.core.errors import UnsupportedModelError

ONLY = "logits"  # what the output of a module that returns one tensor is called


def outputs_of(out: Any) -> dict[str, Tensor]:
    """The outputs of a module by name, in its order: those of a mapping of tensors, or the one tensor as ``ONLY``.

    Raises:
        UnsupportedModelError: it is neither.
    """
    if isinstance(out, Tensor):
        return {ONLY: out}
    if not isinstance(out, Mapping) or not out:
        raise UnsupportedModelError(
            f"the model returns a {type(out).__name__}, not one tensor",
            "return one tensor, or a dict of tensors by the names of the outputs",
        )
    for name, value in out.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UnsupportedModelError(
                f"the model's output {name!r} is a {type(value).__name__}, not a tensor",
                "return tensors by their names",
            )
    return dict(out)


def float_outputs(out: Any) -> dict[str, Tensor]:
    """Those of ``outputs_of`` that are floating point: what has a distance, and a gradient."""
    return {name: value for name, value in outputs_of(out).items() if value.is_floating_point()}
