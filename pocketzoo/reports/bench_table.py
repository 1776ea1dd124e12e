"""Table of a bench run: every measured number, and ratios to the first row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from pocketzoo.reports.html_page import render
from pocketzoo.reports.measured.bench_runs import BenchRun, batch_setting, label
from pocketzoo.reports.measured.number_format import NOTHING, decimals, points, share_decimals, times, unit
from pocketzoo.zoo.bundles.measurement import Measurement
from pocketzoo.zoo.graphs.layer_cost import FLOATS

MOST_BATCHES = 3  # whose times are columns alongside all others


@dataclass(frozen=True, slots=True)
class Column:
    """Numbers of one kind: a field of a row, and how it is written."""

    field: str
    title: str
    scale: float  # what is shown is the number divided by it
    digits: int
    against: str  # how it is compared with the first row: "ratio", "points" or not at all
    group: str = ""


def columns_of(run: BenchRun) -> list[Column]:
    """The columns that the run has numbers for."""

    shares = share_decimals(run.reference.samples)

    def column(field: str, title: str, scale: float, against: str, group: str = "") -> Column | None:
        values = [number.value / scale for row in range(len(run.rows)) if (number := run.number(row, field))]
        decibels = 1 if field.startswith("outputs.") else decimals(values)
        shown = shares if scale == 0.01 else decibels
        digits = {"accuracy": shares, "agreement": shares, "sqnr": 1, "metric.value": shown}.get(field, decibels)
        return Column(field, title, scale, digits, against, group) if values else None

    def prefixed(field: str, title: str) -> Column | None:
        name, scale = unit(number.value for row in range(len(run.rows)) if (number := run.number(row, field)))
        return column(field, f"{title}{f', {name}' if name else ''}", scale, "ratio")

    columns = [
        _metric_column(run, column),
        column("agreement", "agreement, %", 0.01, ""),
        column("sqnr", "SQNR, dB", 1, ""),
        *(column(f"outputs.{name}", f"{name}, dB", 1, "") for name in (run.outputs if len(run.outputs) > 1 else ())),
        column("bytes", "file, KB", 1e3, "ratio"),
        prefixed("parameters", "params"),
        prefixed("macs", "MACs"),
    ]
    columns.append(column("memory.peak", "memory, MB", 1e6, "ratio"))
    # Where there are more, they are in the table of times alone, which has a line for each.
    listed = len(run.batches) > MOST_BATCHES and all(each.p90 for each in run.reference.latency.values())
    for batch in [] if listed else run.batches:
        group = f"{batch_setting(batch)}, ms"
        columns += [column(f"latency.{batch}.{p}", p, 1, "ratio", group) for p in ("p50", "p99")]
    return [column for column in columns if column]


def _metric_column(run: BenchRun, column: Callable[..., Column | None]) -> Column | None:
    """The task's metric, where any row has it: in percent, or as it is."""
    if any(row.accuracy is not None for row in run.rows):
        return column("accuracy", "accuracy, %", 0.01, "points")
    metric = next((row.metric for row in run.rows if row.metric is not None), None)
    if metric is None:
        return None
    if not metric.unit:
        return column("metric.value", f"{metric.name}, %", 0.01, "points")
    return column("metric.value", f"{metric.name}, {metric.unit}".removesuffix(", number"), 1, "difference")


def measurement_table(run: BenchRun, name: str) -> Markup:
    """The table; ``name`` is unique on the page."""
    columns = columns_of(run)
    single = [column for column in columns if not column.group]
    groups = [(title, [c for c in columns if c.group == title]) for title in dict.fromkeys(c.group for c in columns)]
    firsts = [members[0] for title, members in groups if title]
    return render(
        "measured.html",
        name=name,
        caption=_caption(run),
        single=[_Title(*column.title.partition(", ")[::2]) for column in single],
        groups=[group for group in groups if group[0]],
        precision=precision,
        rows=[_row(run, i, columns, firsts) for i in range(len(run.rows))],
    )


