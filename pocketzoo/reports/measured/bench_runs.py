"""Bench runs stored in bundles: group them, find the best row, summarize the gain in a sentence."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketzoo.core.errors import DataError
from pocketzoo.reports.measured.number_format import Number, kilobytes, milliseconds, percent, plain, points, times
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.bundles.measurement import Measurement, runs_of
from pocketzoo.zoo.bundles.metric_value import MetricValue
from pocketzoo.zoo.graphs.layer_cost import FLOATS

ENOUGH_DB = 10.0  # SQNR that loses nothing that is known of, where it is all that is known
MOST_LOST = 0.01  # accuracy, or agreement, that a row may lose and still be called the best for being fast


@dataclass(frozen=True, slots=True)
class BenchRun:
    """Rows that were measured together; the first is the reference."""

    bundle: int  # the first of the report's models that carries it
    rows: tuple[Measurement, ...]
    first: int = 0  # where its rows begin among that model's

    @property
    def reference(self) -> Measurement:
        return self.rows[0]

    @property
    def made_samples(self) -> str:
        """What they are of where nobody took the samples, so that they say little of how well the models answer."""
        return self.reference.made_samples

    @property
    def sample_word(self) -> str:
        """What was measured on."""
        return self.made_samples or "samples"

    @property
    def samples(self) -> Number:
        return Number(self.reference.samples, self._key(0, "samples"), self.bundle)

    @property
    def threads(self) -> Number:
        return Number(self.reference.threads, self._key(0, "threads"), self.bundle)

    @property
    def precisions(self) -> tuple[str, ...]:
        """What steps on the graph made of rows, as their compressors call it, in the order of the rows."""
        return tuple(dict.fromkeys(row.precision for row in self.rows if row.precision not in FLOATS))

    @property
    def floats(self) -> str:
        """What the other rows compute in: "float32"."""
        return " and ".join(dict.fromkeys(row.precision for row in self.rows if row.precision in FLOATS)) or FLOATS[0]

    @property
    def best(self) -> int:
        """The row the headline is about.

        Of the rows encoded for the CPU it is the fastest of those that lose no more than a point, or where all
        lose more, the one that loses least. Without such rows it is the smallest.
        """
        for_cpu = [i for i, row in enumerate(self.rows) if i and row.precision not in FLOATS and row.target == "cpu"]
        close = [i for i in for_cpu if self._lost(i) <= MOST_LOST + 1e-9]
        if close:
            return min(close, key=lambda i: (self.latency(i) or math.inf, self.rows[i].bytes))
        if for_cpu:
            return min(for_cpu, key=self._lost)
        return min(range(1, len(self.rows)), key=lambda i: self.rows[i].bytes, default=0)

    def _lost(self, row: int) -> float:
        ours, reference = self.number(row, self.quality), self.number(0, self.quality)
        if self.quality == "sqnr":  # the reference, and what equals it, have none
            return max(0.0, 1 - ours.value / ENOUGH_DB) if ours else 0.0
        return self.measure.loss(ours.value) - self.measure.loss(reference.value) if ours and reference else 0.0

    @property
    def batches(self) -> list[str]:
        """The batch sizes that were timed, as the manifest writes them, smallest first."""
        sizes = {size for row in self.rows for size in row.latency}
        return sorted(sizes, key=lambda size: [int(part) for part in size.split("x") if part.isdecimal()])

    @property
    def quality(self) -> str:
        """The field that tells good rows from bad ones: the metric, without targets agreement, without answers SQNR."""
        if all(row.accuracy is not None for row in self.rows):
            return "accuracy"
        if all(row.metric is not None for row in self.rows):
            return "metric.value"
        return "agreement" if all(row.agreement is not None for row in self.rows) else "sqnr"

    @property
    def measure(self) -> MetricValue:
        """What ``quality`` is, with the reference's value."""
        row = self.reference
        if row.metric is not None and self.quality in ("accuracy", "metric.value"):
            return row.metric
        value = row.accuracy if self.quality == "accuracy" else row.agreement
        return MetricValue(name=self.quality, value=0.0 if value is None else value)

    def written(self, value: float) -> str:
        """A value of ``measure``: fractions in percent."""
        return plain(value) if self.measure.unit else percent(value, self.reference.samples)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the reference's outputs; () for rows of versions that scored the first alone."""
        return tuple(self.reference.outputs)

    def latency(self, row: int) -> float | None:
        """Milliseconds at the smallest batch size, the median."""
        number = self.number(row, f"latency.{self.batches[0]}.p50") if self.batches else None
        return number.value if number else None

    def number(self, row: int, field: str) -> Number | None:
        """A field of a row, "bytes" or "latency.32.p50"; None where it was not measured."""
        value: Any = self.rows[row]
        for part in field.split(".", 1) if field.startswith("outputs.") else field.split("."):
            value = value.get(part) if isinstance(value, Mapping) else getattr(value, part)
            if value is None:
                return None
        return Number(value, self._key(row, field), self.bundle)

    def _key(self, row: int, field: str) -> str:
        """Where the manifest has a field of a row."""
        return f"measurements.{self.first + row}.{field}"

    def ratio(self, row: int, field: str) -> float | None:
        """How many times smaller or faster a row is than the reference; medians of times as they were compared."""
        if field.endswith(".p50") and (paired := self.number(row, f"{field.removesuffix('p50')}faster.middle")):
            return paired.value
        ours, reference = self.number(row, field), self.number(0, field)
        return reference.value / ours.value if ours and reference and ours.value > 0 else None


