"""Build the augmentation that the settings ask for, as called on each training batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pocketzoo.core.errors import RecipeError
from pocketzoo.core.optional import require
from pocketzoo.train.augment.mixed_targets import Wanted
from pocketzoo.train.augment.specification import AugmentSpec, MixSpec, read_augment, read_mix
from pocketzoo.train.augment.transforms import DRAWS, augmented, mixed, movement
from pocketzoo.train.distributed.process_group import World
from pocketzoo.train.settings import TrainConfig
from pocketzoo.zoo.catalog.processor import Processor
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.data.processors.open_processor import as_processor
from pocketzoo.zoo.modules.inputs import TensorInputs

Change = Callable[[TensorInputs, Tensor, int], tuple[TensorInputs, Wanted]]


def augmenter(
    config: TrainConfig, reads: Any, world: World, move: Callable[[Tensor, Tensor], Tensor] | None = None
) -> Change | None:
    """What ``Phase.augment`` is for these settings; None where they change nothing.

    ``reads`` is the model's processor, or the config of one. Of a model of several inputs the images are augmented, all
    of a sample in the same way, and mixup mixes every input. ``move`` takes targets with their (first) image, as
    ``TaskTraining`` says.

    All processes draw for the whole batch and take the draws of their own part, so that an image becomes the same
    however many they are. Samples are mixed with others of the same process.

    Raises:
        RecipeError: the model reads no images, or no colors; or an input of it cannot be mixed.
        MissingDependencyError: kornia is not installed.
    """
    augment, mix, processor = read_augment(config.augment), read_mix(config.mix), as_processor(reads)
    if not augment and mix is None:
        return None
    images = _images(processor)
    _check(augment, mix, processor, images)
    axes = {tensor.name: tensor.batch for tensor in processor.inputs}
    if augment:
        require("kornia", extra="augment")

    def change(x: TensorInputs, y: Tensor, count: int) -> tuple[TensorInputs, Wanted]:
        if augment:
            # Where broken images are left out there is one process, and fewer rows than were asked for.
            draws = torch.rand(count if world.size > 1 else len(y), len(DRAWS))
            own = draws[world.rank :: world.size].to(y.device)
            x = {**x, **{spec.name: augmented(x[spec.name], augment, spec, own) for spec in images}}
            y = y if move is None else move(y, movement(augment, images[0], own))
        return mixed(x, y, mix, axes) if mix else (x, [(1.0, y)])

    return change


def _images(processor: Processor) -> tuple[InputSpec, ...]:
    """What each input is like that is an image."""
    one: tuple[InputSpec, ...] = () if processor.image is None else (processor.image,)
    images: tuple[InputSpec, ...] = getattr(processor, "images", one)
    return images


def _check(augment: AugmentSpec, mix: MixSpec | None, processor: Processor, images: Sequence[InputSpec]) -> None:
    numbers = {tensor.name: tensor.dtype.startswith("float") for tensor in processor.inputs}
    if not images:
        if not all(numbers.values()):
            raise RecipeError("augment and mix need images, and this model reads text", "leave them out")
        if augment or (mix and mix.kind == "cutmix"):
            raise RecipeError(
                "augment and cutmix need images, and this model does not read images",
                "mix=mixup:0.2 works for any input",
            )
    others = [name for name, number in numbers.items() if mix and not number]
    if others:
        raise RecipeError(f"mix needs numbers, and the input {others[0]!r} has none that can be mixed", "leave it out")
    alongside = [name for name in numbers if name not in {spec.name for spec in images}]
    if mix and mix.kind == "cutmix" and (alongside or len({spec.size[1:] for spec in images}) > 1):
        what = f"reads {alongside[0]!r} alongside" if alongside else "reads images of several sizes"
        raise RecipeError(
            f"cutmix puts a part of one image into another, and this model {what}",
            "mix=mixup:0.2 mixes every input",
        )
    colors = [spec for spec in images if spec.size[0] in (1, 3) and spec.mean]
    if (augment.color or augment.hue) and len(colors) < len(images):
        raise RecipeError(
            "augment changes colors, and the color range of this model's input is not known", "leave out color and hue"
        )
