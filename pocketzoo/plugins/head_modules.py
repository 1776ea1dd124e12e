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
        return x.mean(1) if self.kind == "sequence" else x


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
