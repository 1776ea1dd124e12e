"""Parse the augmentation settings, such as "flip,rotate:15" and "mixup:0.2". No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, get_args, get_type_hints

from pocketzoo.core.errors import RecipeError, nearest
from pocketzoo.core.renamed import renamed, warn_renamed

Fill = Literal["border", "reflect", "black"]
Mixing = Literal["mixup", "cutmix"]


@renamed(colour="color")
@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentSpec:
    """The maximum strength of each random change of an image; 0 turns it off. Every image is drawn anew."""

    flip: float = 0.0  # probability of a mirror image, left to right
    rotate: float = 0.0  # degrees, either way
    shift: float = 0.0  # fraction of the side length, in any direction
    shear: float = 0.0  # degrees, along the rows
    zoom: float = 0.0  # fraction of the size, in or out
    color: float = 0.0  # fraction of brightness, contrast and saturation, more or less
    hue: float = 0.0  # fraction of the color circle, either way
    fill: Fill = "border"  # what comes in from outside: the nearest pixel, a mirror image, or black

    def __post_init__(self) -> None:
        for name, limit in LIMITS.items():
            if not 0.0 <= getattr(self, name) <= limit:
                raise RecipeError(f"augment cannot have {name}:{getattr(self, name):g}", f"give 0 to {limit:g}")
        if self.fill not in get_args(Fill):
            raise RecipeError(f"augment cannot have fill:{self.fill}", nearest(self.fill, get_args(Fill)))

    @property
    def moves(self) -> bool:
        """Whether pixels come to lie elsewhere, other than in the mirror."""
        return any((self.rotate, self.shift, self.shear, self.zoom))

    @property
    def moving(self) -> tuple[str, ...]:
        """The changes that are asked for by which things come to lie elsewhere."""
        return tuple(name for name in MOVES if getattr(self, name))

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in LIMITS)


MOVES = ("flip", "rotate", "shift", "shear", "zoom")
LIMITS = {"flip": 1.0, "rotate": 180.0, "shift": 0.9, "shear": 60.0, "zoom": 0.9, "color": 0.9, "hue": 0.5}


@dataclass(frozen=True, slots=True)
class MixSpec:
    """Pairs of samples become one: the fraction of the first is drawn from Beta(alpha, alpha)."""

    kind: Mixing
    alpha: float

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha < math.inf:
            raise RecipeError(f"mix cannot have an alpha of {self.alpha:g}", "it must be above 0: mixup:0.2, cutmix:1")


def read_augment(text: str) -> AugmentSpec:
    """From "flip,rotate:15,shift:0.1,fill:reflect"; flip alone is one image in two.

    Raises:
        RecipeError: no change is called so, or it does not go so far.
    """
    known = [field.name for field in fields(AugmentSpec)]
    values: dict[str, float | str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition(":")
        if name == "colour":
            warn_renamed(name, "color")
            name = "color"
        if name not in known:
            raise RecipeError(f"augment has no {name!r}", nearest(name, known))
        if name in values:
            raise RecipeError(f"augment has {name} more than once", "give it once")
        values[name] = value if name == "fill" else _number(part, value or ("0.5" if name == "flip" else ""))
    return AugmentSpec(**values)  # type: ignore[arg-type]


def read_mix(text: str) -> MixSpec | None:
    """From "mixup:0.2" or "cutmix:1.0"; None from nothing.

    Raises:
        RecipeError: it is neither, or alpha is not a number above 0.
    """
    if not text:
        return None
    kind, _, value = text.partition(":")
    kinds = get_args(get_type_hints(MixSpec)["kind"])
    if kind not in kinds:
        raise RecipeError(f"mix cannot be {text!r}", nearest(kind, kinds))
    return MixSpec(kind, _number(text, value))  # type: ignore[arg-type]


def _number(part: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        raise RecipeError(f"{part!r} has no number", "write NAME:NUMBER, such as rotate:15 or mixup:0.2") from None
    return number
