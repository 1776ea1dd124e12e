"""How a model is trained: frozen, checked, the same from Python and from the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pocketzoo.core.errors import RecipeError, check_field, nearest
from pocketzoo.core.renamed import renamed
from pocketzoo.core.typed import with_changes
from pocketzoo.train.augment.specification import read_augment, read_mix
from pocketzoo.zoo.catalog.specs import WINDOW

Optimizer = Literal["adamw", "adam", "sgd", "rmsprop"]
Schedule = Literal["cosine", "linear", "step", "constant"]
Precision = Literal["float32", "bfloat16", "float16"]


SAYS = {  # the help of the command line's options too
    "epochs": "Passes over the training data.",
    "batch_size": "Samples behind one step, of all processes together.",
    "seed": "Of all chance, the splits included.",
    "optimizer": "What takes the steps.",
    "learning_rate": "Of the head, at its highest.",
    "momentum": "Of sgd and rmsprop, 0-1.",
    "weight_decay": "Of weights; biases and norms have none.",
    "schedule": "How the rate falls to 0; step: to a tenth after each third.",
    "warm_up": "Share of the steps in which the rate rises from 0, 0-1.",
    "clip": "Largest norm of all gradients.",
    "label_smoothing": "Share of each label that goes to all classes, 0-1.",
    "balanced": "Every class counts alike, however many samples it has.",
    "patience": "Epochs without a better validation score before it stops.",
    "unfreeze": "What of the backbone learns too: all, last:N blocks, or a layer and all behind it.",
    "head_epochs": "Of the epochs, the first ones, in which the head learns alone.",
    "backbone_rate": "Learning rate of the backbone's last block, as a share of the head's.",
    "layer_decay": "Learning rate of a block, as a share of that of the block behind it.",
    "lora_rank": "Of low-rank adapters for the backbone's linear layers, merged in the end; 0: none.",
    "lora_alpha": "Adapters count alpha / rank times.",
    "lora_dropout": "Share of what adapters read that is left out, 0-1.",
    "augment": "Random changes of pictures: flip,rotate:15,shift:0.1,shear:10,zoom:0.2,color:0.2,hue:0.05.",
    "mix": "Samples mixed in pairs, with their labels: mixup:0.2 or cutmix:1.",
    "window": "Tokens that a language model learns from at once, at the most.",
    "precision": "Of the arithmetic; weights stay float32.",
}


@renamed(optimiser="optimizer")
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Settings of ``fit``. ``SAYS`` has what each of them is."""

    epochs: int = 40
    batch_size: int = 64
    seed: int = 0
    optimizer: Optimizer = "adamw"
    learning_rate: float = 3e-3
    momentum: float = 0.9
    weight_decay: float = 1e-2
    schedule: Schedule = "cosine"
    warm_up: float = 0.0
    clip: float | None = None
    label_smoothing: float = 0.0
    balanced: bool = False
    patience: int | None = None
    unfreeze: str = "none"
    head_epochs: int = 0
    backbone_rate: float = 0.1
    layer_decay: float = 1.0
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0
    augment: str = ""
    mix: str = ""
    window: int = WINDOW
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        share = "at least 0 and below 1"
        check_field(self, "epochs", self.epochs >= 1, "at least 1")
        check_field(self, "batch_size", self.batch_size >= 1, "at least 1")
        check_field(self, "seed", self.seed >= 0, "0 or more")
        for name, known in (("optimizer", Optimizer), ("schedule", Schedule), ("precision", Precision)):
            if (value := getattr(self, name)) not in get_args(known):
                raise RecipeError(f"{name} cannot be {value!r}", nearest(str(value), get_args(known)))
        for name in ("learning_rate", "backbone_rate", "layer_decay", "lora_alpha"):
            check_field(self, name, 0.0 < getattr(self, name) < math.inf, "above 0")
        for name in ("momentum", "warm_up", "label_smoothing", "lora_dropout"):
            check_field(self, name, 0.0 <= getattr(self, name) < 1.0, share)
        check_field(self, "weight_decay", 0.0 <= self.weight_decay < math.inf, "0 or more")
        check_field(self, "clip", self.clip is None or 0.0 < self.clip < math.inf, "above 0")
        check_field(self, "patience", self.patience is None or self.patience >= 1, "at least 1")
        check_field(self, "head_epochs", 0 <= self.head_epochs <= self.epochs, "0 or more, and not above epochs")
        last = self.unfreeze.partition(":")
        wrong = last[0] == "last" and not (last[2].isdecimal() and int(last[2]) >= 1)
        check_field(
            self, "unfreeze", bool(self.unfreeze) and not wrong, '"none", "all", "last:2" or the name of a layer'
        )
        check_field(self, "window", self.window >= 1, "at least 1")
        check_field(self, "lora_rank", self.lora_rank >= 0, "0 or more")
        if self.lora_rank and self.unfreeze != "none":
            raise RecipeError("lora_rank leaves the backbone's own weights frozen", "leave out unfreeze, or lora_rank")
        if self.head_epochs and not self.backbone_learns:
            raise RecipeError(
                "head_epochs is for a backbone that learns too", 'set unfreeze, such as "last:2", or lora_rank'
            )
        read_augment(self.augment)
        read_mix(self.mix)

    @property
    def backbone_learns(self) -> bool:
        """Whether anything of it does."""
        return self.unfreeze != "none" or self.lora_rank > 0


def with_settings(training: TrainConfig | Mapping[str, Any] | None, **single: Any) -> TrainConfig:
    """``training`` with ``single`` settings changed; of those, None changes nothing.

    Raises:
        RecipeError: a setting that is unknown, or cannot be what it is.
    """
    return with_changes(TrainConfig, training, "training", **single)
