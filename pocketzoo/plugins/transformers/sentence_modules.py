"""What sentence-transformers does with the features of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pocketzoo.plugins.head_modules import ACTIVATIONS as NAMED
from pocketzoo.plugins.head_modules import present
from pocketzoo.plugins.transformers.sentence_options import Dense
from pocketzoo.zoo.catalog.specs import FeatureSpec

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {**NAMED, "": nn.Identity}


class SentencePooling(nn.Module):
    """Features (B, T, C), zero after a text's end, to a vector a text (B, outputs): Reimers and Gurevych 2019.

    Each of ``modes`` makes one of C numbers, and they are joined in order: "cls" and "lasttoken" are those of a token,
    "max" and "mean" over the tokens, "mean_sqrt_len_tokens" their sum over the root of their number, and "weightedmean"
    the mean with the weights 1, 2, 3, ... (Muennighoff 2022, arXiv:2202.08904). With ``normalize`` the vector is given
    length 1; the first ``outputs`` of its numbers are kept, after that. With ``dense`` a linear layer and its
    activation come before.
    """

    def __init__(
        self,
        features: FeatureSpec,
        outputs: int,
        modes: Sequence[str],
        *,
        normalize: bool,
        dense: Dense | None = None,
    ) -> None:
        super().__init__()
        self.outputs = outputs
        self.modes, self.normalize = tuple(modes), normalize
        self.width = features.channels * len(self.modes)
        if dense is not None:
            self.linear = nn.Linear(self.width, dense.outputs, bias=dense.bias)
            self.activation = ACTIVATIONS[dense.activation]()
            self.width = dense.outputs

    def forward(self, x: Tensor) -> Tensor:
        mask = present(x)  # (B, T, 1)
        pooled = [self._pooled(mode, x, mask) for mode in self.modes]
        out = pooled[0] if len(pooled) == 1 else torch.cat(pooled, -1)
        if hasattr(self, "linear"):
            out = self.activation(self.linear(out))
        out = nn.functional.normalize(out, dim=-1) if self.normalize else out
        return out[:, : self.outputs] if self.outputs < self.width else out

    def _pooled(self, mode: str, x: Tensor, mask: Tensor) -> Tensor:
        if mode == "cls":
            return x[:, 0]
        if mode == "lasttoken":
            last = mask.sum(1, keepdim=True).long() - 1  # (B, 1, 1)
            return x.gather(1, last.clamp(min=0).expand(-1, -1, x.shape[-1]))[:, 0]
        if mode == "max":
            return (x + (mask - 1.0) * 1e9).amax(1)
        if mode == "weightedmean":
            weights = mask * torch.arange(1, x.shape[1] + 1, device=x.device, dtype=x.dtype)[:, None]
            return (x * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        count = mask.sum(1).clamp(min=1.0)
        return x.sum(1) / (count if mode == "mean" else count.sqrt())
