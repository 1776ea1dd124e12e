"""Options that several commands share, and completion of registered names."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from pocketzoo.core.errors import LockError, PocketzooError, RecipeError
from pocketzoo.core.former_names import names_before
from pocketzoo.train.settings import SAYS, TrainConfig

if TYPE_CHECKING:
    from pocketzoo.zoo.models.resolver import Resolver

F = TypeVar("F", bound=Callable[..., object])


def names(
    *kinds: str, but: Callable[[Any], bool] = lambda spec: False
) -> Callable[[click.Context, click.Parameter, str], list[click.shell_completion.CompletionItem]]:
    """Complete registered names of these kinds ``but`` some, and files."""
    from click.shell_completion import CompletionItem

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from pocketzoo.zoo.catalog.registry import list_specs

        completions = [CompletionItem(incomplete, type="file")]
        for kind in kinds:
            try:
                entries = list_specs(kind=kind)
            except PocketzooError:  # completion must stay silent
                continue
            completions += [
                CompletionItem(e.name) for e in entries if e.name.startswith(incomplete) and not but(e.spec)
            ]
        return completions

    return complete


class Fraction(click.ParamType[float]):
    """A fraction as "1%" or "0.01"; "1" could be either and is rejected."""

    name = "fraction"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value)
        try:
            fraction = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            self.fail(f"{text!r} is not a fraction; write 1% or 0.01", param, ctx)
        if not 0.0 <= fraction < 1.0:
            self.fail(f"{text!r} is not at least 0% and below 100%; write 1% or 0.01", param, ctx)
        return fraction


class Whole(click.IntRange):
    """A whole number of a range whose end no help has to say: what libraries count in 32 bits."""

    def __init__(self, least: int, most: int = 2**31 - 1) -> None:
        super().__init__(least)
        self.most = most

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        number = int(super().convert(value, param, ctx))  # type: ignore[arg-type]
        if number > self.most:
            self.fail(f"{str(value)[:40]} is not at most {self.most}", param, ctx)
        return number


THREADS = Whole(0, 1024)
SEED = Whole(0)


def model_argument(f: F) -> F:
    return click.argument("model", metavar="MODEL", shell_complete=names("backbone"))(f)


def models_argument(f: F) -> F:
    return click.argument("models", metavar="MODEL...", nargs=-1, required=True, shell_complete=names("backbone"))(f)


class _AskedLater(click.Option):
    """An option that is required, which the command says: it knows what is missing."""

    def value_is_missing(self, value: object) -> bool:
        return False


NO_DATA = "Missing option '--data'"


def data_option(required: bool) -> Callable[[F], F]:
    """``--data`` and the options that name columns of a table; the command gets them as one reference."""

    def decorate(f: F) -> F:
        @wraps(f)
        def command(
            *args: Any,
            data: str | None,
            text_column: str | None,
            label_column: str | None,
            group_by: str | None,
            **kw: Any,
        ) -> Any:
            if data is None and required:
                raise click.UsageError(NO_DATA + ".")
            if data is not None and (text_column, label_column, group_by) != (None, None, None):
                from pocketzoo.zoo.data.load_data import with_columns

                data = with_columns(data, text_column, label_column, group_by)
            return f(*args, data=data, **kw)

        group = click.option(
            "--group-by",
            metavar="SOURCE",
            help="folder, column=NAME, pattern=REGEX or sample.",
        )
        label = click.option("--label-column", metavar="C", help="Label column of a table [default: by name].")
        text = click.option("--text-column", metavar="C", help="Column of texts in a table [default: by name].")
        data = click.option(
            "--data",
            metavar="D",
            shell_complete=names("dataset"),
            help="Registered name, class folders, .npz or table.",
            required=required,
            cls=_AskedLater,
        )
        return data(text(label(group(cast("F", command)))))

    return decorate


def out_option(required: bool, text: str) -> Callable[[F], F]:
    return click.option("-o", "--out", type=click.Path(path_type=Path), required=required, metavar="PATH", help=text)


def force_option(f: F) -> F:
    return click.option("--force", is_flag=True, help="Overwrite existing output.")(f)


def signed_option(f: F) -> F:
    return click.option("--force", is_flag=True, help="Change a signed bundle; its signature is dropped.")(f)


def seed_option(f: F) -> F:
    return click.option("--seed", type=SEED, default=0, show_default=True, help="Random seed, also for the splits.")(f)


def skip_bad_option(f: F) -> F:
    return click.option("--skip-bad", is_flag=True, help="Skip unreadable samples and count them.")(f)


def json_option(f: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(f)


def named(options: tuple[str, ...], flag: str) -> dict[str, str]:
    """``NAME=VALUE`` of each."""
    if wrong := [option for option in options if "=" not in option]:
        raise RecipeError(f"{flag} {wrong[0]} has no value", "write NAME=VALUE, such as hidden=512,128")
    pairs = [option.partition("=")[::2] for option in options]
    twice = [name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i])]
    if twice:
        raise RecipeError(f"{flag} {twice[0]} is given more than once", "for a list write commas: hidden=512,128")
    return dict(pairs)


def image_size(text: str | None) -> tuple[int, int] | None:
    """``150`` or ``150x200`` as (height, width)."""
    if text is None:
        return None
    if (sides := sides_of(text)) is None:
        raise RecipeError(f"invalid --input-size {text!r}", "write pixels: 150, or 150x200 for height x width")
    return sides


def sides_of(text: str) -> tuple[int, int] | None:
    """Height and width in pixels of ``150`` or ``150x200``; None of anything else."""
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdecimal() and len(side) < 8 for side in sides):
        return None
    return int(sides[0]), int(sides[-1])


def resolver() -> Resolver:
    """What commands look names up with: everything installed, and references to the Hub as ``zoo.lock`` pins them.

    The one place that reads the lock file of the working directory: a function called from Python reads none.
    """
    from pocketzoo.zoo.hub.lock_file import NAME, Lock
    from pocketzoo.zoo.models.resolver import Resolver

    if not Path(NAME).is_file():
        return Resolver()
    try:
        return Resolver(lock=Lock.read(NAME))
    except LockError as error:  # which is told where a reference needs the file: most commands have none
        return Resolver(lock=Lock(damage=error))


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


if not TYPE_CHECKING:  # which would take any name for one of these
    __getattr__ = names_before(__name__)
