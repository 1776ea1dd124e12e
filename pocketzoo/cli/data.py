"""Commands that look at data: data preview."""

from __future__ import annotations

from pathlib import Path

import click

from pocketzoo.cli.options import named, names, out_option, seed_option


@click.group()
def data() -> None:
    """Look at data before it is learned from."""


@data.command()
@click.argument("data", metavar="D", shell_complete=names("dataset"))
@out_option(required=True, text="Where to write the sheet, a PNG or JPEG.")
@click.option("--backbone", default="", shell_complete=names("backbone"), help="Show pictures as this one reads them.")
@click.option("--samples", type=click.IntRange(1), default=8, show_default=True, help="Pictures to show.")
@click.option("--set", "training", multiple=True, metavar="NAME=VALUE",
              help="augment or mix, as for fit; may be given more than once.")  # fmt: skip
@seed_option
def preview(data: str, out: Path, backbone: str, samples: int, training: tuple[str, ...], seed: int) -> None:
    """Draw a contact sheet of D: pictures with their classes, and what augmentation makes of them."""
    from pocketzoo.train.contact_sheet import preview

    width, height = preview(
        data, out, backbone=backbone, samples=samples, seed=seed, training=named(training, "--set")
    )  # fmt: skip
    click.echo(f"wrote {out} ({width} x {height} pixels)")
