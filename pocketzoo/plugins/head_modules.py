"""The heads that ship with pocketzoo, as torch modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pocketzoo.core.errors import HeadMismatchError
from pocketzoo.core.former_names import names_before
from pocketzoo.plugins.head_options import (
    EmbeddingOptions,
    MlpOptions,
    PooledOptions,
    QValuesOptions,
    RegressionOptions,
    TokenOptions,
)
from pocketzoo.zoo.catalog.specs import FeatureSpec

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "elu": nn.ELU,
    "leaky-relu": nn.LeakyReLU,
    "hardswish": nn.Hardswish,
}


class Pool(nn.Module):
    """Features to a vector (B, ``width``).

    ``mode`` is "grid": a map (B, C, H, W) averaged over a grid x grid of windows, a sequence (B, T, C) over its tokens.
    A grid of 1 is global average pooling (Lin et al. 2013, arXiv:1312.4400). A grid of 2 still knows roughly where
    things were (as spatial pyramids do, He et al. 2014, arXiv:1406.4729), which a small frozen backbone gains from.
    Or it is "mean", "max", "flatten", and for sequences "cls" (the first token), "last", or "cls+mean" (the first
    alongside the mean of the others). A vector stays as it is.

    Raises:
        HeadMismatchError: the features cannot be pooled so.
    """

    def __init__(self, features: FeatureSpec, grid: int = 1, mode: str = "grid") -> None:
        super().__init__()
        self.kind, self.width, self.mode = features.kind, features.channels, mode
        if features.kind == "vector":
            return
        if features.kind == "map" and mode in ("cls", "last", "cls+mean"):
            raise HeadMismatchError(
                f"pool={mode} selects a token, and a feature map has none", "pool: grid, mean, max, flatten"
            )
        if mode == "flatten":
            if any(isinstance(d, str) for d in features.shape[1:]):
                raise HeadMismatchError(
                    "a sequence of dynamic length cannot be flattened", "pool: mean, max, cls or last take one"
                )
            self.width = 1
            for d in features.shape[1:]:
                self.width *= int(d)
        elif mode == "cls+mean":
            self.width *= 2
        elif features.kind == "map" and mode in ("grid", "mean"):
            grid = grid if mode == "grid" else 1
            height, width = (int(d) for d in features.shape[2:])
            rows, columns = min(grid, height), min(grid, width)
            # Windows of one size that overlap where the map does not divide: fixed sizes export to one operator.
            stride = (height // rows, width // columns)
            kernel = (height - stride[0] * (rows - 1), width - stride[1] * (columns - 1))
            self.pool = nn.AvgPool2d(kernel, stride)
            self.width *= rows * columns

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "vector":
            return x
        if self.mode == "flatten":
            return x.flatten(1)
        if self.kind == "map":
            pooled: Tensor = x.amax((2, 3)) if self.mode == "max" else self.pool(x).flatten(1)
            return pooled
        return _of_sequence(x, self.mode)


def _of_sequence(x: Tensor, mode: str) -> Tensor:
    if mode == "cls":
        return x[:, 0]
    if mode == "cls+mean":
        return torch.cat([x[:, 0], average(x[:, 1:])], -1)
    if mode == "last":
        last = present(x).sum(1, keepdim=True).long() - 1  # (B, 1, 1)
        return x.gather(1, last.clamp(min=0).expand(-1, -1, x.shape[-1]))[:, 0]
    if mode == "max":
        return (x + (present(x) - 1.0) * 1e9).amax(1)
    return average(x)


def present(x: Tensor) -> Tensor:
    """1.0 for the tokens of a sequence (B, T, C), 0.0 after its end, where all features are zero: (B, T, 1)."""
    return (x.abs().amax(-1, keepdim=True) > 0).to(x.dtype)


def average(x: Tensor) -> Tensor:
    """The mean over a text's tokens, padding left out: (B, T, C) -> (B, C)."""
    return x.sum(1) / present(x).sum(1).clamp(min=1.0)


class Linear(nn.Module):
    """Pooling, then one linear layer: (B, C, H, W) or (B, C) or (B, T, C) to (B, outputs)."""

    def __init__(self, features: FeatureSpec, outputs: int, grid: int = 1, mode: str = "grid") -> None:
        super().__init__()
        self.pool = Pool(features, grid, mode)
        self.linear = nn.Linear(self.pool.width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.pool(x))
        return logits


class Mlp(nn.Module):
    """Pooling, then hidden layers with an activation and dropout after each, then one linear layer."""

    def __init__(self, features: FeatureSpec, outputs: int, options: MlpOptions | None = None) -> None:
        super().__init__()
        options = options or MlpOptions()
        self.pool = Pool(features, options.grid, options.pool)
        width = self.pool.width
        self.layers: list[str] = []
        for number, units in enumerate(options.hidden, start=1):
            # The first is called "hidden", as in bundles from when there was one.
            self.layers.append("hidden" if number == 1 else f"hidden_{number}")
            self.add_module(self.layers[-1], nn.Linear(width, units))
            width = units
        self.activation = ACTIVATIONS[options.activation]()
        self.dropout = nn.Dropout(options.dropout)
        self.linear = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(self.to_hidden(x))
        return out

    def to_hidden(self, x: Tensor) -> Tensor:
        """What the last layer reads: (B, units)."""
        x = self.pool(x)
        for layer in self.layers:
            x = self.dropout(self.activation(self.get_submodule(layer)(x)))
        return x


