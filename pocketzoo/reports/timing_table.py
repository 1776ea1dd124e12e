"""Table of timings: percentiles, throughput, and speedup with its confidence interval."""

from __future__ import annotations

from html import escape

from pocketzoo.reports.bench_table import scroll
from pocketzoo.reports.measured.bench_runs import BenchRun, batch_setting, label
from pocketzoo.reports.measured.number_format import NOTHING, Number, decimals, times

PERCENTILES = ("p50", "p90", "p99")


def timings_figure(run: BenchRun, name: str, level: int) -> str:
    """The table with its heading; nothing for rows of versions that kept no more than two percentiles."""
    batches = [b for b in run.batches if any(run.number(i, f"latency.{b}.p90") for i in range(len(run.rows)))]
    if not batches:
        return ""
    titles = [*(f"{p}, ms" for p in PERCENTILES), "samples/s", "faster", "99% interval"]
    head = '<th scope="col" rowspan="1">model</th>' + "".join(f'<th scope="col">{title}</th>' for title in titles)
    bodies = "".join(_body(run, batch, len(titles) + 1) for batch in batches)
    table = (
        f'<table class="measured timings"><caption id="{name}-timings"><span>{_caption(run)}</span></caption>'
        f"<thead><tr>{head}</tr></thead>{bodies}</table>"
    )
    return f'<figure class="rows"><h{level}>Times in full</h{level}>{scroll(table, f"{name}-timings")}</figure>'


def _caption(run: BenchRun) -> str:
    clocks = {found.clock for row in run.rows[1:] for found in row.latency.values() if found.faster}
    clock = "CPU time of the one thread" if clocks == {"cpu"} else "wall-clock time"
    wide = any(found.wide for row in run.rows for found in row.latency.values())
    note = " ~ marks noisy times: one run in ten takes a quarter longer than the median." if wide else ""
    return (
        f"Percentiles are wall-clock time. Faster than {escape(run.reference.bundle)}: {clock}, compared round by "
        f"round; the median with its 99% confidence interval. = marks no significant difference.{note}"
    )


def _body(run: BenchRun, batch: str, width: int) -> str:
    """The rows of one batch size below a line that names it."""
    rows = "".join(_row(run, i, batch) for i in range(len(run.rows)) if batch in run.rows[i].latency)
    title = f'<tr><th scope="rowgroup" class="setting" colspan="{width}">{escape(batch_setting(batch))}</th></tr>'
    return f"<tbody>{title}{rows}</tbody>"


def _row(run: BenchRun, row: int, batch: str) -> str:
    def number(field: str) -> Number | None:
        return run.number(row, f"latency.{batch}.{field}")

    measured = run.rows[row]
    latency = measured.latency[batch]
    percentiles = {p: number(p) for p in PERCENTILES}
    digits = decimals([found.value for found in percentiles.values() if found])
    cells = [found.shown(f"{found.value:,.{digits}f}") if found else NOTHING for found in percentiles.values()]
    cells[-1] += " ~" * latency.wide
    throughput = number("throughput")
    cells.append(throughput.shown(f"{throughput.value:,.0f}") if throughput else NOTHING)
    middle, low, high = (number(f"faster.{end}") for end in ("middle", "low", "high"))
    if middle and low and high and latency.faster:
        kind = "sub" if not latency.faster.differs else "better" if low.value > 1 else "worse"
        cells.append(middle.shown(times(middle.value)).replace("<span ", f'<span class="{kind}" ', 1))
        same = "" if latency.faster.differs else " ="
        cells.append(f"{low.shown(_exact(low.value))} to {high.shown(_exact(high.value))}{same}")
    else:
        cells += [NOTHING, NOTHING]
    head = (
        f'<th scope="row"><span class="model">{escape(measured.bundle)}</span> '
        f'<span class="note">{escape(label(measured))}</span></th>'
    )
    best = ' class="best"' if row == run.best != 0 else ""
    return f"<tr{best}>{head}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _exact(ratio: float) -> str:
    return f"{ratio:.2f}\u00d7"
