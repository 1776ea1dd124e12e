"""LoRA adapters on the linear layers of a frozen backbone, through peft; merged into the weights in the end."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pocketzoo.core.errors import UnsupportedLayerError
from pocketzoo.core.optional import require
from pocketzoo.train.settings import TrainConfig
from pocketzoo.zoo.models.backbone_blocks import BackboneBlock, blocks
from pocketzoo.zoo.models.layer_hooks import before
from pocketzoo.zoo.modules.inputs import TensorInputs, call

MATRICES = ("lora_A", "lora_B", "lora_dropout")  # what peft puts alongside a layer


class Adapters:
    """Adapters of a backbone (Hu et al. 2021, arXiv:2106.09685): y = W x + alpha / rank * B A x, and B starts at zero.

    Every linear layer that runs gets one, those of the feed-forward parts too: with attention's alone LoRA falls behind
    full fine-tuning (Dettmers et al. 2023, arXiv:2305.14314, section 4). So do GPT-2's layers, which are linear ones
    with the weight transposed.
    """

    def __init__(self, backbone: nn.Module, x: Tensor | TensorInputs, config: TrainConfig) -> None:
        """Find where they go; ``x`` is a batch that ``backbone`` reads: its input, or its inputs by name.

        Raises:
            UnsupportedLayerError: no linear layer of it runs.
            MissingDependencyError: peft is not installed.
        """
        self.peft: Any = require("peft", extra="lora")
        self.backbone, self.config = backbone, config
        self.names = _linear_layers(backbone, x)
        if not self.names:
            raise UnsupportedLayerError(
                "the backbone has no linear layers for LoRA adapters", "set unfreeze instead of lora_rank"
            )
        self.parts = blocks(backbone, x)

    def attach(self) -> list[BackboneBlock]:
        """Put them into the backbone, in place, with A drawn by the seed: what of each block learns now."""
        settings = self.peft.LoraConfig(
            r=self.config.lora_rank,
            lora_alpha=self.config.lora_alpha,
            lora_dropout=self.config.lora_dropout,
            target_modules="|".join(map(re.escape, self.names)),  # peft takes names of a list as endings of others
        )
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            torch.default_generator.manual_seed(self.config.seed)
            warnings.simplefilter("ignore")  # which of the two ways a weight lies is said for each layer
            self._tuner = self.peft.LoraModel(self.backbone, settings, "default")
        return _blocks(self.backbone, self.parts)

    def merge(self) -> None:
        """Add what was learned to the backbone's own weights, and take the adapters out."""
        self._tuner.merge_and_unload(safe_merge=True)


def _linear_layers(backbone: nn.Module, x: Tensor | TensorInputs) -> list[str]:
    """Names of the linear layers that are called when ``x`` runs: torch's own attention reads weights past theirs."""
    library: Any = require("transformers.pytorch_utils", extra="transformers")
    kinds = (nn.Linear, library.Conv1D)
    called: set[str] = set()

    def note(name: str, layer: nn.Module, inputs: object) -> None:
        called.add(name)

    linear = [name for name, module in backbone.named_modules() if isinstance(module, kinds)]
    with before(backbone, linear, note), torch.no_grad():
        call(backbone, x)
    return sorted(called)


def _blocks(backbone: nn.Module, parts: Sequence[BackboneBlock]) -> list[BackboneBlock]:
    """The adapters of each block, as what is trained of it."""
    adapted = []
    for part in parts:
        inside = backbone.get_submodule(part.name).named_modules()
        modules = [module for name, module in inside if name.rpartition(".")[2] in MATRICES]
        if parameters := [p for module in modules for p in module.parameters()]:
            adapted.append(BackboneBlock(part.name, modules, parameters))
    return adapted
