"""Build the augmentation that the settings ask for, as called on each training batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pocketzoo.core.errors import RecipeError
from pocketzoo.core.optional import require
from pocketzoo.train.augment.mixed_targets import Wanted
from pocketzoo.train.augment.specification import read_augment, read_mix
from pocketzoo.train.augment.transforms import DRAWS, augmented, mixed
from pocketzoo.train.distributed.process_group import World
from pocketzoo.train.settings import TrainConfig
from pocketzoo.zoo.data.processors.open_processor import as_processor


def augmenter(
    config: TrainConfig, reads: Any, world: World
) -> Callable[[Tensor, Tensor, int], tuple[Tensor, Wanted]] | None:
    """What ``Phase.augment`` is for these settings; None where they change nothing.

    ``reads`` is the model's processor, or the config of one.

    All processes draw for the whole batch and take the draws of their own part, so that an image becomes the same
    however many they are. Samples are mixed with others of the same process.

    Raises:
        RecipeError: the model reads no images, or no colors.
        MissingDependencyError: kornia is not installed.
    """
    augment, mix, processor = read_augment(config.augment), read_mix(config.mix), as_processor(reads)
    if not augment and mix is None:
        return None
    if not all(tensor.dtype.startswith("float") for tensor in processor.inputs):
        raise RecipeError("augment and mix need images, and this model reads text", "leave them out")
    if (spec := processor.image) is None:
        if augment or (mix and mix.kind == "cutmix"):
            raise RecipeError(
                "augment and cutmix need images, and this model does not read images",
                "mix=mixup:0.2 works for any input",
            )
        return lambda x, y, count: mixed(x, y, mix) if mix else (x, [(1.0, y)])
    if (augment.color or augment.hue) and (spec.size[0] not in (1, 3) or not spec.mean):
        raise RecipeError(
            "augment changes colors, and the color range of this model's input is not known", "leave out color and hue"
        )
    if augment:
        require("kornia", extra="augment")

    def change(x: Tensor, y: Tensor, count: int) -> tuple[Tensor, Wanted]:
        if augment:
            # Where broken images are left out there is one process, and fewer rows than were asked for.
            draws = torch.rand(count if world.size > 1 else len(x), len(DRAWS))
            x = augmented(x, augment, spec, draws[world.rank :: world.size].to(x.device))
        return mixed(x, y, mix) if mix else (x, [(1.0, y)])

    return change
