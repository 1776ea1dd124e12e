"""Options of the heads that ship with pocketzoo. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pocketzoo.core.errors import RecipeError
from pocketzoo.core.renamed import renamed

Activation = Literal["relu", "gelu", "silu", "tanh", "sigmoid", "elu", "leaky-relu", "hardswish"]
Pooling = Literal["grid", "mean", "max", "cls", "last", "flatten"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearOptions:
    """Features to a vector, and one linear layer."""

    # grid: the mean of each of grid x grid windows of a map; mean, max: over all places or tokens;
    # cls, last: of a sequence, one token; flatten: every value.
    pool: Pooling = "grid"
    grid: int = 2  # windows a side, of a map

    def __post_init__(self) -> None:
        if self.grid < 1:
            raise RecipeError(f"grid cannot be {self.grid}", "give 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class MlpOptions(LinearOptions):
    """Hidden layers between the vector and the outputs."""

    hidden: tuple[int, ...] = (256,)  # units of each hidden layer
    activation: Activation = "relu"  # after each of them
    dropout: float = 0.2  # fraction of the hidden units left out while training, 0 to below 1

    def __post_init__(self) -> None:
        LinearOptions.__post_init__(self)  # super() does not know a class with slots
        _check_dropout(self.dropout)
        if any(units < 1 for units in self.hidden):
            raise RecipeError(f"hidden cannot be {self.hidden}", "give 1 or more units per layer")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegressionOptions(MlpOptions):
    """As ``mlp``; without hidden layers it is linear regression."""

    hidden: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QValuesOptions(MlpOptions):
    """As ``mlp``."""

    hidden: tuple[int, ...] = (512,)
    dropout: float = 0.0
    dueling: bool = False  # the value of a state and the advantage of each action apart (arXiv:1511.06581)


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledOptions:
    """A sequence to the vector of one token or of all, a dense layer of the same width, and a linear one."""

    pool: Literal["cls", "mean", "max", "last", "cls+mean"] = "cls"
    dense: bool = True  # the pooler that BERT has
    activation: Activation = "tanh"  # after the dense layer
    dropout: float = 0.1  # fraction of the vector left out while training, 0 to below 1

    def __post_init__(self) -> None:
        _check_dropout(self.dropout)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenOptions:
    """A linear layer on every token."""

    dropout: float = 0.1  # fraction of the features left out while training, 0 to below 1

    def __post_init__(self) -> None:
        _check_dropout(self.dropout)


@renamed(normalise="normalize")
@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingOptions:
    """Features to one vector; a linear layer makes it shorter or longer where other outputs are asked for."""

    pool: Literal["mean", "cls", "max", "last"] = "mean"  # maps know mean and max alone
    normalize: bool = True  # to length 1, so that a dot product is a cosine


def _check_dropout(share: float) -> None:
    if not 0 <= share < 1:
        raise RecipeError(f"dropout cannot be {share}", "give a fraction of at least 0 and below 1")
