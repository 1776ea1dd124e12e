"""The rows of a bench as one picture: how good against how fast, and what nothing beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from pocketzoo.deploy.report_runs import Run, headline
from pocketzoo.deploy.report_scatter import scatter
from pocketzoo.deploy.report_section import rows_figure, scatter_figure
from pocketzoo.deploy.report_timings import timings_figure
from pocketzoo.errors import ExportError
from pocketzoo.zoo.files import replacing_file
from pocketzoo.zoo.measure import Measurement

FORMATS = (".svg", ".html")


def check_plot(path: Path) -> None:
    """Raises:
    ExportError: a plot cannot be written to ``path``; said before anything is measured.
    """
    if path.suffix not in FORMATS:
        raise ExportError(f"a plot is an .svg or .html file, not {path.name!r}", "give --plot another name")


def save_plot(rows: Sequence[Measurement], path: Path) -> Path:
    """Draw the rows; an HTML page has their table too. Both stand alone: nothing is fetched or run.

    Raises:
        ExportError: the file is of another format.
        StorageError: the disk refused.
    """
    check_plot(path)
    run = Run(0, tuple(rows))
    style = files("pocketzoo.deploy").joinpath("report.css").read_text("utf8")
    text = _picture(run, style) if path.suffix == ".svg" else _page(run, style)
    with replacing_file(path) as temporary:
        temporary.write_text(text, "utf8")
    return path


def _picture(run: Run, style: str) -> str:
    drawn = scatter(run, "bench", wide=True)
    # A picture of its own needs a name space, a ground and a margin; the page's rules for narrow screens would hide it.
    own = f"{style.partition('@media screen')[0]}\nsvg {{ background: var(--card); font-family: sans-serif; }}"
    _, _, rest = drawn.partition(">")
    key = "circle: float32; square: int8; area: file size; dashed: no row is both faster and better"
    opening = '<svg class="plot wide" xmlns="http://www.w3.org/2000/svg" viewBox="-24 -20 1112 460" role="img"'
    return (
        f'{opening} width="1112" height="460" aria-labelledby="bench-wide-title bench-wide-desc">'
        f'<style>{escape(own, quote=False)}</style><text class="soft end" x="1050" y="16">{key}</text>{rest}\n'
    )


def _page(run: Run, style: str) -> str:
    title = f"{run.quality} against latency".capitalize()
    words = headline(run)
    sentence = f"{words[:1].upper()}{words[1:]}"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<header><p class="brand">pocketzoo bench</p><h1>{escape(sentence)}</h1></header>
<main><section class="run">
{scatter_figure(run, "bench", 2)}
{rows_figure(run, "bench", 2)}
{timings_figure(run, "bench", 2)}
</section></main>
</body>
</html>
"""
