"""The command that finds a learning rate: find-rate."""

from __future__ import annotations

from pathlib import Path

import click

from pocketzoo.cli.echo import echo
from pocketzoo.cli.options import (
    Whole,
    image_size,
    json_option,
    model_options,
    named,
    out_option,
    resolver,
    seed_option,
    training_options,
)
from pocketzoo.cli.render import Bars, print_json


@click.command()
@model_options
@training_options("batch_size", "unfreeze")
@click.option("--steps", type=Whole(20), default=100, show_default=True, help="Number of training steps.")
@out_option(required=False, text="Plot to an .svg or .html file.")
@seed_option
@json_option
def find_rate(
    backbone: str,
    head: str,
    head_options: tuple[str, ...],
    backbone_options: tuple[str, ...],
    data: str | None,
    cut: str,
    input_size: str | None,
    batch_size: int | None,
    unfreeze: str | None,
    training: tuple[str, ...],
    steps: int,
    out: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Find a learning rate for fit with the same options.

    Increases the learning rate until the loss diverges, and suggests the rate at which the loss fell fastest. The
    trained weights are discarded.
    """
    from pocketzoo.reports.html_page import check_drawing
    from pocketzoo.reports.learning_rate_plot import draw_rates
    from pocketzoo.train.learning_rate_finder import find_rate

    if out:
        check_drawing(out)
    curve = find_rate(
        backbone,
        data=data,
        head=head,
        head_options=named(head_options, "--head-option"),
        backbone_options=named(backbone_options, "--backbone-option"),
        cut=cut,
        input_size=image_size(input_size),
        batch_size=batch_size,
        unfreeze=unfreeze,
        seed=seed,
        training=named(training, "--set"),
        steps=steps,
        registry=resolver(),
        progress=Bars(),
    )
    best = curve.suggestion
    if out is not None:
        draw_rates(out, curve.rates, curve.losses, curve.smoothed, best, f"{backbone} on {data}: which learning rate")
    if as_json:
        print_json({"learning_rate": best, "rates": curve.rates, "losses": curve.losses, "smoothed": curve.smoothed})
        return
    echo(f"--learning-rate {best:.2g}")
    if out is not None:
        echo(f"wrote {out}")
