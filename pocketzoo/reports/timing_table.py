"""Table of timings: percentiles, throughput, and speedup with its confidence interval."""

from __future__ import annotations

from dataclasses import dataclass, replace

from markupsafe import Markup

from pocketzoo.reports.html_page import render
from pocketzoo.reports.measured.bench_runs import BenchRun, batch_setting, label
from pocketzoo.reports.measured.number_format import NOTHING, Number, decimals, times

PERCENTILES = ("p50", "p90", "p99")


def timings_figure(run: BenchRun, name: str, level: int) -> Markup:
    """The table with its heading; nothing for rows of versions that kept no more than two percentiles."""
    batches = [b for b in run.batches if any(run.number(i, f"latency.{b}.p90") for i in range(len(run.rows)))]
    if not batches:
        return Markup()
    return render(
        "timings.html",
        name=f"{name}-timings",
        level=level,
        caption=_caption(run),
        titles=[*(f"{p}, ms" for p in PERCENTILES), "samples/s", "faster", "99% interval"],
        batches=[
            (batch_setting(batch), [_row(run, i, batch) for i in range(len(run.rows)) if batch in run.rows[i].latency])
            for batch in batches
        ],
        times=times,
        nothing=NOTHING,
    )


def _caption(run: BenchRun) -> str:
    clocks = {latency.clock for row in run.rows[1:] for latency in row.latency.values() if latency.faster}
    clock = "CPU time of the one thread" if clocks == {"cpu"} else "wall-clock time"
    wide = any(latency.wide for row in run.rows for latency in row.latency.values())
    note = " ~ marks noisy times: one run in ten takes a quarter longer than the median." if wide else ""
    return (
        f"Percentiles are wall-clock time. Faster than {run.reference.bundle}: {clock}, compared round by "
        f"round; the median with its 99% confidence interval. = marks no significant difference.{note}"
    )


@dataclass(frozen=True, slots=True)
class _TimingRow:
    """A line of the table."""

    bundle: str
    label: str
    best: bool
    cells: list[Markup]  # percentiles and throughput
    faster: Number | None = None  # the median, against the reference
    kind: str = ""  # class of it
    interval: Markup = NOTHING


def _row(run: BenchRun, row: int, batch: str) -> _TimingRow:
    def number(field: str) -> Number | None:
        return run.number(row, f"latency.{batch}.{field}")

    measured = run.rows[row]
    latency = measured.latency[batch]
    percentiles = {p: number(p) for p in PERCENTILES}
    digits = decimals([figure.value for figure in percentiles.values() if figure])
    cells = [figure.shown(f"{figure.value:,.{digits}f}") if figure else NOTHING for figure in percentiles.values()]
    cells[-1] += " ~" * latency.wide
    throughput = number("throughput")
    cells.append(throughput.shown(f"{throughput.value:,.0f}") if throughput else NOTHING)
    line = _TimingRow(measured.bundle, label(measured), row == run.best != 0, cells)
    middle, low, high = (number(f"faster.{end}") for end in ("middle", "low", "high"))
    if not (middle and low and high and latency.faster):
        return line
    kind = "sub" if not latency.faster.differs else "better" if low.value > 1 else "worse"
    same = "" if latency.faster.differs else " ="
    interval = Markup("{} to {}{}").format(low.shown(_exact(low.value)), high.shown(_exact(high.value)), same)
    return replace(line, faster=middle, kind=kind, interval=interval)


def _exact(ratio: float) -> str:
    return f"{ratio:.2f}\u00d7"
