"""What a module is called with: tensors by the names of its inputs, in its order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

TensorInputs = Mapping[str, "Tensor"]
Axes = Mapping[str, int | None]  # which axis of each input counts samples; None: it is for all of them


def call(module: nn.Module, inputs: Tensor | TensorInputs) -> Any:
    """What a module makes of its inputs, or of its one input."""
    return module(*inputs.values()) if isinstance(inputs, Mapping) else module(inputs)


def to_device(inputs: TensorInputs, device: torch.device | str) -> dict[str, Tensor]:
    """The inputs on a device."""
    return {name: x.to(device) for name, x in inputs.items()}


def rows_of(inputs: TensorInputs, which: slice | Sequence[int] | Tensor, axes: Axes | None = None) -> dict[str, Tensor]:
    """Some samples of a batch, along the first axis of each input or that of ``axes``."""
    places = {name: (axes or {}).get(name, 0) for name in inputs}
    return {name: x if (a := places[name]) is None else x[(*[slice(None)] * a, which)] for name, x in inputs.items()}
