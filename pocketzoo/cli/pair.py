"""Command to join two encoders: pair."""

from __future__ import annotations

from pathlib import Path

import click

from pocketzoo.cli.echo import echo
from pocketzoo.cli.options import force_option, json_option, names, out_option, resolver
from pocketzoo.cli.render import Bars, print_json


@click.command()
@click.argument("models", metavar="[NAME=]MODEL...", nargs=-1, required=True, shell_complete=names("backbone"))
@out_option(required=True, text="Bundle to write.")
@force_option
@json_option
def pair(models: tuple[str, ...], out: Path, force: bool, as_json: bool) -> None:
    """Join two encoders of one space into one bundle.

    Each is a bundle, a registered model or a .onnx file whose first output is its embedding, and is called NAME, or
    else as its file is: pair image=vision.onnx text=words.onnx -o clip. A sample of the pair has both names.
    """
    from pocketzoo.zoo.artifacts.pair_encoders import named_encoders, pair_encoders

    bundle = pair_encoders(named_encoders(models), out, force=force, registry=resolver(), progress=Bars())
    size = sum(file.stat().st_size for file in bundle.path.iterdir())
    encoders = list(bundle.graphs(""))
    if as_json:
        print_json({"bundle": str(out), "bytes": size, "encoders": encoders})
    else:
        echo(f"wrote {out} of {' and '.join(encoders)} ({size:,} bytes)")
