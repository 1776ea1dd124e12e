"""The curve of a sweep: an image that stands alone, with its mark where the rate is."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from pocketzoo.core.errors import ExportError
from pocketzoo.reports.learning_rate_plot import AREA, draw_rates

RATES = [1e-4, 1e-3, 1e-2, 1e-1]
LOSSES = [2.1, 1.9, 0.9, 6.0]
SMOOTHED = [2.0, 1.8, 1.0, 5.0]


def test_the_image_stands_alone(tmp_path):
    place = draw_rates(tmp_path / "c.svg", RATES, LOSSES, SMOOTHED, 1e-3, "a <b> & c")
    root = ET.fromstring(place.read_text("utf8"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"0.0001", "0.001", "0.01", "0.1", "0.001: the steepest descent"} <= set(texts)
    (circle,) = root.iter("{http://www.w3.org/2000/svg}circle")
    assert float(circle.get("cx")) == pytest.approx(AREA.left + (AREA.right - AREA.left) / 3, abs=0.1)
    for line in root.iter("{http://www.w3.org/2000/svg}polyline"):
        points = [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]
        assert len(points) == len(RATES)
        assert all(AREA.left - 1 <= x <= AREA.right + 1 and AREA.top - 1 <= y <= AREA.bottom + 1 for x, y in points)


def test_a_page_shows_it_too_and_other_files_are_refused(tmp_path):
    page = draw_rates(tmp_path / "c.html", RATES, LOSSES, SMOOTHED, 1e-3, "a <b> & c").read_text("utf8")
    assert "<h1>a &lt;b&gt; &amp; c</h1>" in page
    assert re.search(r"<svg [^>]*viewBox", page)
    with pytest.raises(ExportError, match=r"c\.png"):
        draw_rates(tmp_path / "c.png", RATES, LOSSES, SMOOTHED, 1e-3, "x")
