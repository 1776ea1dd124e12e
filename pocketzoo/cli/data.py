"""Commands that inspect data: data preview."""

from __future__ import annotations

from pathlib import Path

import click

from pocketzoo.cli.echo import echo
from pocketzoo.cli.options import Whole, named, names, out_option, resolver, seed_option


@click.group()
def data() -> None:
    """Inspect data before training."""


@data.command()
@click.argument("data", metavar="D", shell_complete=names("dataset"))
@out_option(required=True, text="Image file to write, PNG or JPEG.")
@click.option(
    "--backbone", default="", shell_complete=names("backbone"), help="Preprocess images as this backbone does."
)
@click.option("--samples", type=Whole(1), default=8, show_default=True, help="Number of images.")
@click.option("--set", "training", multiple=True, metavar="NAME=VALUE",
              help="augment or mix, as for fit; repeatable.")  # fmt: skip
@seed_option
def preview(data: str, out: Path, backbone: str, samples: int, training: tuple[str, ...], seed: int) -> None:
    """Draw a contact sheet of D: images with their labels, and augmented copies."""
    from pocketzoo.train.contact_sheet import preview

    width, height = preview(
        data, out, backbone=backbone, samples=samples, seed=seed, training=named(training, "--set"),
        registry=resolver(),
    )  # fmt: skip
    echo(f"wrote {out} ({width} x {height} pixels)")