def batch_setting(batch: str) -> str:
    """What was timed: "1" is "batch 1", and "8x128" "batch 8, 128 tokens"."""
    size, _, tokens = batch.partition("x")
    return f"batch {size}, {tokens} tokens" if tokens else f"batch {size}"


def label(row: Measurement) -> str:
    """What a row is, in addition to its bundle's name: "float32", "int8 for cpu", or "float32 on torch"."""
    kind = f"{row.precision} for {row.target}" if row.target else row.precision
    return kind if row.runtime == "onnxruntime" else f"{kind} on {row.runtime}"


def read_runs(bundles: Sequence[Bundle], models: Sequence[str | Path]) -> list[BenchRun]:
    """The runs that the bundles carry, each once: ``bench --save`` puts the same rows into every bundle it measured.

    Of each bundle the last comes first; those on samples that nobody took come after all that were measured on data.

    Raises:
        DataError: a bundle has no measurements, and those of the others are not about it.
    """
    runs: list[BenchRun] = []
    for index, bundle in enumerate(bundles):
        end = len(bundle.manifest.measurements)
        for rows in reversed(runs_of(bundle.manifest.measurements)):
            end -= len(rows)
            if all(run.rows != rows for run in runs):
                runs.append(BenchRun(index, rows, end))
    measured = {row.bundle for run in runs for row in run.rows}
    for bundle in bundles:
        # A registered model is never written to: what is known of it is in the bundles it was measured with.
        if not bundle.manifest.measurements and bundle.manifest.name not in measured:
            raise DataError(f"{bundle.manifest.name} has no measurements", f"measure them first: {_command(models)}")
    return sorted(runs, key=lambda run: bool(run.made_samples))


def _command(models: Sequence[str | Path]) -> str:
    return f"pocketzoo bench {' '.join(shlex.quote(str(model)) for model in models)} --data DATA --save"


def bench_headline(run: BenchRun) -> str:
    """What the best row won and what it cost, without a full stop."""
    return _headline(run) + (f", on {run.made_samples}" if run.made_samples else "")


def _headline(run: BenchRun) -> str:
    best, row = run.best, run.rows[run.best]
    speed = run.ratio(best, f"latency.{run.batches[0]}.p50") if run.batches else None
    if not best:
        known = run.quality in ("accuracy", "metric.value")
        answer = f"{run.written(run.measure.value)} {run.measure.name}" if known else ""
        took = milliseconds(latency) if (latency := run.latency(0)) is not None else ""
        return f"{row.bundle}: {', '.join(part for part in (answer, took, kilobytes(row.bytes)) if part)}"
    won = [(run.ratio(best, "bytes"), "smaller", "larger", "as large"), (speed, "faster", "slower", "as fast")]
    signs = [_sign(ratio) for ratio, *_ in won if ratio]
    # "but" where one was won and the other lost
    link = " but " if min(signs, default=0) < 0 < max(signs, default=0) else " and "
    sentence = link.join(_change(ratio, *words) for ratio, *words in won if ratio)
    if run.quality not in ("accuracy", "metric.value"):
        if row.agreement is None:
            return f"{sentence}, with " + ("equal outputs" if row.sqnr is None else f"{row.sqnr:.1f} dB SQNR")
        shown = f"equal predictions for {percent(row.agreement, row.samples)} of the samples"  # rows of before
        return f"{sentence}, with {row.about or shown}"
    name, metric = run.measure.name, run.measure
    ours = run.number(best, run.quality)
    lost = 0.0 if ours is None else metric.loss(ours.value)
    shown = plain(abs(lost)) if metric.unit else points(-lost)[1:] if points(-lost) != "0.0" else "0.0"
    what = f"{shown} {metric.unit if metric.unit != 'number' else ''}".strip() if metric.unit else f"{shown} points"
    if shown in ("0", "0.0"):
        return f"{sentence}, with no {name} lost"
    return f"{sentence}, with {what} of {name} gained" if lost < 0 else f"{sentence}, for {what} of {name}"


def _sign(ratio: float) -> int:
    return 0 if 0.95 < ratio < 1.05 else 1 if ratio > 1 else -1


def _change(ratio: float, better: str, worse: str, same: str) -> str:
    return [same, f"{times(ratio)} {better}", f"{times(1 / ratio)} {worse}"][_sign(ratio)]
