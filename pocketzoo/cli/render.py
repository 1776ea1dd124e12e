"""Print results as JSON, columns and tables, and progress as bars on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pocketzoo.cli.echo import (
    echo,
    echo_json,
    print_hint,  # noqa: F401 - where it was in the last release
)
from pocketzoo.core.former_names import names_before
from pocketzoo.core.untrusted.shown import shown

if TYPE_CHECKING:
    from rich.console import Console

    from pocketzoo.workflows.predict import Prediction
    from pocketzoo.zoo.bundles.measurement import Latency, Measurement

T = TypeVar("T")
MOST_LAYERS = 12  # that are left as they are and have a line each
SHOWN = 5  # names of samples or layers; all of them are in --json
MOST_SETTINGS = 4  # batch sizes that are columns of one table


def print_json(value: Any) -> None:
    from pocketzoo.core.typed import to_plain

    echo_json(json.dumps(to_plain(value), indent=2, ensure_ascii=False))


def print_columns(rows: Sequence[Sequence[str]]) -> None:
    """Left-aligned columns; the last is as long as it likes."""
    if not rows:
        return
    rows = [[cell.replace("\n", "\\n") for cell in map(shown, row)] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    line = "".join(f"%-{width}s  " for width in widths) + "%s"
    lines = ((line % tuple(row)).rstrip() for row in rows)
    echo("\n".join(lines))  # at once: a write for each of 10,000 names takes as long as the rest of list


def print_answer(prediction: Prediction) -> None:
    """What a model answers to one sample: classes and numbers in columns, anything else by its name."""
    print_columns([["", f"{probability:6.1%}", label] for label, probability in prediction.top])
    print_columns([["", f"{value:.6g}"] for value in prediction.values])
    others = {name: value for name, value in prediction.answer.items() if name not in ("top", "values")}
    print_columns([["", name, _shortened(value)] for name, value in others.items()])


def _shortened(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 100 else f"{text[:97]}..."


def print_measurements(rows: Sequence[Measurement]) -> None:
    """The table of a bench. Ratios are against the first row."""
    from rich.table import Table
    from rich.text import Text  # which no [markup] is read in

    # Where there are many, print_timings has a row for each.
    sizes = [size for size in rows[0].latency if "x" not in size and len(rows[0].latency) <= MOST_SETTINGS]
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("model", no_wrap=True)
    table.add_column("precision", no_wrap=True)
    metric = next((row.metric for row in rows if row.metric is not None), None)
    quality = "accuracy" if metric is None else metric.titled
    titles = [quality, "agreement", "SQNR dB", "size KB", "params", "MMACs", *[f"ms, {setting(s)}" for s in sizes]]
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    first = rows[0]
    for row in rows:
        table.add_row(
            Text(shown(row.bundle)),
            Text(shown(_kind(row))),
            _metric(row),
            "-" if row.agreement is None else f"{row.agreement:.3f}",
            "-" if row.sqnr is None else f"{row.sqnr:.1f}",
            f"{row.bytes / 1e3:,.0f}{_times(first.bytes / row.bytes)}",
            f"{row.parameters / 1e3:,.0f} k",
            f"{row.macs / 1e6:,.1f}",
            *[_milliseconds(row, first, s) for s in sizes],
        )
    _console().print(table)
    threads = f"{first.threads} thread{'s' * (first.threads != 1)}" if first.threads else "all cores"
    runtimes = " and ".join(dict.fromkeys(row.runtime for row in rows))
    echo(
        f"medians on {runtimes}, {threads}, {first.samples} {first.made_samples or 'samples'}; "
        f"agreement and SQNR against {first.bundle}; (x): times smaller or faster"
    )
    if first.metric is not None and first.metric.low is not None and first.metric.high is not None:
        ends = f"{first.metric.low:.3f} to {first.metric.high:.3f}"
        echo(f"{first.metric.name} of {first.bundle}: {ends}, at 95% confidence")
    if len(first.outputs) > 1:
        held = f" of {' and '.join(rows[-1].held)}" if rows[-1].held else ""
        echo(f"\nSQNR of each output, dB (-: equal); the table above has the worst{held}")
        named = [[f"{row.bundle} {_kind(row)}", *(_output(row, name) for name in row.outputs)] for row in rows[1:]]
        print_columns([["", *first.outputs], *named])
    _print_selected(rows)
    if foreign := sorted({row.target for row in rows if _is_foreign(row)}):
        echo(
            f"*: {first.runtime} runs the graph for {' and '.join(foreign)} correctly but slowly; time it on the device"
        )


def _print_selected(rows: Sequence[Measurement]) -> None:
    """The outputs that are compared before what selects them, and how much of it is the same."""
    told: dict[str, list[str]] = {}
    for name, operator in (rows[-1].selected_by if len(rows) > 1 else {}).items():
        of = [f"{row.same_selection[name]:.1%} in {_kind(row)}" for row in rows[1:] if name in row.same_selection]
        same = f", which selects the same to {', '.join(of)}" if of else ""
        told.setdefault(f"compared before {operator}{same}: what is where depends on the data", []).append(name)
    for how, names in told.items():
        echo(f"{', '.join(names)}: {how}")


def _metric(row: Measurement) -> str:
    """The task's metric."""
    if row.metric is None:
        return "-" if row.accuracy is None else f"{row.accuracy:.3f}"
    return f"{row.metric.value:.3f}" if abs(row.metric.value) < 100 else f"{row.metric.value:,.1f}"  # no fraction


