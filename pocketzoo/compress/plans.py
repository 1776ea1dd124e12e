"""What each step decided: plain frozen data that is printed, saved in the bundle, and replayed when it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

# How a layer is written: k x k and 1 x 1; 1 x 1, k x k and 1 x 1; k x 1 and 1 x k
Kind = Literal["svd", "tucker", "spatial"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """Which indices of one axis of a parameter stay."""

    dim: int
    size: int  # before
    kept: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunePlan:
    """``axes``: parameter -> what stays of it. ``thresholds``: parameter -> magnitude below which it becomes 0."""

    axes: Mapping[str, tuple[Axis, ...]] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    shifts: Mapping[str, str] = field(default_factory=dict)  # weight that is refitted -> what takes the mean it lost
    shared: tuple[str, ...] = ()  # weights that run more than once, which no one refit suits


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """One layer that becomes two, or three."""

    kind: Kind = "svd"
    ranks: tuple[int, ...]  # channels between the layers
    error: float  # share of the weighed outputs' energy that is lost
    parameters: int  # of the weight before
    after: int  # of the weights that take its place


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRankPlan:
    """Layer -> its factors. ``dense``: layer -> why it stays as it is."""

    factors: Mapping[str, Factor] = field(default_factory=dict)
    dense: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HealPlan:
    """How the weights were trained; the structure stays as it is."""

    epochs: int
    learning_rate: float
    batch_size: int
    features: float  # share of the epochs that match features too
    patience: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Values of an activation tensor that are told apart; those outside saturate."""

    low: float
    high: float
    magnitude: float  # the same for encodings whose range is symmetric around zero


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Plan:
    """Activation tensor -> its range, and the layers (by the name of their weight) that become int8.

    ``tensors`` are what calibration made of the weights: integers, scales, corrected biases. They lie in a file beside
    the manifest, and ``sha256`` says which they are.
    """

    ranges: Mapping[str, Range] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    samples: int = 0  # that the ranges were calibrated on
    sha256: str = ""  # of ``tensors``
    tensors: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False, metadata={"beside": True})
