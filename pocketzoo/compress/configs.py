"""The settings of each compression step: frozen, validated dataclasses, read from recipes or the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pocketzoo.core.errors import RecipeError, check_field
from pocketzoo.core.renamed import renamed


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneConfig:
    """Remove channels, or set single weights to zero."""

    ratio: float = 0.3  # fraction of channels or weights to remove, 0-1; ignored when a budget is set
    macs: float | None = None  # budget: fraction of the multiply-accumulates to keep, 0-1; or
    parameters: float | None = None  # of the parameters; or
    latency: float | None = None  # of the latency for one sample, measured here with onnxruntime
    granularity: Literal["channel", "weight"] = "channel"
    pattern: Literal["", "2:4"] = ""  # for single weights: 2 of every 4 adjacent ones become zero, whatever the ratio
    scope: Literal["uniform", "global"] = "global"  # the same ratio in every group, or where the output suffers least
    refit: bool = True  # adjust the remaining weights by least squares to compensate; false is plain pruning
    multiple: int | None = None  # round channel counts to a multiple of this; None: what the target prefers
    only: tuple[str, ...] = ()  # layers to prune, by name or glob; empty: all
    skip: tuple[str, ...] = ()  # layers to leave unchanged, by name or glob

    def __post_init__(self) -> None:
        check_field(self, "ratio", 0.0 <= self.ratio < 1.0, "at least 0 and below 1")
        check_field(self, "multiple", self.multiple is None or self.multiple >= 1, "at least 1")
        budgets = [field for field in ("macs", "parameters", "latency") if getattr(self, field) is not None]
        for field in budgets:
            check_field(self, field, 0.0 < getattr(self, field) <= 1.0, "above 0 and at most 1")
        if len(budgets) > 1:
            raise RecipeError(f"PruneConfig takes one budget, not {' and '.join(budgets)}", "leave out one of them")
        if budgets and self.granularity == "weight":
            raise RecipeError(
                f'PruneConfig.{budgets[0]} needs granularity = "channel"', "single zeros do not save time: use ratio"
            )
        check_field(
            self, "pattern", not self.pattern or self.granularity == "weight", 'set with granularity = "weight"'
        )


@renamed(rank_share="rank_fraction")
@dataclass(frozen=True, slots=True, kw_only=True)
class LowRankConfig:
    """Factorize layers into two or three smaller ones. Exactly one of the first three fields sets the rank."""

    parameters: float | None = None  # fraction of the layers' parameters to keep, spent where it helps the outputs most
    energy: float | None = None  # or: fraction of output energy that each layer keeps, 0-1
    rank_fraction: float | None = None  # or: fraction of singular values that each layer keeps, 0-1
    only_faster: bool = True  # keep layers dense whose factors are not faster when timed; false: reproducible plans
    multiple: int | None = None  # round ranks to a multiple of this; None: what the target prefers
    skip: tuple[str, ...] = ()  # layers to leave unchanged, by name or glob

    def __post_init__(self) -> None:
        fractions = ("parameters", "energy", "rank_fraction")
        for field in fractions:
            fraction = getattr(self, field)
            check_field(self, field, fraction is None or 0.0 < fraction <= 1.0, "above 0 and at most 1")
        if sum(getattr(self, field) is not None for field in fractions) != 1:
            raise RecipeError(
                "LowRankConfig takes one of parameters, energy and rank_fraction",
                "parameters = 0.8 keeps 80% of the parameters",
            )
        check_field(self, "multiple", self.multiple is None or self.multiple >= 1, "at least 1")


@renamed(quantised="quantized")
@dataclass(frozen=True, slots=True, kw_only=True)
class DistillConfig:
    """Fine-tune the compressed model to reproduce the outputs of the original, without labels."""

    epochs: int = 20  # maximum number of passes over the calibration samples
    learning_rate: float = 1e-3  # initial learning rate; decays to zero along a cosine
    batch_size: int = 32  # samples per optimizer step
    features: float = 0.5  # fraction of the epochs that match intermediate features too, 0-1; the rest: outputs
    patience: int = 5  # epochs without improvement before stopping early
    seed: int = 0  # random seed of the sample order
    quantized: bool = False  # quantization-aware training, for an int8 step that follows

    def __post_init__(self) -> None:
        check_field(self, "epochs", self.epochs >= 1, "at least 1")
        check_field(self, "learning_rate", 0.0 < self.learning_rate <= 1.0, "above 0 and at most 1")
        check_field(self, "batch_size", self.batch_size >= 1, "at least 1")
        check_field(self, "features", 0.0 <= self.features <= 1.0, "at least 0 and at most 1")
        check_field(self, "patience", self.patience >= 1, "at least 1")
        check_field(self, "seed", 0 <= self.seed < 2**31, "at least 0, below 2^31")


HealConfig = DistillConfig  # the name of the previous release


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Config:
    """Quantize weights (per channel) and activations (per tensor) to int8."""

    # How calibration picks an activation's range; "auto": whichever of the four has the least quantization error.
    ranges: Literal["auto", "minmax", "percentile", "entropy", "mse"] = "auto"
    percentile: float = 99.99  # percent of values inside the range; for "percentile" and "auto"
    # Activations of linear layers in sequence models: static quantization (ranges from calibration), dynamic
    # quantization (ranges of each input, where the target supports it), or whichever has the smaller error.
    activations: Literal["static", "dynamic", "auto"] = "auto"
    smooth: bool = True  # SmoothQuant: move scales of input channels into the weights of such layers
    embeddings: bool = True  # quantize embedding tables too, where the target supports it
    only_faster: bool = True  # keep layers in float that a target is faster with, timed; false: reproducible plans
    skip: tuple[str, ...] = ()  # layers to keep in float, by name or glob
    min_sqnr: float | None = None  # dB against the float graph; layers are kept in float until it is reached
    max_drop: float | None = None  # maximum loss of the metric against the float graph, 0-1; likewise

    def __post_init__(self) -> None:
        check_field(self, "min_sqnr", self.min_sqnr is None or 0.0 < self.min_sqnr < 200.0, "above 0 and below 200 dB")
        check_field(self, "max_drop", self.max_drop is None or 0.0 <= self.max_drop < 1.0, "at least 0 and below 1")
        check_field(self, "percentile", 50.0 < self.percentile <= 100.0, "above 50 and at most 100")
