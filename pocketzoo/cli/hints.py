"""Print what to do next. A file of its own, so that an error is shown without what prints results."""

from __future__ import annotations

import click


def print_hint(text: str) -> None:
    """What next, on stderr."""
    click.echo(f"{click.style('hint:', fg='cyan', bold=True)}  {' '.join(text.split())}", err=True)
