"""Report section of one bench run: summary, comparison of rows, costs by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pocketzoo.reports.bench_table import measurement_table
from pocketzoo.reports.charts.layer_bars import bars
from pocketzoo.reports.charts.scatter_plot import front, mark_class, points_of, scatter
from pocketzoo.reports.html_page import render
from pocketzoo.reports.measured.bench_runs import BenchRun, batch_setting, bench_headline, label
from pocketzoo.reports.measured.layer_costs import Layer, Layers, match
from pocketzoo.reports.measured.number_format import kilobytes, milliseconds, plain, points, short, times
from pocketzoo.reports.timing_table import timings_figure
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.bundles.measurement import Measurement, runs_of


def run_section(
    run: BenchRun, index: int, bundles: Sequence[Bundle], layers: Sequence[Layers], *, alone: bool
) -> Markup:
    """The section. ``alone``: the page's own title has the headline already."""
    name, level = f"run-{index + 1}", 2 if alone else 3
    return render(
        "run.html",
        name=name,
        alone=alone,
        title="What was measured" if alone else f"Run {index + 1}: {bench_headline(run)}",
        rows=[run.rows[run.best], run.reference] if run.best else [run.reference],
        label=label,
        tiles=_tiles(run),
        figures=[
            scatter_figure(run, name, level),
            rows_figure(run, name, level),
            timings_figure(run, name, level),
            _bars(run, name, level, bundles, layers),
        ],
    )


def owner(run: BenchRun, row: Measurement, bundles: Sequence[Bundle]) -> int | None:
    """Which of the models a row is of; of two with one name, the one that carries the run."""
    named = [i for i, bundle in enumerate(bundles) if bundle.manifest.name == row.bundle]
    carry = (i for i in named if run.rows in runs_of(bundles[i].manifest.measurements))
    return next(carry, named[0] if named else None)


def _title(row: Measurement) -> str:
    return f"{row.bundle} ({label(row)})"


@dataclass(frozen=True, slots=True)
class _Tile:
    """A number of the best row, large, with a word after it; and below it what became what."""

    title: str
    big: Markup | str
    word: str = ""
    change: Markup | str = ""


def _tiles(run: BenchRun) -> list[_Tile]:
    """The reference and the best row in the four numbers that matter most."""
    tiles = [_tile(run, "file size", "bytes", kilobytes, "smaller", "larger")]
    for size in run.batches[:1]:
        tiles.append(
            _tile(run, f"latency, {batch_setting(size)}", f"latency.{size}.p50", milliseconds, "faster", "slower")
        )
    tiles.append(_tile(run, run.measure.name, run.quality, run.written))
    tiles.append(_tile(run, "multiply-accumulates", "macs", short, "fewer", "more"))
    return [tile for tile in tiles if tile]


def _tile(
    run: BenchRun, title: str, field: str, write: Callable[[float], str], better: str = "", worse: str = ""
) -> _Tile | None:
    old, new = run.number(0, field), run.number(run.best, field)
    if old is None or new is None:
        return None
    was = old.shown(write(old.value))
    if not run.best:
        return _Tile(title, was)
    change = Markup("{} \u2192 {}").format(was, new.shown(write(new.value)))
    ratio = run.ratio(run.best, field)
    if not better:
        if run.measure.unit:
            return _Tile(title, plain(new.value - old.value), "more" if new.value > old.value else "", change)
        return _Tile(title, points(new.value - old.value), "points", change)
    if not ratio or 0.95 < ratio < 1.05:
        return _Tile(title, "", "the same" if old.value == new.value else "about the same", change)
    return _Tile(title, times(max(ratio, 1 / ratio)), better if ratio > 1 else worse, change)


def rows_figure(run: BenchRun, name: str, level: int) -> Markup:
    """The table of all rows, with its heading."""
    figure = Markup('<figure class="rows"><h{level}>All rows</h{level}>{table}</figure>')
    return figure.format(level=level, table=measurement_table(run, f"{name}-table"))


def scatter_figure(run: BenchRun, name: str, level: int) -> Markup:
    """The plot with its legend, for wide screens and for narrow ones; nothing where no row was timed."""
    drawings = [scatter(run, f"{name}-scatter", wide=wide) for wide in (True, False)]
    if not all(drawings):
        return Markup()
    return render(
        "scatter.html",
        level=level,
        quality=run.measure.name,
        floats=run.floats,
        drawings=drawings,
        keys=[(name, mark_class(run, name)) for name in run.precisions],
        best=", ".join(_title(run.rows[point.row]) for point in front(points_of(run))),
        samples=run.samples.shown(f"{run.samples.value:,}"),
        sample_word=run.sample_word,
        worth="" if run.measure.unit else f"{100 / max(run.samples.value, 1):.2g}",
    )


def _bars(run: BenchRun, name: str, level: int, bundles: Sequence[Bundle], layers: Sequence[Layers]) -> Markup:
    """The best row's layers below the reference's; without the reference, below the first that are known."""
    after = _layers_of(run, run.rows[run.best], bundles, layers)
    before, was = _layers_of(run, run.reference, bundles, layers), _title(run.reference)
    if not before:
        i, target = next(((i, target) for i, of in enumerate(layers) for target in of), (0, ""))
        before = layers[i].get(target, [])
        was = f"{bundles[i].manifest.name} ({bundles[i].float_precision if target == 'float' else f'for {target}'})"
    if not before or not after or before is after:
        return Markup()
    now, pairs = _title(run.rows[run.best]), match(before, after)
    drawings = [bars(pairs, f"{name}-bars", before=was, after=now, wide=wide) for wide in (True, False)]
    return render("bars.html", level=level, before=was, after=now, drawings=drawings)


def _layers_of(run: BenchRun, row: Measurement, bundles: Sequence[Bundle], layers: Sequence[Layers]) -> list[Layer]:
    index = owner(run, row, bundles)
    return [] if index is None else layers[index].get(row.target or "float", [])
