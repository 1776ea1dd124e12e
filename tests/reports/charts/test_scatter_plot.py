from __future__ import annotations

import math
import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.measure.measure_graphs import Latency, Measurement
from pocketzoo.reports.bench_section import scatter_figure
from pocketzoo.reports.charts.scatter_plot import Point, front, mark_class, points_of, scatter
from pocketzoo.reports.html_page import style
from pocketzoo.reports.measured.bench_runs import BenchRun
from pocketzoo.reports.measured.number_format import Number


def measured(
    name: str, latency: float | None, accuracy: float | None, size: int = 1000, target: str = ""
) -> Measurement:
    return Measurement(
        bundle=name,
        target=target,
        precision="int8" if target else "float32",
        runtime="onnxruntime",
        bytes=size,
        parameters=100,
        macs=100,
        samples=100,
        accuracy=accuracy,
        agreement=0.5,
        sqnr=None,
        latency={} if latency is None else {"4": Latency(p50=latency, p99=latency), "16": Latency(p50=9.0, p99=9.0)},
    )


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_the_front_is_what_nothing_beats(pairs: list[tuple[int, int]]) -> None:
    points = [Point(i, Number(x, "", 0), Number(y, "", 0), Number(1, "", 0)) for i, (x, y) in enumerate(pairs)]
    unbeaten = {
        (x, y) for x, y in pairs if not any(u <= x and v >= y and (u, v) != (x, y) for u, v in pairs)
    }  # by comparing every pair, which needs no order
    found = [(p.x.value, p.y.value) for p in front(points)]
    assert set(found) == unbeaten
    assert found == sorted(found)


def test_marks_lie_where_the_numbers_say_and_their_area_is_the_files_size() -> None:
    rows = (measured("a", 4.0, 0.9, 4000), measured("b", 2.0, 0.8, 2000), measured("c", 1.0, 0.7, 1000, "cpu"))
    drawn = scatter(BenchRun(0, rows), "s", wide=True)
    circles = [tuple(map(float, c)) for c in re.findall(r'cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)" data', drawn)]
    ((x, y, side),) = [
        tuple(map(float, c)) for c in re.findall(r'x="([\d.]+)" y="([\d.]+)" width="([\d.]+)".*? data', drawn)
    ]
    (ax, ay, ar), (bx, by, br) = circles
    cx, cy = x + side / 2, y + side / 2
    assert math.isclose(ax - bx, 2 * (bx - cx), rel_tol=0.01)
    assert math.isclose(by - ay, cy - by, rel_tol=0.01)
    assert math.isclose(ar**2, 2 * br**2, rel_tol=0.02)
    assert math.isclose(math.pi * ar**2, 4 * side**2, rel_tol=0.02)
    assert "median latency of a batch of 4, ms" in drawn


def test_rows_without_a_latency_are_not_drawn() -> None:
    run = BenchRun(0, (measured("a", 1.0, None), measured("b", None, None)))
    assert [point.row for point in points_of(run)] == [0]
    assert scatter(BenchRun(0, (measured("a", None, 0.5),)), "s", wide=True) == ""


def test_where_labels_find_no_room_the_plot_says_so() -> None:
    rows = tuple(measured(f"a model with a long name, {i}", 1.0, 0.9) for i in range(60))
    assert re.search(r"\d+ not labeled for lack of space: see the table", scatter(BenchRun(0, rows), "s", wide=False))


def test_each_precision_has_a_mark_and_color_of_its_own_whoever_made_it() -> None:
    """A plugin's compressor calls its precision as it likes."""
    names = ["float32", "int8", "clustered16", "int4", "float32"]
    rows = tuple(replace(measured(f"row {i}", 1.0 + i, 0.9), precision=name) for i, name in enumerate(names))
    run = BenchRun(0, rows)
    assert run.precisions == ("int8", "clustered16", "int4")
    assert [mark_class(run, name) for name in names[:4]] == ["float", "encoded tone0", "encoded tone1", "encoded tone2"]
    drawn = scatter(run, "s", wide=True)
    assert [drawn.count(f'class="mark {kind}"') for kind in ("float", "encoded tone0", "encoded tone1")] == [2, 1, 1]
    assert len(re.findall(r"<rect[^>]*data", drawn)) == 3
    figure = scatter_figure(run, "s", 2)
    assert re.findall(r"</i>([^<]+)</span>", figure)[:4] == ["float32", "int8", "clustered16", "int4"]
    colors = dict(re.findall(r"^\.encoded(\S*) \{ --tone: (.*?); \}", style(), re.MULTILINE))
    assert len(set(colors.values())) == 4
