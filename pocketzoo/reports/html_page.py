"""The HTML page that all reports share. It is self-contained: nothing is fetched and no script runs."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from pathlib import Path

from pocketzoo.core.errors import ExportError

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(brand: str, title: str, main: str, *, lead: str = "", footer: str = "") -> str:
    """``brand``, ``title`` and ``lead`` are text; ``main`` and ``footer`` are HTML."""
    intro = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    closing = f"\n<footer>{footer}</footer>" if footer else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="pocketzoo">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>
{style()}</style>
</head>
<body>
<header><p class="brand">pocketzoo {escape(brand)}</p><h1>{escape(title)}</h1>{intro}</header>
<main>
{main}
</main>{closing}
</body>
</html>
"""


def style() -> str:
    """The rules that pages and single images share."""
    return files("pocketzoo.reports").joinpath("report.css").read_text("utf8")


def sentence(words: str) -> str:
    """``words`` with a capital in front."""
    return f"{words[:1].upper()}{words[1:]}"


def check_picture(path: Path) -> None:
    """Raises:
    ExportError: an image cannot be written to ``path``; asked before anything is measured.
    """
    if path.suffix not in (".svg", ".html"):
        raise ExportError(f"a plot is an .svg or .html file, not {path.name!r}", "give it another name")
