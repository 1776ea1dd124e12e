"""The settings of ``fit``: a frozen, validated dataclass, the same in Python and on the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from pocketzoo.core.errors import RecipeError, check_field, nearest
from pocketzoo.core.former_names import names_before
from pocketzoo.core.renamed import renamed
from pocketzoo.core.typed import with_changes
from pocketzoo.train.augment.specification import read_augment, read_mix
from pocketzoo.zoo.catalog.processor import Missing
from pocketzoo.zoo.catalog.specs import WINDOW

Optimizer = Literal["adamw", "adam", "sgd", "rmsprop"]
Schedule = Literal["cosine", "linear", "step", "constant"]
Precision = Literal["float32", "bfloat16", "float16"]


SAYS = {  # the help of the command line's options too
    "epochs": "Number of training epochs.",
    "batch_size": "Samples per optimizer step, over all processes.",
    "seed": "Random seed, also for the splits.",
    "optimizer": "Optimizer.",
    "learning_rate": "Peak learning rate of the head.",
    "momentum": "Momentum of sgd and rmsprop, 0-1.",
    "weight_decay": "Weight decay, except for biases and norms.",
    "schedule": "Learning-rate schedule; step: divide by 10 after each third.",
    "warm_up": "Fraction of the steps for linear warm-up, 0-1.",
    "clip": "Maximum norm of the gradient.",
    "label_smoothing": "Label smoothing, 0-1.",
    "balanced": "Weight all classes equally, however many samples they have.",
    "patience": "Epochs without a better validation score before early stopping.",
    "unfreeze": "Backbone layers to fine-tune: all, last:N blocks, or a layer and all after it.",
    "head_epochs": "Number of first epochs that train the head only.",
    "backbone_rate": "Learning rate of the backbone's last block, as a fraction of the head's.",
    "layer_decay": "Learning rate of a block, as a fraction of that of the next block.",
    "lora_rank": "Rank of LoRA adapters on the backbone's linear layers, merged in the end; 0: none.",
    "lora_alpha": "LoRA adapters are scaled by alpha / rank.",
    "lora_dropout": "Dropout on the input of LoRA adapters, 0-1.",
    "augment": "Image augmentation: flip,rotate:15,shift:0.1,shear:10,zoom:0.2,color:0.2,hue:0.05.",
    "mix": "Mix pairs of samples and their labels: mixup:0.2 or cutmix:1.",
    "window": "Maximum sequence length for training a language model, in tokens.",
    "precision": "Compute precision; weights stay float32.",
    "missing": "What stands for a missing number of a table: mean or median of its column; without it an error.",
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
    missing: Missing = ""

    def __post_init__(self) -> None:
        share = "at least 0 and below 1"
        check_field(self, "epochs", self.epochs >= 1, "at least 1")
        check_field(self, "batch_size", self.batch_size >= 1, "at least 1")
        check_field(self, "seed", 0 <= self.seed < 2**31, "0 or more, below 2^31")
        for name, known in (("optimizer", Optimizer), ("schedule", Schedule), ("precision", Precision),
                            ("missing", Missing)):  # fmt: skip
            if (value := getattr(self, name)) not in get_args(known):
                raise RecipeError(f"{name} cannot be {value!r}", nearest(str(value), filter(None, get_args(known))))
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
            raise RecipeError("lora_rank keeps the backbone's own weights frozen", "leave out unfreeze, or lora_rank")
        if self.head_epochs and not self.backbone_learns:
            raise RecipeError(
                "head_epochs needs a backbone that is fine-tuned", 'set unfreeze, such as "last:2", or lora_rank'
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


if not TYPE_CHECKING:  # which would take any name for one of these
    __getattr__ = names_before(__name__)
