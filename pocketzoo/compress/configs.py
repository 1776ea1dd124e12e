"""What a user asks of each step: frozen, validated, read from a recipe or from command-line options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pocketzoo.core.errors import RecipeError, check_field


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneConfig:
    """Remove channels, or set single weights to zero."""

    ratio: float = 0.3  # share of channels or weights removed, 0-1; a budget stands in for it
    macs: float | None = None  # budget: share of the multiply-accumulates that may stay, 0-1; or
    parameters: float | None = None  # of the parameters; or
    latency: float | None = None  # of the time onnxruntime takes for one sample, measured here
    granularity: Literal["channel", "weight"] = "channel"
    pattern: Literal["", "2:4"] = ""  # of single weights: two of any four neighbours go, whatever the ratio
    scope: Literal["uniform", "global"] = "global"  # the same share in every group, or where the output bears it best
    refit: bool = True  # the weights that stay make up for what went; false is the textbook's way
    multiple: int | None = None  # kept channels are a multiple of this; None: what the target likes
    only: tuple[str, ...] = ()  # layers that may lose outputs or weights, by name or glob; none: all
    skip: tuple[str, ...] = ()  # layers left as they are, by name or glob

    def __post_init__(self) -> None:
        check_field(self, "ratio", 0.0 <= self.ratio < 1.0, "at least 0 and below 1")
        check_field(self, "multiple", self.multiple is None or self.multiple >= 1, "at least 1")
        budgets = [field for field in ("macs", "parameters", "latency") if getattr(self, field) is not None]
        for field in budgets:
            check_field(self, field, 0.0 < getattr(self, field) <= 1.0, "above 0 and at most 1")
        if len(budgets) > 1:
            raise RecipeError(f"PruneConfig takes one budget, not {' and '.join(budgets)}", "leave one of them")
        if budgets and self.granularity == "weight":
            raise RecipeError(f"PruneConfig.{budgets[0]} is for channels", "zeros take their time as well: use ratio")
        check_field(
            self, "pattern", not self.pattern or self.granularity == "weight", 'set with granularity = "weight"'
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRankConfig:
    """Replace a layer by two or three smaller ones in a row. One of the first three fields says how small."""

    parameters: float | None = None  # share of all layers' parameters that stay, spent where it helps the outputs most
    energy: float | None = None  # or: share of its weighed outputs' energy that each layer keeps, 0-1
    rank_share: float | None = None  # or: share of its singular values that each layer keeps, 0-1
    only_faster: bool = True  # a layer whose factors are not faster when timed stays dense; false: plans do not vary
    multiple: int | None = None  # ranks are a multiple of this; None: what the target likes
    skip: tuple[str, ...] = ()  # layers left as they are, by name or glob

    def __post_init__(self) -> None:
        shares = ("parameters", "energy", "rank_share")
        for field in shares:
            share = getattr(self, field)
            check_field(self, field, share is None or 0.0 < share <= 1.0, "above 0 and at most 1")
        if sum(getattr(self, field) is not None for field in shares) != 1:
            raise RecipeError(
                "LowRankConfig takes one of parameters, energy and rank_share",
                "parameters = 0.8 keeps 80% of the parameters",
            )
        check_field(self, "multiple", self.multiple is None or self.multiple >= 1, "at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class HealConfig:
    """Train what is left for a short while to give what the original gives."""

    epochs: int = 20  # over the calibration samples, at the most
    learning_rate: float = 1e-3  # at the beginning; it falls to zero along a cosine
    batch_size: int = 32  # samples that are learned from at once
    features: float = 0.5  # share of the epochs that match the blocks' features too, 0-1; the rest match outputs
    patience: int = 5  # epochs without a better one until it stops
    seed: int = 0  # of the order of samples
    quantised: bool = False  # learn with weights and activations rounded to 8 bits, for an int8 step behind this one

    def __post_init__(self) -> None:
        check_field(self, "epochs", self.epochs >= 1, "at least 1")
        check_field(self, "learning_rate", 0.0 < self.learning_rate <= 1.0, "above 0 and at most 1")
        check_field(self, "batch_size", self.batch_size >= 1, "at least 1")
        check_field(self, "features", 0.0 <= self.features <= 1.0, "at least 0 and at most 1")
        check_field(self, "patience", self.patience >= 1, "at least 1")
        check_field(self, "seed", self.seed >= 0, "at least 0")


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
    min_sqnr: float | None = None  # dB against the float graph; layers are left in float until it is reached
    max_drop: float | None = None  # the same for what the metric may lose against the float graph, 0-1

    def __post_init__(self) -> None:
        check_field(self, "min_sqnr", self.min_sqnr is None or 0.0 < self.min_sqnr < 200.0, "above 0 and below 200 dB")
        check_field(self, "max_drop", self.max_drop is None or 0.0 <= self.max_drop < 1.0, "at least 0 and below 1")
        check_field(self, "percentile", 50.0 < self.percentile <= 100.0, "above 50 and at most 100")
