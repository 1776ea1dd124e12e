"""The command that writes text: generate."""

from __future__ import annotations

import click

from pocketzoo.cli.options import json_option, model_argument, names
from pocketzoo.cli.render import Bars, print_json


@click.command()
@model_argument
@click.argument("prompts", metavar="TEXT...", nargs=-1, required=True)
@click.option("--max-new-tokens", type=click.IntRange(1), default=64, show_default=True, help="To write, at the most.")
@click.option("--beams", type=click.IntRange(1), default=1, show_default=True, help="Texts that are followed at once.")
@click.option("--length-penalty", type=float, default=1.0, show_default=True, help="Of beams: above 0 long texts gain.")
@click.option("--early-stopping", type=click.Choice(["yes", "no", "never"]), default="no", show_default=True,
              help="Of beams: stop once enough are finished; never: while any could get better.")  # fmt: skip
@click.option("--target", default="cpu", show_default=True, shell_complete=names("target"),
              help="Write with the graphs encoded for this target.")  # fmt: skip
@json_option
def generate(
    model: str,
    prompts: tuple[str, ...],
    max_new_tokens: int,
    beams: int,
    length_penalty: float,
    early_stopping: str,
    target: str,
    as_json: bool,
) -> None:
    """Let MODEL continue each TEXT, or answer it.

    A language model continues, an encoder-decoder such as T5 answers.
    """
    from pocketzoo.workflows.generate import generate

    found = generate(
        model,
        prompts,
        max_new_tokens=max_new_tokens,
        beams=beams,
        length_penalty=length_penalty,
        early_stopping="never" if early_stopping == "never" else early_stopping == "yes",
        target=target,
        progress=Bars(),
    )
    if as_json:
        print_json([{"prompt": w.prompt, "text": w.text, "ids": w.ids} for w in found])
        return
    for written in found:
        click.echo(written.text)
