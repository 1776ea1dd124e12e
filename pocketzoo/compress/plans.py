"""What each step decided: plain frozen data that is printed, saved in the bundle, and replayed when it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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
    """One layer that becomes two."""

    rank: int
    full: int  # the rank it could have
    energy: float  # share of the squared singular values that is kept
    parameters: int  # of the weight before
    after: int  # of the two weights


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRankPlan:
    """Layer -> its factors. ``dense``: layer -> why it stays as it is."""

    factors: Mapping[str, Factor] = field(default_factory=dict)
    dense: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Values of an activation tensor that are told apart; those outside saturate."""

    low: float
    high: float
    magnitude: float  # the same for encodings whose range is symmetric around zero


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Plan:
    """Activation tensor -> its range, and the layers (by the name of their weight) that become int8.

    ``tensors`` are what calibration made of the weights: divisors of channels, integers, scales, corrected biases. They
    lie in a file beside the manifest, and ``sha256`` says which they are.
    """

    ranges: Mapping[str, Range] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    samples: int = 0  # that the ranges were calibrated on
    dynamic: tuple[str, ...] = ()  # layers whose activations are quantised as they come, on targets that can
    tables: tuple[str, ...] = ()  # embedding tables in int8, on targets that can
    sha256: str = ""  # of ``tensors``
    tensors: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False, metadata={"beside": True})
