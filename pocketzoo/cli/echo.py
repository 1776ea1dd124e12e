"""Print a line, or what to do next: the one place that does, so that no foreign text reaches a terminal as it is."""

from __future__ import annotations

import click

from pocketzoo.core.untrusted.shown import shown, shown_json


def echo(
    text: object = "", *, mark: str = "", color: str = "", dim: bool = False, err: bool = False, nl: bool = True
) -> None:
    """``text`` with its control characters written out, after a ``mark`` in bold ``color``."""
    line = shown(text)
    line = click.style(line, dim=True) if dim else line
    click.echo(click.style(mark, fg=color or None, bold=True) + line if mark else line, err=err, nl=nl)


def echo_json(text: str) -> None:
    """A document of JSON, which stays one."""
    click.echo(shown_json(text))


def print_hint(text: str) -> None:
    """What next, on stderr."""
    echo(f"  {' '.join(text.split())}", mark="hint:", color="cyan", err=True)