class Standardize(nn.Module):
    """Vectors (B, N), each number by an offset and a scale: (x - offset) / scale. It does not learn; it is told."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("offset", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def standardize(self, offset: Tensor, scale: Tensor) -> None:
        """Set mean and standard deviation of the numbers, each (N,)."""
        self.get_buffer("offset").copy_(offset)
        self.get_buffer("scale").copy_(scale)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.get_buffer("offset")) / self.get_buffer("scale")


class Regression(Mlp):
    """``Mlp`` to numbers of any size: offset + scale * its outputs, so that training starts where the targets are."""

    def __init__(self, features: FeatureSpec, outputs: int, options: RegressionOptions | None = None) -> None:
        super().__init__(features, outputs, options or RegressionOptions())
        self.register_buffer("offset", torch.zeros(outputs))
        self.register_buffer("scale", torch.ones(outputs))

    def standardize(self, offset: Tensor, scale: Tensor) -> None:
        """Set mean and standard deviation of the targets, each (outputs,)."""
        self.get_buffer("offset").copy_(offset)
        self.get_buffer("scale").copy_(scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.get_buffer("offset") + self.get_buffer("scale") * super().forward(x)


class QValues(Mlp):
    """``Mlp`` to one number per action (Mnih et al. 2013, arXiv:1312.5602).

    A dueling one (Wang et al. 2016, arXiv:1511.06581) adds the state's value to each action's advantage over the mean.
    """

    def __init__(self, features: FeatureSpec, outputs: int, options: QValuesOptions | None = None) -> None:
        options = options or QValuesOptions()
        super().__init__(features, outputs, options)
        self.dueling = options.dueling
        if self.dueling:
            self.value = nn.Linear(self.linear.in_features, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.to_hidden(x)
        values: Tensor = self.linear(x)
        if self.dueling:
            values = values - values.mean(-1, keepdim=True) + self.value(x)
        return values


class PooledClassifier(nn.Module):
    """A pooled sequence, a dense layer as BERT's pooler (Devlin et al. 2018, arXiv:1810.04805), and a linear one.

    Pretrained classifiers of other features are this as well: ``norm`` is the epsilon of a layer norm before it.
    """

    def __init__(
        self,
        features: FeatureSpec,
        outputs: int,
        options: PooledOptions | None = None,
        *,
        bias: bool = True,
        norm: float | None = None,
    ) -> None:
        super().__init__()
        options = options or PooledOptions()
        self.pool = Pool(features, mode=options.pool)
        self.norm = nn.Identity() if norm is None else nn.LayerNorm(self.pool.width, eps=norm)
        self.dense = nn.Linear(self.pool.width, self.pool.width) if options.dense else None
        self.activation = ACTIVATIONS[options.activation]()
        self.dropout = nn.Dropout(options.dropout)
        self.linear = nn.Linear(self.pool.width, outputs, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.pool(x))
        if self.dense is not None:
            x = self.activation(self.dense(x))
        logits: Tensor = self.linear(self.dropout(x))
        return logits


class TokenClassifier(nn.Module):
    """A linear layer on every token: (B, T, C) to (B, T, outputs)."""

    def __init__(self, features: FeatureSpec, outputs: int, options: TokenOptions | None = None) -> None:
        super().__init__()
        self.dropout = nn.Dropout((options or TokenOptions()).dropout)
        self.linear = nn.Linear(features.channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.dropout(x))
        return logits


class LanguageModel(nn.Module):
    """What token comes next, after every token: (B, T, C) to (B, T, vocabulary). The layer has no bias."""

    def __init__(self, features: FeatureSpec, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features.channels, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x)
        return logits


class Embedding(nn.Module):
    """A sequence (B, T, C), or what ``Pool`` makes of other features, to one vector a sample: (B, outputs).

    As in Sentence-BERT (Reimers and Gurevych 2019, arXiv:1908.10084): the mean or maximum over tokens, the first or the
    last one; ``normalize`` makes the vector's length 1, so that a dot product is a cosine. A linear layer without bias
    stands before that where there are not as many outputs as channels.
    """

    def __init__(self, features: FeatureSpec, outputs: int, options: EmbeddingOptions | None = None) -> None:
        super().__init__()
        options = options or EmbeddingOptions()
        self.pool, self.normalize = Pool(features, mode=options.pool), options.normalize
        same = outputs == self.pool.width
        self.linear = nn.Identity() if same else nn.Linear(self.pool.width, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(self.pool(x))
        return nn.functional.normalize(out, dim=-1) if self.normalize else out


if not TYPE_CHECKING:  # which would take any name for one of these
    __getattr__ = names_before(__name__)
