"""What a user asks of each step: frozen, validated, read from a recipe or from command-line options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pocketzoo.errors import RecipeError


def _check(config: object, field: str, ok: bool, rule: str) -> None:
    if not ok:
        value: Any = getattr(config, field)
        raise RecipeError(f"{type(config).__name__}.{field} cannot be {value!r}", f"{field} must be {rule}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneConfig:
    """Remove channels, or set single weights to zero."""

    ratio: float = 0.3  # share of channels or weights removed, 0-1
    granularity: Literal["channel", "weight"] = "channel"
    scope: Literal["uniform", "global"] = "global"  # the same share in every group, or the cheapest of all groups
    multiple: int | None = None  # kept channels are a multiple of this; None: what the target likes
    skip: tuple[str, ...] = ()  # layers left as they are, by name or glob

    def __post_init__(self) -> None:
        _check(self, "ratio", 0.0 <= self.ratio < 1.0, "at least 0 and below 1")
        _check(self, "multiple", self.multiple is None or self.multiple >= 1, "at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRankConfig:
    """Replace a layer by two smaller ones in a row."""

    energy: float | None = None  # share of the squared singular values that each layer keeps, 0-1
    parameters: float | None = None  # or: share of its parameters that each layer keeps, 0-1
    multiple: int | None = None  # ranks are a multiple of this; None: what the target likes
    skip: tuple[str, ...] = ()  # layers left as they are, by name or glob

    def __post_init__(self) -> None:
        for field in ("energy", "parameters"):
            share = getattr(self, field)
            _check(self, field, share is None or 0.0 < share <= 1.0, "above 0 and at most 1")
        if (self.energy is None) == (self.parameters is None):
            raise RecipeError(
                "LowRankConfig takes either energy or parameters", "energy = 0.95 keeps 95% of the squared values"
            )
        _check(self, "multiple", self.multiple is None or self.multiple >= 1, "at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Config:
    """Quantise weights per channel and activations per tensor to 8 bits."""

    # How calibration picks an activation's range; "auto": of the four the one that rounds it with the least error.
    ranges: Literal["auto", "minmax", "percentile", "entropy", "mse"] = "auto"
    percentile: float = 99.99  # share of values inside the range, in percent; for "percentile" and "auto"
    # Ranges of what linear layers of sequences read: from calibration, of each input as it comes where the target can,
    # or whichever of the two errs less on the samples.
    activations: Literal["static", "dynamic", "auto"] = "auto"
    smooth: bool = True  # move scales of channels from what such layers read into their weights
    embeddings: bool = True  # tables of embeddings in int8 too, where the target can
    skip: tuple[str, ...] = ()  # layers left in float, by name or glob

    def __post_init__(self) -> None:
        _check(self, "percentile", 50.0 < self.percentile <= 100.0, "above 50 and at most 100")
