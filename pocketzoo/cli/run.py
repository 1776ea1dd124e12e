"""The command that runs a whole workflow: run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pocketzoo.cli.echo import echo, print_hint
from pocketzoo.cli.options import data_option, force_option, named, names, out_option, resolver
from pocketzoo.cli.render import Bars, print_answer, print_columns, print_measurements
from pocketzoo.core.errors import RejectedError


@click.command()
@click.argument("recipe")
@data_option(required=False)
@click.option("--backbone", metavar="B", shell_complete=names("backbone"), help="Backbone in place of the recipe's.")
@click.option("--set", "changes", multiple=True, metavar="SECTION.FIELD=VALUE",
              help="Override a field of the recipe, such as fit.epochs=3; repeatable.")  # fmt: skip
@out_option(required=False, text="Output folder [default: the recipe's name].")
@click.option("--dry-run", is_flag=True, help="Show the plan; write nothing.")
@force_option
def run(
    recipe: str,
    data: str | None,
    backbone: str | None,
    changes: tuple[str, ...],
    out: Path | None,
    dry_run: bool,
    force: bool,
) -> None:
    """Run a whole workflow from a RECIPE, by name or file.

    The sections of a recipe train a model or an agent, compress, use, export and measure it. An interrupted run resumes
    when the same command is given again; a finished one keeps its models and measures them again. --force replaces
    models of other settings or data.
    """
    from pocketzoo.workflows.run_recipe import find_recipe, read_run_recipe

    path = find_recipe(recipe)
    asked = read_run_recipe(path, named(changes, "--set").items(), backbone=backbone)
    place = out or Path(path.stem)
    if dry_run:
        _print_plan(asked, data or asked.data or asked.own_data)
        return
    from pocketzoo.workflows.run import run as run_recipe

    results = run_recipe(asked, place, data=data, force=force, registry=resolver(), progress=Bars())
    for prediction in results.predictions:
        echo(prediction.file)
        print_answer(prediction)
    if results.plays:
        print_columns([[name, f"mean return {played.mean:.1f}"] for name, played in results.plays])
    for name, texts in results.written:
        echo(name)
        print_columns([["", written.text] for written in texts])
    if results.rows:
        print_measurements(results.rows)
    print_columns([[name, str(where)] for name, where in results.places.items()])
    for why in results.rejected:
        echo(f"rejected: {why}")
    if results.rejected:
        print_hint("ask for less, or accept it with --set compress.accept=true")
        click.get_current_context().exit(RejectedError.exit_code)


def _print_plan(asked: Any, data: str) -> None:
    from pocketzoo.workflows.run import planned_sections

    if asked.summary:
        echo(asked.summary)
    print_columns([["backbone", asked.backbone], ["data", data or "yours: --data"], ["seed", str(asked.seed)]])
    for name, fields in planned_sections(asked, resolver()):
        echo(name)
        print_columns([["", key, _shown(value)] for key, value in fields.items() if value not in ({}, "", [])])


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items() if each is not None)
    if isinstance(value, list):
        return "; ".join(_shown(each) for each in value)
    return str(value)
