"""What is done with the vector of a sentence after pooling, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear layer after the pooling, and its activation."""

    inputs: int
    outputs: int
    bias: bool = True
    activation: str = "tanh"  # "": none
