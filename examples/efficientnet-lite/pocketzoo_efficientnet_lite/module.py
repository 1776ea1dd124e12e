"""The published network as two torch modules: the backbone, and its classifier as a head."""

from __future__ import annotations

from typing import Any

from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-untyped]
from torch import Tensor, nn

from pocketzoo.api import FeatureSpec


class Features(EfficientNet):  # type: ignore[misc]  # the package has no types
    """(B, 3, S, S) to (B, 1280, S / 32, S / 32), rounded up. Layers keep the names they have in the published file."""

    def __init__(self, blocks_args: Any, global_params: Any) -> None:
        # In training mode the package drops whole blocks at random. A backbone here is frozen, and a trace taken in
        # that mode, as cutting it does, would keep the drop for good: so there is none.
        super().__init__(blocks_args, global_params._replace(drop_connect_rate=0.0))
        del self._fc  # the classifier is a head

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.extract_features(x)  # the package's own forward prints and classifies
        return features


class Classifier(nn.Module):
    """(B, C, H, W) to (B, outputs) logits: the mean over the map, then one linear layer."""

    def __init__(self, features: FeatureSpec, outputs: int) -> None:
        super().__init__()
        height, width = (int(size) for size in features.shape[2:])
        self.pool = nn.AvgPool2d((height, width))
        self.linear = nn.Linear(features.channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.pool(x).flatten(1))
        return logits
