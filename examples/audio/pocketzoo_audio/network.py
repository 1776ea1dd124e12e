"""A small convolutional network on spectrograms, as on images of one channel.

Source: Hershey et al. 2017, "CNN architectures for large-scale audio classification", arXiv:1609.09430.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class AudioNetwork(nn.Module):
    """Spectrograms (B, mels, frames) to a map (B, C, mels / 8, frames / 8)."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for after in channels:
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
                nn.Conv2d(after, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
            before = after
        self.blocks = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.blocks(x.unsqueeze(1))
        return features