def _output(row: Measurement, name: str) -> str:
    """How near an output is: in dB, or of values that have no distance the fraction that differs."""
    sqnr = row.outputs[name]
    if sqnr is None:
        return "-"
    return f"{row.differing[name]:.1%} differ" if name in row.differing else f"{sqnr:.1f}"


def print_timings(rows: Sequence[Measurement]) -> None:
    """Latency percentiles, throughput, and the speedup over the first row with its confidence interval."""
    from rich.table import Table
    from rich.text import Text  # which no [markup] is read in

    echo()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("model", "precision", "batch"):
        table.add_column(title, no_wrap=True)
    for title in ("p50 ms", "p90", "p99", "samples/s", "faster", "99% interval", "peak MB", "model MB"):
        table.add_column(title, justify="right", no_wrap=True)
    for size in rows[0].latency:
        for row in rows:
            times, memory = row.latency[size], row.memory
            table.add_row(
                Text(shown(row.bundle)),
                Text(shown(_kind(row))),
                setting(size).removeprefix("batch "),
                f"{times.p50:.2f}",
                f"{times.p90:.2f}" if times.p90 else "-",
                f"{times.p99:.2f}{'~' if times.wide else ''}",
                f"{times.throughput:,.0f}" if times.throughput else "-",
                f"{times.faster.middle:.2f}x" if times.faster and not _is_foreign(row) else "-",
                "-" if row is rows[0] or _is_foreign(row) else _bounds(times),
                f"{memory.peak / 1e6:,.0f}" if memory else "-",
                f"{memory.model / 1e6:,.0f}" if memory else "-",
            )
    _console().print(table)
    clocks = {times.clock for row in rows[1:] for times in row.latency.values() if times.faster}
    what = "CPU time of the thread" if clocks == {"cpu"} else "time"
    if len(rows) > 1:
        echo(f"faster: {what} against {rows[0].bundle}, round by round; =: no significant difference")
    if any(row.memory for row in rows):
        echo("peak: memory of a process that loads the model and runs the largest batch, imports included")
    for why in dict.fromkeys(row.no_memory for row in rows if row.no_memory):
        echo(f"no peak for {', '.join(dict.fromkeys(_kind(row) for row in rows if row.no_memory == why))}: {why}")
    if any(times.wide for row in rows for times in row.latency.values()):
        echo("~: the times vary much; measure on a quieter machine, or with more --seconds")


def _bounds(times: Latency) -> str:
    if times.faster is None:
        return "too few runs"
    return f"{times.faster.low:.2f} to {times.faster.high:.2f}{'' if times.faster.differs else ' ='}"


def setting(size: str) -> str:
    """A timed size in words: "1" is "batch 1", and "8x128" "batch 8 x 128 tokens"."""
    batch, _, tokens = size.partition("x")
    return f"batch {batch} x {tokens} tokens" if tokens else f"batch {batch}"


def _kind(row: Measurement) -> str:
    kind = f"{row.precision} for {row.target}" if row.target else row.precision
    return kind if row.runtime == "onnxruntime" else f"{kind}, {row.runtime}"


def _console() -> Console:
    """A pipe has no width; cutting a table there would lose numbers."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 400, highlight=False)


def print_generation(rows: Sequence[Measurement]) -> None:
    """A table for each further place where models are measured: the text that they generate, token by token."""
    for name in dict.fromkeys(end.end for row in rows for end in row.ends):
        there = [(row, end) for row in rows for end in row.ends if end.end == name]
        first = there[0][1]
        echo(f"\n{name}, {first.unit} by {first.unit}, after {first.samples} samples")
        titles = [
            "model",
            "precision",
            "graphs",
            f"equal {first.unit}s",
            "equal to the end",
            "size KB",
            f"ms per {first.unit}",
        ]
        table = [
            [
                row.bundle,
                _kind(row),
                " ".join(end.files),
                f"{end.agreement:.3f} of {end.steps}",
                f"{end.same:.3f}",
                f"{end.bytes / 1e3:,.0f}{_times(first.bytes / end.bytes)}",
                f"{end.milliseconds:.2f}"
                + ("*" if _is_foreign(row) else _times(first.milliseconds / end.milliseconds)),
            ]
            for row, end in there
        ]
        print_columns([titles, *table])


def _is_foreign(row: Measurement) -> bool:
    """Whether a graph is written for another runtime than the one it was measured on."""
    return row.target not in ("", "cpu")


def _milliseconds(row: Measurement, first: Measurement, size: str) -> str:
    p50, faster = row.latency[size].p50, row.latency[size].faster
    ratio = faster.middle if faster else first.latency[size].p50 / p50
    return f"{p50:.2f}{'*' if _is_foreign(row) else _times(ratio)}"


def _times(ratio: float) -> str:
    return "" if abs(ratio - 1) < 0.005 else f" ({ratio:.1f}x)"


def flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A nested mapping as rows of dotted name and value, to read: numbers and digests cut short, None left out."""
    for key, value in mapping.items():
        if value is None:
            continue
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{name}.")
        elif isinstance(value, (list, tuple)):
            if any(isinstance(v, (Mapping, list)) for v in value):
                yield name, f"{len(value)} entries"
            else:
                yield name, ", ".join(map(_short, value[:12])) + (f", ... ({len(value)})" if len(value) > 12 else "")
        else:
            yield name, str(value)[:12] if key == "sha256" else _short(value)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Bars:
    """Draws progress on stderr, and nothing where that is not a terminal."""

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        if not label or not sys.stderr.isatty():
            yield from items
            return
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import track

        yield from track(items, shown(escape(label)).ljust(26), total, console=Console(stderr=True), transient=True)

    def say(self, text: str) -> None:
        echo(f"  {text}", dim=True, err=True)


