"""The plan of each compression step: frozen data that is printed, saved in the bundle, and replayed on loading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pocketzoo.core.renamed import renamed

# How a layer is written: k x k and 1 x 1; 1 x 1, k x k and 1 x 1; k x 1 and 1 x k
Kind = Literal["svd", "tucker", "spatial"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """Which indices of one axis of a parameter stay."""

    dim: int
    size: int  # before
    kept: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortcut:
    """What is added to the output of a layer, after its batch norm if it has one: the input of another module."""

    reader: str  # a module that reads the same tensor, and ran before
    norm: str = ""  # the batch norm between the layer and the addition


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """A number before and after."""

    before: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunePlan:
    """``axes``: parameter -> what stays of it. ``thresholds``: weight -> magnitude up to which it becomes 0.

    ``patterns``: weight -> how many of how many neighbors stay ("2:4"). ``sizes``: what a module's own attribute
    ("attention.num_heads") says after that. ``dense``: layer -> why it stays as it is. ``left``: layer -> what of it is
    not understood, or of a layer whose channels are its own.
    """

    axes: Mapping[str, tuple[Axis, ...]] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    patterns: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    dense: Mapping[str, str] = field(default_factory=dict)
    left: Mapping[str, str] = field(default_factory=dict)
    gain: str = ""  # what the target makes of the pattern
    savings: Mapping[str, Saving] = field(default_factory=dict)  # "macs" for one sample, "parameters", "channels"
    refit: bool = True  # what stays makes up for what went
    shifts: Mapping[str, str] = field(default_factory=dict)  # refitted weight -> the bias that is corrected for it
    shortcuts: Mapping[str, Shortcut] = field(default_factory=dict)  # weight that is refitted -> what it is added to
    shared: tuple[str, ...] = ()  # weights that run more than once, which no one refit suits


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """One layer that becomes two, or three."""

    kind: Kind = "svd"
    ranks: tuple[int, ...]  # channels between the layers
    error: float  # fraction of the weighed outputs' energy that is lost
    parameters: int  # of the weight before
    after: int  # of the weights that take its place


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRankPlan:
    """Layer -> its factors.

    ``dense``: layer -> why it stays as it is. ``left``: layer -> what of it is not understood.
    """

    factors: Mapping[str, Factor] = field(default_factory=dict)
    dense: Mapping[str, str] = field(default_factory=dict)
    left: Mapping[str, str] = field(default_factory=dict)
    further: int = 0  # texts that were made of the samples: left-out sources say that they help


@renamed(quantised="quantized")
@dataclass(frozen=True, slots=True, kw_only=True)
class DistillPlan:
    """How the weights were trained; the structure stays as it is. An empty plan trains nothing."""

    epochs: int = 0
    learning_rate: float = 0.0
    batch_size: int = 1
    features: float = 0.0  # fraction of the epochs that match features too
    patience: int = 1
    seed: int = 0
    quantized: bool = False  # whether it was quantization-aware


HealPlan = DistillPlan  # the name of the previous release


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Values of an activation tensor that are told apart; those outside saturate."""

    low: float
    high: float
    magnitude: float  # the same for encodings whose range is symmetric around zero


@dataclass(frozen=True, slots=True, kw_only=True)
class FurtherChoice:
    """Whether ``made`` samples beside the real ones helped: the errors on left-out sources, without and with them."""

    made: int
    real: float
    joined: float
    used: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Plan:
    """Activation tensor -> its range, and the layers (by the name of their weight) that become int8.

    ``left``: layers that stay in float because no 8-bit form is known for them, with the reason. ``tensors`` are what
    calibration made of the weights: divisors of channels, integers, scales, corrected biases. They lie in a file
    alongside the manifest, and ``sha256`` says which they are. Those of ``bodies`` have the place before their names.
    """

    ranges: Mapping[str, Range] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    samples: int = 0  # that the ranges were calibrated on
    dynamic: tuple[str, ...] = ()  # layers whose activations are quantized dynamically, on targets that can
    tables: tuple[str, ...] = ()  # embedding tables in int8, on targets that can
    left: Mapping[str, str] = field(default_factory=dict)
    bodies: Mapping[str, Int8Plan] = field(default_factory=dict)  # of branches and bodies in nodes, by their places
    further: FurtherChoice | None = None  # samples that were made beside those of few sources; None: not tried
    excluded: tuple[str, ...] = ()  # layers that are left in float for a budget; their ranges are still in ``ranges``
    # Target -> layers that it computes faster in float, with the measured times: there they stay float.
    faster: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    sha256: str = ""  # of ``tensors``
    tensors: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False, metadata={"separate": True})
