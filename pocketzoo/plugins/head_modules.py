"""The heads that ship with pocketzoo, as torch modules."""

from __future__ import annotations

from torch import Tensor, nn

from pocketzoo.zoo.specs import FeatureSpec


class Pool(nn.Module):
    """Features to a vector: a map (B, C, H, W) averaged over a grid x grid of windows, a sequence over its tokens.

    A grid of 1 is global average pooling (Lin et al. 2013, arXiv:1312.4400). A grid of 2 still knows roughly where
    things were (as spatial pyramids do, He et al. 2014, arXiv:1406.4729), which a small frozen backbone gains from.
    """

    def __init__(self, features: FeatureSpec, grid: int) -> None:
        super().__init__()
        self.kind, self.width = features.kind, features.channels
        if features.kind == "map":
            height, width = (int(d) for d in features.shape[2:])
            rows, columns = min(grid, height), min(grid, width)
            # Windows of one size that overlap where the map does not divide: fixed sizes export to one operator.
            stride = (height // rows, width // columns)
            kernel = (height - stride[0] * (rows - 1), width - stride[1] * (columns - 1))
            self.pool = nn.AvgPool2d(kernel, stride)
            self.width *= rows * columns

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "map":
            pooled: Tensor = self.pool(x)
            return pooled.flatten(1)
        return average(x) if self.kind == "sequence" else x


def present(x: Tensor) -> Tensor:
    """1.0 for the tokens of a sequence (B, T, C), 0.0 behind its end, where all features are zero: (B, T, 1)."""
    return (x.abs().amax(-1, keepdim=True) > 0).to(x.dtype)


def average(x: Tensor) -> Tensor:
    """The mean over a text's tokens, padding left out: (B, T, C) -> (B, C)."""
    return x.sum(1) / present(x).sum(1).clamp(min=1.0)


class Linear(nn.Module):
    """Average pooling, then one linear layer: (B, C, H, W) or (B, C) or (B, T, C) to (B, outputs)."""

    def __init__(self, features: FeatureSpec, outputs: int, grid: int = 1) -> None:
        super().__init__()
        self.pool = Pool(features, grid)
        self.linear = nn.Linear(self.pool.width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.pool(x))
        return logits


class Mlp(nn.Module):
    """Average pooling, then two linear layers with ReLU and dropout between."""

    def __init__(
        self, features: FeatureSpec, outputs: int, grid: int = 2, hidden: int = 256, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.pool = Pool(features, grid)
        self.hidden = nn.Linear(self.pool.width, hidden)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.dropout(self.relu(self.hidden(self.pool(x)))))
        return logits


class Embedding(nn.Module):
    """A sequence (B, T, C), or what ``Pool`` makes of other features, to one vector a sample: (B, C).

    As in Sentence-BERT (Reimers and Gurevych 2019, arXiv:1908.10084): the mean or maximum over tokens, the first or the
    last one; ``normalise`` makes the vector's length 1, so that a dot product is a cosine.
    """

    def __init__(self, features: FeatureSpec, outputs: int, *, mode: str = "mean", normalise: bool = True) -> None:
        super().__init__()
        self.kind, self.mode, self.normalise = features.kind, mode, normalise
        self.pool = Pool(features, grid=1)
        if outputs != self.pool.width:
            raise ValueError(f"an embedding of {self.pool.width} features has no {outputs} outputs")

    def forward(self, x: Tensor) -> Tensor:
        if self.kind != "sequence" or self.mode == "mean":
            x = self.pool(x)
        elif self.mode == "cls":
            x = x[:, 0]
        elif self.mode == "last":
            last = present(x).sum(1, keepdim=True).long() - 1  # (B, 1, 1)
            x = x.gather(1, last.clamp(min=0).expand(-1, -1, x.shape[-1]))[:, 0]
        else:
            x = (x + (present(x) - 1.0) * 1e9).amax(1)
        return nn.functional.normalize(x, dim=-1) if self.normalise else x