def some(names: Sequence[str]) -> list[str]:
    """The first of the names."""
    return [*names[:SHOWN], "..."] if len(names) > SHOWN else list(names)


def print_decisions(manifest: Any) -> None:
    """Rejected steps, layers kept in float, and layers left unchanged, with the reasons; and what it is all told by."""
    from pocketzoo.measure.calibration_sources import source_sentences  # a command that compressed has loaded much more

    for step in manifest.steps:
        for no in step.report.rejected:
            what = f" for {no.target}" if no.target else f" ({_asked(no.config)})"
            echo(f"rejected: {step.compressor}{what}: {no.why}")
        if taken := step.report.float_layers:
            others = sum(bool(decision.precision) for decision in step.decisions)
            why = f"; with all in {step.compressor} {step.report.float_why}" if step.report.float_why else ""
            echo(f"left in float: {len(taken)} of {len(taken) + others} layers{why}")
            print_columns([["", name, why] for name, why in taken.items()])
        left = {d.layer: d.why for d in step.decisions if d.why and d.layer not in taken}
        if left:
            echo(f"left alone: {len(left)} layer{'s' * (len(left) > 1)}")
            print_columns(_reasons(left))
        for target, layers in step.report.in_float.items():
            if more := {name: why for name, why in layers.items() if name not in taken and name not in left}:
                echo(f"left alone for {target}: {len(more)} layer{'s' * (len(more) > 1)}")
                print_columns(_reasons(more))
    for no in manifest.rejected:
        echo(f"rejected: {no.compressor}: {no.why}")
    for sentence in source_sentences(manifest):
        echo(sentence)
    _print_what_is_worse_than_held(manifest)


def _print_what_is_worse_than_held(manifest: Any) -> None:
    """Rows of the table that are below the floor, though what the step was judged on is not: other samples."""
    from pocketzoo.compress.pipeline.acceptance import FLOOR_DB  # compressing has loaded it

    report = manifest.steps[-1].report if manifest.steps else None
    if report is None or report.sqnr is None or report.sqnr < FLOOR_DB:
        return
    for row in manifest.measurements:
        if row.metric is None and row.sqnr is not None and row.sqnr < FLOOR_DB:
            echo(
                f"{row.precision} for {row.target}: SQNR {row.sqnr:.1f} dB on the {row.samples} samples of the table "
                f"is below {FLOOR_DB:.0f} dB, though {report.sqnr:.1f} on the {report.samples} it was held to; "
                f"--min-sqnr {FLOOR_DB + 3:.0f} asks for more"
            )


def _reasons(layers: Mapping[str, str]) -> list[list[str]]:
    """Layers and why; of many a line for each reason, with some of those that it is of."""
    if len(layers) <= MOST_LAYERS:
        return [["", name, why] for name, why in layers.items()]
    by_reason: dict[str, list[str]] = {}
    for name, why in layers.items():
        by_reason.setdefault(why, []).append(name)
    return [["", f"{len(n)}", f"{why}: {', '.join(some(n))}"] for why, n in by_reason.items()]


def _asked(config: dict[str, Any]) -> str:
    """The numbers of a config."""
    return ", ".join(f"{name} {value:.3g}" for name, value in config.items() if isinstance(value, float))


def print_plans(steps: list[Any]) -> None:
    for step in steps:
        changes = [
            f"{change.before:,} -> {change.after:,} {words}"
            for change, words in (
                (step.report.parameters, "parameters"),
                (step.report.macs, "MACs"),
                (step.report.bytes, "bytes"),
            )
            if change is not None
        ]
        echo(f"{step.compressor}: {', '.join(changes)}" if changes else step.compressor)
        print_columns([["", d.layer, f"{d.what}: {d.why}" if d.why else d.what] for d in step.decisions])
        said = {decision.layer for decision in step.decisions if decision.why}
        for target, layers in step.report.in_float.items():
            if more := {name: why for name, why in layers.items() if name not in said}:
                echo(f"left alone for {target}: {len(more)} layer{'s' * (len(more) > 1)}")
                print_columns(_reasons(more))


if not TYPE_CHECKING:  # which would take any name for one of these
    __getattr__ = names_before(__name__)
