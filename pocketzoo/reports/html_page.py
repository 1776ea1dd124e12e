"""HTML from templates, and the page that all reports share: self-contained, nothing is fetched and no script runs."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from pocketzoo.core.errors import ExportError
from pocketzoo.core.names import check_suffix
from pocketzoo.core.untrusted.shown import shown
from pocketzoo.zoo.bundles.work_folder import check_outside

if TYPE_CHECKING:
    from jinja2 import Environment

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("pocketzoo.reports")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def render(template: str, **values: object) -> Markup:
    """HTML of a file in ``templates/``. Whatever is not ``Markup`` is text, and escaped."""
    return Markup(_templates().get_template(template).render(values))


def page(brand: str, title: str, main: Markup, *, lead: str = "", footer: str = "") -> str:
    """The page; ``main`` is HTML, all else is text, unless it is ``Markup``."""
    values = {"brand": brand, "title": title, "main": main, "lead": lead, "footer": footer}
    return shown(render("page.html", policy=Markup(POLICY), style=Markup(style()), **values) + "\n")


def style() -> str:
    """The rules that pages and single images share."""
    return files("pocketzoo.reports").joinpath("report.css").read_text("utf8")


def sentence(words: str) -> str:
    """``words`` with a capital in front."""
    return f"{words[:1].upper()}{words[1:]}"


def check_page(path: Path) -> None:
    """Raises:
    ExportError: a page cannot be written to ``path``; asked before anything is measured.
    """
    check_suffix(path, [".html", ".htm"], "an HTML page")
    check_outside(path)


def check_drawing(path: Path) -> None:
    """Raises:
    ExportError: an image cannot be written to ``path``; asked before anything is measured.
    """
    if path.suffix not in (".svg", ".html"):
        raise ExportError(f"a plot is an .svg or .html file, not {path.name!r}", "give it another name")
    check_outside(path)
