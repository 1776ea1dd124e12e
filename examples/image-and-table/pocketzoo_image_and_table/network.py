"""The network: an image and a row of numbers to features, and features to two outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Backbone(nn.Module):
    """(B, 1, 8, 8) and (B, columns) -> (B, features)."""

    def __init__(self, columns: int, features: int) -> None:
        super().__init__()
        self.image = nn.Sequential(block(1, 32, 1), block(32, 64, 2), block(64, 64, 1))
        self.table = nn.Sequential(nn.Linear(columns, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.joined = nn.Sequential(nn.Linear(96, 128), nn.ReLU(), nn.Linear(128, features), nn.ReLU())

    def forward(self, image: Tensor, measures: Tensor) -> Tensor:
        seen = self.image(image).mean((2, 3))
        joined: Tensor = self.joined(torch.cat([seen, self.table(measures)], 1))
        return joined


class Head(nn.Module):
    """(B, features) -> logits (B, classes) and embedding (B, embedding)."""

    def __init__(self, features: int, classes: int, embedding: int) -> None:
        super().__init__()
        self.classes, self.embedding = nn.Linear(features, classes), nn.Linear(features, embedding)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        return {"logits": self.classes(features), "embedding": self.embedding(features)}
