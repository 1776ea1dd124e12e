"""What a bundle keeps of its decoder. Standard library only: plugins name these where they declare specs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pocketzoo.core.errors import check_field


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputConfig:
    """One output of a model is read."""

    output: str = ""  # its name; "" is the first


@dataclass(frozen=True, slots=True, kw_only=True)
class SigmoidConfig:
    """Each number of an output (B, labels) becomes a probability."""

    output: str = ""  # its name; "" is the first
    threshold: float = 0.5  # from which probability on a label is said, above 0 and below 1

    def __post_init__(self) -> None:
        check_field(self, "threshold", 0.0 < self.threshold < 1.0, "above 0 and below 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenConfig:
    """An output (B, T, ...) has something for each token.

    Tokens are where the input ``mask`` is not 0, or where there is none, where ``ids`` are not ``pad``.
    """

    output: str = ""  # its name; "" is the first
    mask: str = "attention_mask"  # an input (B, T)
    ids: str = ""  # an input (B, T) of token ids; "" is the first
    pad: int | None = None  # the id that no token has; None: nothing is padded


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionConfig:
    """An output of three axes or more, such as (B, classes, H, W), has a score for each class at each position."""

    output: str = ""  # its name; "" is the first
    axis: int = 1  # along which classes are counted
    samples: int = 0  # along which samples are

    def __post_init__(self) -> None:
        check_field(self, "axis", self.axis >= 0 and self.axis != self.samples, "0 or more, and not that of samples")
        check_field(self, "samples", self.samples >= 0, "0 or more")


def with_padding(config: TokenConfig, model_input: Any) -> TokenConfig:
    """The config for a model with this input, where that has a padding."""
    pad = getattr(model_input, "pad", None)
    return config if config.pad is not None or pad is None else replace(config, pad=pad)
