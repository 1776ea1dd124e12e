"""The settings of training as options."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

from pocketzoo.train.settings import SAYS, TrainConfig

F = TypeVar("F", bound=Callable[..., object])


def training_options(command: F) -> F:
    """The settings of training that are set most often, and one option for all others."""
    often, standard = ("epochs", "batch_size", "learning_rate", "unfreeze"), TrainConfig()
    others = ", ".join(name for name in SAYS if name not in (*often, "seed"))
    every = "Another setting; may be given more than once: " + others + "."
    command = click.option("--set", "training", multiple=True, metavar="NAME=VALUE", help=every)(command)
    for name in reversed(often):
        value = getattr(standard, name)
        kind = click.IntRange(1) if isinstance(value, int) else type(value)
        flag, word = f"--{name.replace('_', '-')}", "TEXT" if isinstance(value, str) else "N"
        command = click.option(flag, type=kind, metavar=word, help=f"{SAYS[name]} [default: {value}]")(command)
    return command
