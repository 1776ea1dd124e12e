"""Options of the commands that train: backbone, head, data, training settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

from pocketzoo.cli.options import Whole, data_option, names
from pocketzoo.train.settings import SAYS, TrainConfig

F = TypeVar("F", bound=Callable[..., object])


def model_options(command: F) -> F:
    """A backbone, its head and the data."""
    size = "Image size in pixels [default: the backbone's]."
    command = click.option("--input-size", metavar="N|HxW", help=size)(command)
    command = click.option("--cut", default="", help="End the backbone after this layer (see info).")(command)
    command = data_option(required=False)(command)
    option = "Option of the head (see info HEAD)."
    command = click.option("--head-option", "head_options", multiple=True, metavar="NAME=VALUE", help=option)(command)
    option = "Option of the backbone, where it has any."
    command = click.option("--backbone-option", "backbone_options", multiple=True, metavar="NAME=VALUE", help=option)(
        command
    )
    complete = names("head")
    command = click.option(
        "--head", default="linear", show_default=True, shell_complete=complete, help="Head to train."
    )(command)
    return click.argument("backbone", shell_complete=names("backbone"))(command)


def training_options(*often: str) -> Callable[[F], F]:
    """An option for each setting in ``often``, and ``--set`` for all others."""

    def add(command: F) -> F:
        standard = TrainConfig()
        others = ", ".join(name for name in SAYS if name not in (*often, "seed"))
        every = "Other setting, repeatable: " + others + "."
        command = click.option("--set", "training", multiple=True, metavar="NAME=VALUE", help=every)(command)
        for name in reversed(often):
            value = getattr(standard, name)
            kind = Whole(1) if isinstance(value, int) else type(value)
            flag, word = f"--{name.replace('_', '-')}", "TEXT" if isinstance(value, str) else "N"
            command = click.option(flag, type=kind, metavar=word, help=f"{SAYS[name]} [default: {value}]")(command)
        return command

    return add
