"""What a .onnx file does not say, as options of every command that takes a model; and the command open, which keeps it.

``open`` lists them; the help of the others says that they are there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from pocketzoo.cli.echo import echo
from pocketzoo.cli.options import NO_DATA, force_option, named, names, out_option, sides_of
from pocketzoo.cli.render import Bars, print_columns
from pocketzoo.core.errors import DataError, RecipeError

if TYPE_CHECKING:
    from pocketzoo.zoo.graphs.foreign.metadata import Number, OnnxMetadata

F = TypeVar("F", bound=Callable[..., object])
SUFFIX = ".onnx"
HELP = "A .onnx file is taken too, with the options of open, such as --size 320x480 or --labels FILE."
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
OPTIONS: Mapping[str, dict[str, Any]] = {
    "--size": {"metavar": "HxW", "help": "Size of images in pixels, where the graph takes any: 224, or 320x480."},
    "--axis": {"multiple": True, "metavar": "NAME=N", "help": "Usual length of another free axis; repeatable."},
    "--mean": {"metavar": "M,..", "help": "Pixel mean (0-1) per channel."},
    "--std": {"metavar": "S,..", "help": "Pixel standard deviation per channel."},
    "--labels": {"type": FILE, "metavar": "FILE", "help": "Classes of the output: one label per line."},
    "--classes-axis": {"metavar": "[OUT:]N",
                       "help": "Axis of maps or rows of scores that counts classes [default: as long as --labels]."},
    "--task": {"metavar": "NAME", "shell_complete": names("task"),
               "help": "What the outputs are for [default: classification, with --labels]."},
    "--decoder": {"metavar": "NAME", "shell_complete": names("decoder"),
                  "help": "How outputs become answers [default: as the task has it]."},
    "--processor": {"metavar": "NAME", "shell_complete": names("processor"),
                    "help": "What makes the inputs of samples [default: the one that can]."},
    "--tokenizer": {"type": FILE, "metavar": "FILE",
                    "help": "tokenizer.json of a text model [default: the one alongside]."},
    "--state": {"multiple": True, "metavar": "OUT=IN", "help": "Output that is an input of the next call; repeatable."},
    "--set": {"multiple": True, "metavar": "INPUT=VALUE", "help": "Value of an input in all calls; repeatable."},
}  # fmt: skip


def graph_options(
    *arguments: str, shown: bool = False, raw: bool = False, writes: bool = False, data: bool = False
) -> Callable[[F], F]:
    """The options, on a command whose ``arguments`` are models: it gets .onnx files as the bundles they are opened as.

    ``shown``: in its help. ``raw``: a file that no option is given for stays the file. ``writes``: a bundle to its
    ``out``, which is looked at before a file is read. ``data``: it does nothing without --data.
    """

    def decorate(f: F) -> F:
        @wraps(f)
        def command(*args: Any, **given: Any) -> Any:
            own = {option: given.pop(_parameter(option)) for option in OPTIONS}
            said = {option: value for option, value in own.items() if value not in (None, ())}
            models = [name for name in arguments for each in _each(given[name]) if is_graph(each)]
            if said and not models:
                raise click.UsageError(f"{next(iter(said))} is for a .onnx file; other models know theirs")
            if models and data and given["data"] is None:
                raise click.UsageError(_which_data(given[models[0]]))
            if models and not (raw and not said):
                metadata = _metadata(said)
                if writes and given["out"] is not None and not given.get("dry_run"):
                    from pocketzoo.zoo.bundles.work_folder import check_place

                    check_place(given["out"], force=given["force"])
                for name in dict.fromkeys(models):
                    given[name] = _opened(given[name], metadata, given.get("data") or _of_arrays(given.get("files")))
            return f(*args, **given)

        if not shown:
            command.__doc__ = f"{cleandoc(f.__doc__ or '')}\n\n{HELP}"
        decorated = cast("F", command)
        for option, facts in reversed(list(OPTIONS.items())):
            decorated = click.option(option, _parameter(option), hidden=not shown, **facts)(decorated)
        return decorated

    return decorate


def is_graph(model: object) -> bool:
    """Whether a model is given as a .onnx file."""
    path = Path(str(model).removeprefix("file:"))
    return path.suffix == SUFFIX and path.is_file()


def _parameter(option: str) -> str:
    return f"onnx_{option.removeprefix('--').replace('-', '_')}"


def _each(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _opened(value: Any, metadata: OnnxMetadata, data: Any) -> Any:
    """Models with the bundles of those that are .onnx files in their place, of the type that they are given as."""
    from pocketzoo.zoo.models.open_model import open_model

    opened = tuple(
        type(each)(open_model(each, metadata=_with_lengths(metadata, each, data), progress=Bars()).path)
        if is_graph(each)
        else each
        for each in _each(value)
    )
    return opened if isinstance(value, tuple) else opened[0]


def _of_arrays(files: Any) -> Any:
    """The first of files to predict that is one of arrays."""
    return next((file for file in files or () if Path(str(file)).suffix.lower() in (".npz", ".safetensors")), None)


def _which_data(model: Any) -> str:
    from pocketzoo.zoo.data.processors.needed_data import needed_data
    from pocketzoo.zoo.models.import_onnx import stated_signature

    path = Path(str(model).removeprefix("file:"))
    signature = stated_signature(path)
    if signature is None or not signature.inputs:
        return f"{NO_DATA}."
    return f"{NO_DATA}: {path.name} takes {needed_data(signature, path.name)}"


def _with_lengths(metadata: OnnxMetadata, model: Any, data: Any) -> OnnxMetadata:
    """The metadata with what the arrays of ``data`` show: the usual lengths of free axes, and what a sample is."""
    if not data or metadata.states:
        return metadata
    from pocketzoo.zoo.data.load_data import split_columns
    from pocketzoo.zoo.data.shown_lengths import are_whole, lengths_of, shown_arrays
    from pocketzoo.zoo.models.import_onnx import stated_signature

    signature = stated_signature(Path(str(model).removeprefix("file:")))
    if signature is None:
        return metadata
    arrays, inputs = shown_arrays(Path(split_columns(data)[0])), signature.inputs
    return replace(metadata, seen=lengths_of(arrays, inputs), whole=are_whole(arrays, inputs))


def _metadata(said: Mapping[str, Any]) -> OnnxMetadata:
    """What the options say."""
    from pocketzoo.zoo.graphs.foreign.metadata import OnnxMetadata

    return OnnxMetadata(
        mean=_numbers(said.get("--mean", "")),
        std=_numbers(said.get("--std", "")),
        size=_size(said["--size"]) if "--size" in said else None,
        axes={name: _length(name, text) for name, text in named(said.get("--axis", ()), "--axis").items()},
        values={name: _values(name, text) for name, text in named(said.get("--set", ()), "--set").items()},
        states=_states(said.get("--state", ())),
        labels=_labels(said["--labels"]) if "--labels" in said else (),
        classes_axis=_axis(said["--classes-axis"]) if "--classes-axis" in said else None,
        tokenizer=said.get("--tokenizer"),
        processor=said.get("--processor", ""),
        task=said.get("--task", ""),
        decoder=said.get("--decoder", ""),
    )


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise click.UsageError(f"{text!r} is not a list of numbers; write 0.485,0.456,0.406") from error


def _size(text: str) -> int | tuple[int, int]:
    if (sides := sides_of(text)) is None:
        raise click.UsageError(f"--size {text!r} is not in pixels; write 224, or 320x480 for height x width")
    height, width = sides
    return height if height == width else (height, width)


def _axis(text: str) -> tuple[str, int]:
    output, _, number = text.rpartition(":")
    if not number.removeprefix("-").isdecimal() or not number.isascii() or len(number) > 3:
        raise click.UsageError(f"--classes-axis {text!r} is not an axis; write 1, or scores:1 of an output")
    return output, int(number)


def _length(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 9:
        raise click.UsageError(f"--axis {name}={text} is not a length; write {name}=100")
    return int(text)


def _values(name: str, text: str) -> Number | tuple[Number, ...]:
    values = tuple(_value(name, part.strip()) for part in text.split(","))
    return values if len(values) > 1 else values[0]


def _value(name: str, text: str) -> Number:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError as error:
        raise RecipeError(f"--set {name}={text} is not a number", "write numbers, such as sr=16000, or true") from error


def _states(states: tuple[str, ...]) -> dict[str, str]:
    pairs = [(state, *state.partition("=")) for state in states]
    if bad := next((state for state, output, _, given in pairs if not (output and given)), ""):
        raise click.UsageError(f"{bad!r} is not OUTPUT=INPUT; write stateN=state")
    return {output: given for _, output, _, given in pairs}


def _labels(path: Path) -> tuple[str, ...]:
    from pocketzoo.core.reading.documents import MalformedError, read_bytes
    from pocketzoo.zoo.data.processors.encoded_text import lines_of

    try:
        read = lines_of(read_bytes(path), str(path))
    except MalformedError as error:
        raise DataError(f"cannot read the labels in {path}: {error}", "give one label per line") from error
    for number, what in read.bad.items():
        raise DataError(f"cannot read the labels in {path}: line {number} {what}", "give one label per line")
    return tuple(label for _, label in read.texts())


@click.command("open")
@click.argument("model", metavar="FILE.onnx", type=FILE)
@graph_options("model", shown=True, writes=True)
@out_option(required=True, text="Bundle to write.")
@force_option
def open_(model: Path, out: Path, force: bool) -> None:
    """Open an ONNX file as a bundle, with what the file does not say.

    Its batch axis is found by running it. Every command takes the file itself too, with the same options.
    """
    from pocketzoo.zoo.bundles.bundle_tensors import bundle_tensors
    from pocketzoo.zoo.models.open_model import open_model

    bundle = open_model(model, out=out, force=force, progress=Bars())
    print_columns(
        [
            [each.role, each.name, f"{each.dtype} {' x '.join(map(str, each.axes)) or 'one number'}"]
            for each in bundle_tensors(bundle)
        ]
    )
    echo(f"wrote {out}")
