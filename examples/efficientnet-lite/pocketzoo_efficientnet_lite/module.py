"""The backbone as a torch module: the published network up to its classifier."""

from __future__ import annotations

from typing import Any

from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-untyped]
from torch import Tensor


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
