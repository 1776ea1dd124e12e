"""Keypoint detection in torch: the head with two outputs, and the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketzoo.api import DataError, HeadMismatchError

if TYPE_CHECKING:
    from pocketzoo.api import Dataset, FeatureSpec, LossSettings, ModelFacts, Targets

PLACES = 10.0  # times what a place counts more than a visibility: a tenth of a side off is as bad as being unsure


class KeypointHead(nn.Module):
    """A map (B, C, H, W) to ``places`` (B, keypoints, 2) and ``visibility`` (B, keypoints).

    A place is the mean of a softmax over positions, which is differentiable: integral regression, Sun et al. 2018
    (arXiv:1711.08229). Visibility is the largest value of the same map, and what the whole image says.
    """

    def __init__(self, features: FeatureSpec, outputs: int, channels: int = 64) -> None:
        super().__init__()
        if features.kind != "map" or len(features.shape) != 4 or any(isinstance(d, str) for d in features.shape[1:]):
            raise HeadMismatchError(f"{features.shape} is not a map of known size", "use a backbone that gives one")
        height, width = (int(d) for d in features.shape[2:])
        self.hidden = nn.Sequential(nn.Conv2d(features.channels, channels, 3, padding=1), nn.ReLU())
        self.maps = nn.Conv2d(channels, outputs, 1)
        self.seen = nn.Linear(channels + outputs, outputs)
        rows, columns = torch.meshgrid(
            (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij"
        )
        self.register_buffer("positions", torch.stack([columns.flatten(), rows.flatten()], 1))  # (H x W, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = self.hidden(x)
        maps = self.maps(hidden).flatten(2)  # (B, keypoints, H x W)
        places = maps.softmax(-1) @ self.get_buffer("positions")
        visibility = self.seen(torch.cat([hidden.mean((2, 3)), maps.amax(-1)], 1))
        return {"places": places, "visibility": visibility}


class KeypointTraining:
    """Smooth distance of the places of visible keypoints, and binary cross entropy of visibility."""

    def outputs(self, dataset: Dataset, model: ModelFacts) -> int:
        targets = dataset.split("train").targets
        if targets is None or targets.ndim != 3 or targets.shape[2] != 3:
            raise DataError(
                f"{dataset.name} has no keypoints", "give an .npz whose y is (samples, keypoints, 3): x, y, visible"
            )
        if not (targets[..., 2] > 0).any():
            raise DataError(f"no keypoint of {dataset.name} is in its image", "give images that have some")
        return int(targets.shape[1])

    def begin(self, head: nn.Module, targets: Targets, settings: LossSettings) -> None:
        """Nothing to be told."""

    def loss(self, outputs: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        places, there = targets[..., :2], (targets[..., 2] > 0).float()
        off = F.smooth_l1_loss(outputs["places"], places, reduction="none", beta=0.05).sum(-1)
        unsure = F.binary_cross_entropy_with_logits(outputs["visibility"], there, reduction="sum")
        return PLACES * (off * there).sum() + unsure

    def move(self, targets: Tensor, matrix: Tensor) -> Tensor:
        """The keypoints (B, keypoints, 3) where an augmentation took them; what left the image is not visible."""
        places = targets[..., :2] @ matrix[:, :2, :2].transpose(1, 2) + matrix[:, None, :2, 2]
        inside = ((places >= 0) & (places <= 1)).all(-1)
        return torch.cat([places, (targets[..., 2] * inside)[..., None]], -1)

    def weight(self, targets: Tensor) -> Tensor:
        return torch.tensor(float(targets.shape[0] * targets.shape[1]))
