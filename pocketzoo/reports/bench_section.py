"""Report section of one bench run: summary, comparison of rows, costs by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from pocketzoo.measure.measure_graphs import Measurement
from pocketzoo.reports.bench_table import measurement_table
from pocketzoo.reports.charts.layer_bars import bars
from pocketzoo.reports.charts.scatter_plot import front, points_of, scatter
from pocketzoo.reports.measured.bench_runs import BenchRun, batch_setting, bench_headline, label
from pocketzoo.reports.measured.layer_costs import Layer, Layers, match
from pocketzoo.reports.measured.number_format import kilobytes, milliseconds, percent, points, short, times
from pocketzoo.reports.timing_table import timings_figure
from pocketzoo.zoo.bundles.bundle import Bundle


def run_section(run: BenchRun, index: int, bundles: Sequence[Bundle], layers: Sequence[Layers], *, alone: bool) -> str:
    """The section. ``alone``: the page's own title has the headline already."""
    name, level = f"run-{index + 1}", 2 if alone else 3
    lead = f"{_name(run.rows[run.best])} against " * (run.best != 0) + _name(run.reference)
    title = "What was measured" if alone else f"Run {index + 1}: {bench_headline(run)}"
    heading = f'<h2 id="{name}"{" class=unseen" if alone else ""}>{escape(title)}</h2>'
    return (
        f'<section class="run" aria-labelledby="{name}">{heading}<p class="lead">{lead}</p>{_tiles(run)}\n'
        f"{scatter_figure(run, name, level)}\n{rows_figure(run, name, level)}\n"
        f"{timings_figure(run, name, level)}\n"
        f"{_bars(run, name, level, bundles, layers)}</section>\n"
    )


def owner(run: BenchRun, row: Measurement, bundles: Sequence[Bundle]) -> int | None:
    """Which of the models a row is of; of two with one name, the one that carries the run."""
    named = [i for i, bundle in enumerate(bundles) if bundle.manifest.name == row.bundle]
    carried = bundles[run.bundle].manifest.measurements
    return next((i for i in named if bundles[i].manifest.measurements == carried), named[0] if named else None)


def _title(row: Measurement) -> str:
    return f"{row.bundle} ({label(row)})"


def _name(row: Measurement) -> str:
    return f"<strong>{escape(row.bundle)}</strong> ({escape(label(row))})"


def _tiles(run: BenchRun) -> str:
    """The reference and the best row in the four numbers that matter most."""
    samples = run.reference.samples
    tiles = [_tile(run, "file size", "bytes", kilobytes, "smaller", "larger")]
    for size in run.batches[:1]:
        tiles.append(
            _tile(run, f"latency, {batch_setting(size)}", f"latency.{size}.p50", milliseconds, "faster", "slower")
        )
    tiles.append(_tile(run, run.quality, run.quality, lambda share: percent(share, samples)))
    tiles.append(_tile(run, "multiply-accumulates", "macs", short, "fewer", "more"))
    return f'<dl class="tiles">{"".join(tiles)}</dl>'


def _tile(
    run: BenchRun, title: str, field: str, write: Callable[[float], str], better: str = "", worse: str = ""
) -> str:
    old, new = run.number(0, field), run.number(run.best, field)
    if old is None or new is None:
        return ""
    change = f"{old.shown(write(old.value))} \u2192 {new.shown(write(new.value))}"
    ratio = run.ratio(run.best, field)
    if not run.best:
        big, change = old.shown(write(old.value)), ""
    elif not better:
        big = f'{points(new.value - old.value)} <span class="word">points</span>'
    elif not ratio or 0.95 < ratio < 1.05:
        big = f'<span class="word">{"about " * (old.value != new.value)}the same</span>'
    elif ratio > 1:
        big = f'{times(ratio)} <span class="word">{better}</span>'
    else:
        big = f'{times(1 / ratio)} <span class="word">{worse}</span>'
    return f'<div class="tile"><dt>{escape(title)}</dt><dd>{big}<span class="sub">{change}</span></dd></div>'


def rows_figure(run: BenchRun, name: str, level: int) -> str:
    """The table of all rows, with its heading."""
    return f'<figure class="rows"><h{level}>All rows</h{level}>{measurement_table(run, f"{name}-table")}</figure>'


def scatter_figure(run: BenchRun, name: str, level: int) -> str:
    """The plot with its legend, for wide screens and for narrow ones; nothing where no row was timed."""
    drawings = [scatter(run, f"{name}-scatter", wide=wide) for wide in (True, False)]
    if not all(drawings):
        return ""
    samples = run.samples
    best = ", ".join(_title(run.rows[point.row]) for point in front(points_of(run)))
    return (
        f"<figure><h{level}>{run.quality.capitalize()} against latency</h{level}>"
        '<p class="legend"><span><i class="key circle"></i>float32</span><span><i class="key square"></i>int8</span>'
        '<span><i class="key dash"></i>Pareto front</span><span>area: file size</span></p>'
        f"{''.join(drawings)}<figcaption>On the line: {escape(best)}. Of {samples.shown(f'{samples.value:,}')} "
        f"samples, one is {100 / max(samples.value, 1):.2g} points.</figcaption></figure>"
    )


def _bars(run: BenchRun, name: str, level: int, bundles: Sequence[Bundle], layers: Sequence[Layers]) -> str:
    """The best row's layers below the reference's; without the reference, below the first that are known."""
    after = _layers_of(run, run.rows[run.best], bundles, layers)
    before, was = _layers_of(run, run.reference, bundles, layers), _title(run.reference)
    if not before:
        i, target = next(((i, target) for i, of in enumerate(layers) for target in of), (0, ""))
        before = layers[i].get(target, [])
        was = f"{bundles[i].manifest.name} ({'float32' if target == 'float' else f'for {target}'})"
    if not before or not after or before is after:
        return ""
    now, pairs = _title(run.rows[run.best]), match(before, after)
    drawings = [bars(pairs, f"{name}-bars", before=was, after=now, wide=wide) for wide in (True, False)]
    return (
        f"<figure><h{level}>Layer by layer</h{level}>"
        f'<p class="legend"><span><i class="key before"></i>{escape(was)}</span>'
        f'<span><i class="key after"></i>{escape(now)}</span></p>'
        f"{''.join(drawings)}</figure>"
    )


def _layers_of(run: BenchRun, row: Measurement, bundles: Sequence[Bundle], layers: Sequence[Layers]) -> list[Layer]:
    index = owner(run, row, bundles)
    return [] if index is None else layers[index].get(row.target or "float", [])
