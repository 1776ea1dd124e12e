from __future__ import annotations

import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

import pocketzoo
from pocketzoo.core.errors import ExportError
from pocketzoo.reports.html_page import POLICY, check_drawing, page, render, sentence

TEMPLATES = Path(pocketzoo.__file__).parent / "reports" / "templates"


def test_a_page_stands_alone_and_its_words_are_escaped():
    text = page("bench", "a < b & c", Markup("<p>main</p>"), lead="<lead>", footer="<b>end</b>")
    assert "<title>a &lt; b &amp; c</title>" in text
    assert "<h1>a &lt; b &amp; c</h1>" in text
    assert '<p class="lead">&lt;lead&gt;</p>' in text
    assert "<p>main</p>" in text
    assert "<footer>&lt;b&gt;end&lt;/b&gt;</footer>" in text
    assert f'content="{POLICY}"' in text
    assert "http" not in text.replace("http-equiv", "")


def test_what_is_not_markup_is_escaped_where_html_is_wanted():
    assert "<main>\n&lt;p&gt;main&lt;/p&gt;\n</main>" in page("bench", "t", "<p>main</p>")


def test_a_template_that_wants_more_than_it_is_given_fails():
    with pytest.raises(UndefinedError, match="'tiles' is undefined"):
        render("run.html", name="n", alone=True, title="t", rows=[], label=str, figures=[])


@pytest.mark.parametrize("template", [path.name for path in TEMPLATES.iterdir()])
def test_no_template_says_of_itself_that_something_is_safe(template):
    text = (TEMPLATES / template).read_text("utf8")
    assert not re.search(r"\|\s*safe|autoescape", text)


def test_what_is_left_out_leaves_nothing_behind():
    text = page("bench", "t", Markup())
    assert "<footer" not in text
    assert 'class="lead"' not in text


@pytest.mark.parametrize(("words", "made"), [("a b", "A b"), ("", ""), ("2x", "2x"), ("ä", "Ä")])
def test_a_sentence_begins_with_a_capital(words, made):
    assert sentence(words) == made


def test_an_image_is_svg_or_html(refused):
    for name in ("a.svg", "b.html"):
        check_drawing(Path(name))
    for name in ("a.png", "svg", "a.svg.gz"):
        with refused(ExportError, f"{name!r}", ".svg or .html", hint="another name"):
            check_drawing(Path(name))
