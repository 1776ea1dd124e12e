from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from pocketzoo.core.errors import ExportError
from pocketzoo.measure.measure_graphs import Measurement
from pocketzoo.reports.bench_plot import save_plot
from pocketzoo.workflows.bench import bench

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def rows(fitted, compressed) -> list[Measurement]:
    return bench([fitted.path, compressed.path], seconds=0.0, batch_sizes=(1,), memory=False)


def test_an_image_is_svg_with_a_mark_a_row(rows, tmp_path):
    root = ET.parse(save_plot(rows, tmp_path / "p.svg")).getroot()
    assert root.tag == f"{SVG}svg"
    marks = [g for g in root.iter(f"{SVG}g") if g.get("class", "").startswith("mark ")]
    latencies = sorted(float(g.get("data-value", "nan")) for g in marks)
    assert latencies == sorted(row.latency["1"].p50 for row in rows)
    assert root.find(f"{SVG}style") is not None


def test_a_page_has_the_plot_and_every_row(rows, tmp_path):
    named = [replace(row, bundle=f"<{row.bundle}>") for row in rows]
    page = save_plot(named, tmp_path / "p.html").read_text("utf8")
    assert page.count("<svg") == 2  # for wide screens and for narrow ones
    assert page.count('<th scope="row">') >= len(rows)
    assert f"&lt;{rows[0].bundle}&gt;" in page
    assert f"<{rows[0].bundle}>" not in page


@pytest.mark.parametrize("name", ["p.png", "p", "p.svg.gz"])
def test_other_formats_are_refused_and_nothing_is_written(rows, name, tmp_path, refused):
    with refused(ExportError, name):
        save_plot(rows, tmp_path / name)
    assert list(tmp_path.iterdir()) == []
