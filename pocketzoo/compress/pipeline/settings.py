"""What ``compress`` is asked for besides model, place and data, as one value that is passed on whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketzoo.core.errors import DataError, RecipeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Those of the settings that a recipe for the whole job has as well.

    Raises:
        RecipeError: there is no target, or ``max_drop`` is not at least 0 and below 1.
        DataError: fewer than one sample.
    """

    targets: tuple[str, ...] = ("cpu",)
    samples: int = 256
    max_drop: float | None = None
    min_sqnr: float | None = None
    keep_slower: bool = False
    accept: bool = False
    outputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.targets:
            raise RecipeError("no target is given", "name one or more, such as cpu")
        if self.samples < 1:
            raise DataError(f"{self.samples} samples cannot calibrate", "give one or more")
        if self.max_drop is not None and not 0.0 <= self.max_drop < 1.0:
            raise RecipeError(
                f"max_drop cannot be {self.max_drop}", "give a fraction of at least 0 and below 1: 0.01 is 1%"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressSettings(Limits):
    """The arguments of ``compress``, which says what each means; a test holds the two equal.

    A registry and a progress are no settings: they do not say what is to be made.
    """

    steps: tuple[Any, ...] = ()  # Step, or bare configs
    recipe: str | Path | None = None
    seed: int = 0
    skip_bad: bool = False
    force: bool = False


DEFAULTS = CompressSettings()
