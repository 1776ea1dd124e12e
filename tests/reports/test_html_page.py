from __future__ import annotations

from pathlib import Path

import pytest

from pocketzoo.core.errors import ExportError
from pocketzoo.reports.html_page import POLICY, check_picture, page, sentence


def test_a_page_stands_alone_and_its_words_are_escaped():
    text = page("bench", "a < b & c", "<p>main</p>", lead="<lead>", footer="<b>end</b>")
    assert "<title>a &lt; b &amp; c</title>" in text
    assert "<h1>a &lt; b &amp; c</h1>" in text
    assert '<p class="lead">&lt;lead&gt;</p>' in text
    assert "<p>main</p>" in text
    assert "<footer><b>end</b></footer>" in text
    assert f'content="{POLICY}"' in text
    assert "http" not in text.replace("http-equiv", "")


def test_what_is_left_out_leaves_nothing_behind():
    text = page("bench", "t", "")
    assert "<footer" not in text
    assert 'class="lead"' not in text


@pytest.mark.parametrize(("words", "made"), [("a b", "A b"), ("", ""), ("2x", "2x"), ("ä", "Ä")])
def test_a_sentence_begins_with_a_capital(words, made):
    assert sentence(words) == made


def test_a_picture_is_svg_or_html(refused):
    for name in ("a.svg", "b.html"):
        check_picture(Path(name))
    for name in ("a.png", "svg", "a.svg.gz"):
        with refused(ExportError, f"{name!r}", ".svg or .html", hint="another name"):
            check_picture(Path(name))