def precision(kind: str) -> Markup:
    """A badge."""
    return Markup('<span class="precision {}">{}</span>').format("float" if kind in FLOATS else "encoded", kind)


def _caption(run: BenchRun) -> Markup:
    """What the numbers are, for those who were not there."""
    row = run.reference
    runtimes = " and ".join(dict.fromkeys(r.runtime for r in run.rows))
    cores = "all cores" if row.threads == 0 else f"{row.threads} thread{'s' * (row.threads != 1)}"
    others = sorted({r.target for r in run.rows} - {"", "cpu"})
    note = f" Graphs encoded for {' and '.join(others)} ran here too, not on the device they are for." if others else ""
    if row.memory:
        note += " Memory is the peak of a process that runs nothing else, imports included."
    points_of = "the difference" if run.measure.unit else "the difference in points"
    for why in dict.fromkeys(each.no_memory for each in run.rows if each.no_memory):
        those = " and ".join(dict.fromkeys(label(each) for each in run.rows if each.no_memory == why))
        note += f" Memory was not measured for {those}: {why}."
    scored = f"; for {run.measure.name}, {points_of}" if run.quality in ("accuracy", "metric.value") else ""
    scored += _interval(run.reference)
    return Markup(
        "{} {} on {}, {}. Below each number: how many times smaller or faster it is than the reference, {}{}. "
        "Agreement and SQNR are against the reference.{}"
    ).format(
        run.samples.shown(f"{row.samples:,}"),
        run.sample_word,
        runtimes,
        run.threads.shown(cores),
        row.bundle,
        scored,
        note,
    )


def _interval(row: Measurement) -> str:
    """How sure the reference's metric is."""
    if row.metric is None or row.metric.low is None or row.metric.high is None:
        return ""
    low, high = (row.metric.shown(end) for end in (row.metric.low, row.metric.high))
    return f". The reference's {row.metric.name} is between {low} and {high}, with 95% confidence"


@dataclass(frozen=True, slots=True)
class _Title:
    """ "file, KB" with the unit on a line of its own."""

    name: str
    unit: str


@dataclass(frozen=True, slots=True)
class _MeasuredCell:
    """A number, and the small line below it: what it is against the reference's."""

    number: Markup
    first: bool = False  # of its group
    against: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class _MeasuredRow:
    """A line of the table."""

    facts: Measurement
    marks: str
    place: str  # what it is for, and runs on
    cells: list[_MeasuredCell]


def _row(run: BenchRun, index: int, columns: list[Column], firsts: list[Column]) -> _MeasuredRow:
    row = run.rows[index]
    marks = ["reference"] * (index == 0) + ["best"] * (index == run.best != 0)
    place = f" for {row.target}" if row.target else ""
    place += f" on {row.runtime}" if row.runtime != run.reference.runtime else ""
    return _MeasuredRow(
        row, " ".join(marks), place, [_cell(run, index, column, column in firsts) for column in columns]
    )


def _cell(run: BenchRun, row: int, column: Column, first: bool) -> _MeasuredCell:
    number, reference = run.number(row, column.field), run.number(0, column.field)
    if number is None:
        return _MeasuredCell(NOTHING, first)
    shown = number.shown(f"{number.value / column.scale:,.{column.digits}f}")
    if row and column.against == "points" and reference:
        better = 1 if run.measure.higher_is_better else -1
        difference = number.value - reference.value
        return _MeasuredCell(
            shown, first, points(difference, column.digits), " worse" if better * difference < -0.0005 else ""
        )
    if row and column.against == "difference" and reference:
        loss = run.measure.loss(number.value) - run.measure.loss(reference.value)
        difference = number.value - reference.value
        return _MeasuredCell(shown, first, f"{difference:+.{column.digits}f}", " worse" if loss > 0 else "")
    if row and column.against == "ratio" and (ratio := run.ratio(row, column.field)):
        return _MeasuredCell(
            shown, first, times(ratio), " worse" if ratio < 0.95 else " better" if ratio > 1.05 else ""
        )
    return _MeasuredCell(shown, first)
