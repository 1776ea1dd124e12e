"""The mlp backbone: linear layers on a feature vector or a flattened image, without pretrained weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pocketzoo.core.errors import RecipeError
from pocketzoo.core.renamed import renamed
from pocketzoo.plugins.head_options import Activation
from pocketzoo.zoo.catalog.hookspecs import hookimpl
from pocketzoo.zoo.catalog.processor_configs import TableSpec
from pocketzoo.zoo.catalog.specs import BackboneSpec, FeatureSpec, InputSpec

if TYPE_CHECKING:
    from torch import nn


@renamed(standardise="standardize")
@dataclass(frozen=True, slots=True, kw_only=True)
class PerceptronOptions:
    """What the perceptron reads, and its layers; as it comes it is 784-512-256 on images of 28 x 28."""

    input: tuple[int, ...] = (1, 28, 28)  # of one sample: a number of values, or channels, height, width
    hidden: tuple[int, ...] = (512, 256)  # units of each layer, the features last
    activation: Activation = "relu"  # after each of them
    dropout: float = 0.0  # fraction of the units left out while training, 0 to below 1
    mean: float = 0.0  # of images, whose pixels are 0-1: subtracted, and then divided by std
    std: float = 1.0
    columns: tuple[str, ...] = ()  # of vectors: what each number is, where that is known
    standardize: bool = False  # of vectors, in the module: each number by its mean and deviation in the training data

    def __post_init__(self) -> None:
        if len(self.input) not in (1, 3) or min(self.input) < 1:
            raise RecipeError(f"input cannot be {self.input}", "give the number of features, or channels,height,width")
        if not self.hidden or min(self.hidden) < 1:
            raise RecipeError(f"hidden cannot be {self.hidden}", "give 1 or more units per layer")
        if not 0 <= self.dropout < 1:
            raise RecipeError(f"dropout cannot be {self.dropout}", "give a fraction of at least 0 and below 1")
        if self.columns and (len(self.input) != 1 or len(self.columns) != self.input[0]):
            raise RecipeError(
                f"{len(self.columns)} columns do not go with input {self.input}", "give one for each number"
            )
        if self.standardize and len(self.input) != 1:
            raise RecipeError("images are not standardized", "leave out standardize, or give mean and std")
        if not self.std > 0:
            raise RecipeError(f"std cannot be {self.std}", "give a number above 0")


@hookimpl
def pocketzoo_backbones() -> list[BackboneSpec]:
    return [_spec(PerceptronOptions())]


def _spec(options: PerceptronOptions) -> BackboneSpec:
    return BackboneSpec(
        name="mlp",
        summary="multilayer perceptron, 784-512-256 by default, not pretrained",
        license="Apache-2.0",
        input=InputSpec(
            shape=("batch", *options.input),
            mean=(options.mean,) * options.input[0],
            std=(options.std,) * options.input[0],
            resize=min(options.input[1:]),
        )
        if len(options.input) == 3
        else TableSpec(width=options.input[0], columns=options.columns),
        features=FeatureSpec("vector", ("batch", options.hidden[-1])),
        build=partial(_build, options),
        source="https://doi.org/10.1038/323533a0",
        options=PerceptronOptions,
        configure=_spec,
    )


def _build(options: PerceptronOptions) -> nn.Module:
    from torch import nn

    from pocketzoo.plugins.head_modules import ACTIVATIONS, Standardize

    layers = nn.Sequential()
    if len(options.input) == 3:
        layers.append(nn.Flatten())
    if options.standardize:
        layers.add_module("standard", Standardize(options.input[0]))
    width = 1
    for side in options.input:
        width *= side
    for number, units in enumerate(options.hidden, start=1):
        layers.add_module(f"linear_{number}", nn.Linear(width, units))
        layers.add_module(f"activation_{number}", ACTIVATIONS[options.activation]())
        layers.add_module(f"dropout_{number}", nn.Dropout(options.dropout))
        width = units
    return layers
