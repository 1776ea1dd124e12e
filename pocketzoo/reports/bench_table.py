"""Table of a bench run: every measured number, and ratios to the first row."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from pocketzoo.reports.measured.bench_runs import BenchRun, batch_setting
from pocketzoo.reports.measured.number_format import NOTHING, Number, decimals, points, share_decimals, times, unit

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


def scroll(table: str, name: str) -> str:
    """A table that scrolls by itself where the screen is narrow, with the keyboard too."""
    return f'<div class="scroll" role="region" aria-labelledby="{name}" tabindex="0">{table}</div>'


def columns_of(run: BenchRun) -> list[Column]:
    """The columns that the run has numbers for."""

    shares = share_decimals(run.reference.samples)

    def column(field: str, title: str, scale: float, against: str, group: str = "") -> Column | None:
        values = [number.value / scale for row in range(len(run.rows)) if (number := run.number(row, field))]
        decibels = 1 if field.startswith("outputs.") else decimals(values)
        digits = {"accuracy": shares, "agreement": shares, "sqnr": 1}.get(field, decibels)
        return Column(field, title, scale, digits, against, group) if values else None

    def prefixed(field: str, title: str) -> Column | None:
        name, scale = unit(number.value for row in range(len(run.rows)) if (number := run.number(row, field)))
        return column(field, f"{title}{f', {name}' if name else ''}", scale, "ratio")

    found = [
        column("accuracy", "accuracy, %", 0.01, "points"),
        column("agreement", "agreement, %", 0.01, ""),
        column("sqnr", "SQNR, dB", 1, ""),
        *(column(f"outputs.{name}", f"{name}, dB", 1, "") for name in (run.outputs if len(run.outputs) > 1 else ())),
        column("bytes", "file, KB", 1e3, "ratio"),
        prefixed("parameters", "params"),
        prefixed("macs", "MACs"),
    ]
    found.append(column("memory.peak", "memory, MB", 1e6, "ratio"))
    # Where there are more, they are in the table of times alone, which has a line for each.
    listed = len(run.batches) > MOST_BATCHES and all(each.p90 for each in run.reference.latency.values())
    for batch in [] if listed else run.batches:
        group = f"{batch_setting(batch)}, ms"
        found += [column(f"latency.{batch}.{p}", p, 1, "ratio", group) for p in ("p50", "p99")]
    return [column for column in found if column]


def measurement_table(run: BenchRun, name: str) -> str:
    """The table; ``name`` is unique on the page."""
    columns = columns_of(run)
    rows = [_row(run, i, columns) for i in range(len(run.rows))]
    table = (
        f'<table class="measured"><caption id="{name}"><span>{_caption(run)}</span></caption>'
        f"<thead>{_head(columns)}</thead><tbody>{''.join(rows)}</tbody></table>"
    )
    return scroll(table, name)


def _caption(run: BenchRun) -> str:
    """What the numbers are, for those who were not there."""
    row = run.reference
    runtimes = " and ".join(dict.fromkeys(r.runtime for r in run.rows))
    cores = "all cores" if row.threads == 0 else f"{row.threads} thread{'s' * (row.threads != 1)}"
    others = sorted({r.target for r in run.rows} - {"", "cpu"})
    note = f" Graphs encoded for {' and '.join(others)} ran here too, not on the device they are for." if others else ""
    if row.memory:
        note += " Memory is the peak of a process that runs nothing else, imports included."
    scored = "; for accuracy, the difference in points" if run.quality == "accuracy" else ""
    return (
        f"{run.samples.shown(f'{row.samples:,}')} samples on {escape(runtimes)}, {run.threads.shown(cores)}. Below "
        f"each number: how many times smaller or faster it is than the reference, {escape(row.bundle)}{scored}. "
        f"Agreement and SQNR are against the reference.{escape(note)}"
    )


def _head(columns: list[Column]) -> str:
    first = '<th scope="col" rowspan="2">model</th>'
    second = ""
    for column in columns:
        if not column.group:
            first += f'<th scope="col" rowspan="2">{_title(column.title)}</th>'
            continue
        peers = [c for c in columns if c.group == column.group]
        if column is peers[0]:
            first += f'<th scope="colgroup" class="group" colspan="{len(peers)}">{escape(column.group)}</th>'
        second += f'<th scope="col"{_first(column, columns)}>{column.title}</th>'
    return f"<tr>{first}</tr><tr>{second}</tr>"


def _title(text: str) -> str:
    """ "file, KB" with the unit on a line of its own."""
    name, _, what = text.partition(", ")
    return f'{escape(name)}<span class="unit">{escape(what)}</span>' if what else escape(name)


def _first(column: Column, columns: list[Column]) -> str:
    return ' class="first"' if column is next(c for c in columns if c.group == column.group) else ""


def _row(run: BenchRun, index: int, columns: list[Column]) -> str:
    row = run.rows[index]
    marks = ["reference"] * (index == 0) + ["best"] * (index == run.best != 0)
    kind = "int8" if row.precision == "int8" else "float"
    target = f" for {escape(row.target)}" if row.target else ""
    target += f" on {escape(row.runtime)}" if row.runtime != run.reference.runtime else ""
    note = ' <span class="note">reference</span>' * (index == 0)
    head = (
        f'<th scope="row"><span class="model">{escape(row.bundle)}</span>{note}'
        f'<span class="sub"><span class="precision {kind}">{escape(row.precision)}</span>{target}</span></th>'
    )
    cells = [f"<td{_first(c, columns) if c.group else ''}>{_cell(run, index, c)}</td>" for c in columns]
    return f'<tr class="{" ".join(marks)}">{head}{"".join(cells)}</tr>'


def _cell(run: BenchRun, row: int, column: Column) -> str:
    number = run.number(row, column.field)
    if number is None:
        return NOTHING
    shown = number.shown(f"{number.value / column.scale:,.{column.digits}f}")
    return shown + _against(run, row, column, number) if row else shown


def _against(run: BenchRun, row: int, column: Column, number: Number) -> str:
    """The small line below a number."""
    reference = run.number(0, column.field)
    if column.against == "points" and reference:
        difference = number.value - reference.value
        worse = difference < -0.0005
        return f'<span class="sub{" worse" if worse else ""}">{points(difference, column.digits)}</span>'
    if column.against == "ratio" and (ratio := run.ratio(row, column.field)):
        kind = " worse" if ratio < 0.95 else " better" if ratio > 1.05 else ""
        return f'<span class="sub{kind}">{times(ratio)}</span>'
    return ""
