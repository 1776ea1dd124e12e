"""The command group: order of the commands, and how errors look."""

from __future__ import annotations

import os
import sys

import click

from pocketzoo import __version__
from pocketzoo.cli import hub, look, model, ship
from pocketzoo.errors import PocketzooError
from pocketzoo.optional import missing


class Commands(click.Group):
    """Lists commands in the order of the work, and turns errors a user can mend into two lines and exit 1."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except PocketzooError as error:  # anything else is a bug and keeps its traceback
            show_error(missing(error) or error)
            context.exit(1)
        except ImportError as error:
            if (explained := missing(error)) is None:
                raise
            show_error(explained)
            context.exit(1)


def show_error(error: PocketzooError) -> None:
    """Two lines on stderr: what, and what next."""
    click.echo(f"{click.style('error:', fg='red', bold=True)} {' '.join(error.message.split())}", err=True)
    if error.hint:
        click.echo(f"{click.style('hint:', fg='cyan', bold=True)}  {' '.join(error.hint.split())}", err=True)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", message="pocketzoo %(version)s")
@click.option("--offline", is_flag=True, help="Open no connection; use what is stored.")
def cli(offline: bool) -> None:
    """Take a pretrained model, fit it to your data, make it small, run it on an edge GPU.

    Start with "pocketzoo demo", or look around with "pocketzoo list". A MODEL is a bundle (a folder
    that fit or compress wrote), the name of a registered model, or hf://org/name for one of the Hub.
    """
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # the Hub's client reads it when it is imported, which is later


for command in (look.list_, look.info, look.plugins, look.new_plugin, look.doctor):
    cli.add_command(command)
for command in (hub.search, hub.pull, hub.lock, hub.update, hub.outdated, hub.store):
    cli.add_command(command)
for command in (model.fit, model.eval_, model.compress):
    cli.add_command(command)
for command in (ship.export, ship.bench, ship.predict, ship.report, ship.verify, hub.push, ship.demo):
    cli.add_command(command)


def main() -> None:
    """The entry point of the "pocketzoo" script."""
    # Names of classes and files may hold any character; a terminal that lacks it must not end the program.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    cli(prog_name="pocketzoo")
