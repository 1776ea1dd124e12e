"""Print what to do next. A file of its own, so that an error is shown without what prints results."""

from __future__ import annotations

from pocketzoo.cli.echo import echo


def print_hint(text: str) -> None:
    """What next, on stderr."""
    echo(f"  {' '.join(text.split())}", mark="hint:", color="cyan", err=True)
