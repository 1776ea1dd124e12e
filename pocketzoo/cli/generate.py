"""The command that generates text: generate."""

from __future__ import annotations

import click

from pocketzoo.cli.echo import echo
from pocketzoo.cli.options import Whole, json_option, model_argument, names, resolver
from pocketzoo.cli.render import Bars, print_json


@click.command()
@model_argument
@click.argument("prompts", metavar="TEXT...", nargs=-1, required=True)
@click.option("--max-new-tokens", type=Whole(1), default=64, show_default=True, help="Maximum number of new tokens.")
@click.option("--beams", type=Whole(1), default=1, show_default=True, help="Beam width; 1: greedy search.")
@click.option(
    "--length-penalty",
    type=float,
    default=1.0,
    show_default=True,
    help="Length penalty of beam search; above 0 favors long texts.",
)
@click.option("--early-stopping", type=click.Choice(["yes", "no", "never"]), default="no", show_default=True,
              help="Stop beam search when enough beams are finished; never: when none can improve.")  # fmt: skip
@click.option("--target", default="cpu", show_default=True, shell_complete=names("target"),
              help="Use the generation graphs for this target.")  # fmt: skip
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
    """Generate text with MODEL from each prompt TEXT.

    A language model continues the prompt; an encoder-decoder such as T5 answers it.
    """
    from pocketzoo.workflows.generate import generate

    texts = generate(
        model,
        prompts,
        max_new_tokens=max_new_tokens,
        beams=beams,
        length_penalty=length_penalty,
        early_stopping="never" if early_stopping == "never" else early_stopping == "yes",
        target=target,
        registry=resolver(),
        progress=Bars(),
    )
    if as_json:
        print_json([{"prompt": w.prompt, "text": w.text, "ids": w.ids} for w in texts])
        return
    for written in texts:
        echo(written.text)
