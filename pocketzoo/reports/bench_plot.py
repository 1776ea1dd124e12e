"""A bench as one plot: accuracy against latency, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from markupsafe import Markup

from pocketzoo.core.files import replacing_file
from pocketzoo.core.reading.utf8 import encoded
from pocketzoo.core.untrusted.shown import shown
from pocketzoo.reports.bench_section import rows_figure, scatter_figure
from pocketzoo.reports.charts.scatter_plot import scatter
from pocketzoo.reports.html_page import check_drawing, page, sentence, style
from pocketzoo.reports.measured.bench_runs import BenchRun, bench_headline
from pocketzoo.reports.timing_table import timings_figure
from pocketzoo.zoo.bundles.measurement import Measurement


def save_plot(rows: Sequence[Measurement], path: Path) -> Path:
    """Draw the rows; an HTML page has their table too. Both stand alone: nothing is fetched or run.

    Raises:
        ExportError: the file is of another format.
        StorageError: the disk refused.
    """
    check_drawing(path)
    run = BenchRun(0, tuple(rows))
    text = _drawing(run) if path.suffix == ".svg" else _page(run)
    with replacing_file(path) as temporary:
        temporary.write_bytes(encoded(text))
    return path


def _drawing(run: BenchRun) -> str:
    drawn = shown(scatter(run, "bench", wide=True))
    # An image of its own needs a name space, a ground and a margin; the page's rules for narrow screens would hide it.
    own = f"{style().partition('@media screen')[0]}\nsvg {{ background: var(--card); font-family: sans-serif; }}"
    _, _, rest = drawn.partition(">")
    square = f"square: {', '.join(run.precisions)}; " if run.precisions else ""
    key = escape(f"circle: {run.floats}; {square}area: file size; dashed: Pareto front")
    opening = '<svg class="plot wide" xmlns="http://www.w3.org/2000/svg" viewBox="-24 -20 1112 460" role="img"'
    return (
        f'{opening} width="1112" height="460" aria-labelledby="bench-wide-title bench-wide-desc">'
        f'<style>{escape(own, quote=False)}</style><text class="soft end" x="1050" y="16">{key}</text>{rest}\n'
    )


def _page(run: BenchRun) -> str:
    figures = Markup("\n").join(figure(run, "bench", 2) for figure in (scatter_figure, rows_figure, timings_figure))
    return page("bench", sentence(bench_headline(run)), Markup('<section class="run">\n{}\n</section>').format(figures))
