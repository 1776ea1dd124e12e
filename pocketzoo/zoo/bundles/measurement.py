"""Measurements as manifests keep them: a row for each graph, in the runs that measured them together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby
from typing import Literal

from pocketzoo.core.renamed import ReadByKey
from pocketzoo.zoo.bundles.measured_on import MeasuredOn, now, this_machine
from pocketzoo.zoo.bundles.metric_value import MetricValue

WIDE = 1.25  # times the median that one of ten runs may take before it is said
PRECISE = 0.04  # an interval that reaches no further than this from its middle is narrow enough


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval(ReadByKey):
    """How many times faster, and between which bounds with the probability ``timing.CONFIDENCE``."""

    middle: float
    low: float
    high: float

    @property
    def differs(self) -> bool:
        """Whether it is surely not the same."""
        return not self.low <= 1.0 <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency(ReadByKey):
    """Wall-clock milliseconds for one batch. Rows of older versions have only p50 and p99."""

    p50: float
    p99: float
    p90: float | None = None
    throughput: float | None = None  # samples a second, one batch after the other
    runs: int = 0
    faster: Interval | None = None  # than the first row: compared round by round, see timing.py
    clock: Literal["wall", "cpu"] = "wall"  # which was compared: "cpu" where one thread does all the work

    @property
    def wide(self) -> bool:
        """Whether the times vary so much that they say little: on a busy machine, or in too few runs."""
        unsure = self.faster is not None and self.faster.high / self.faster.low > (1 + PRECISE) ** 4
        return unsure or (self.p90 is not None and self.p90 > WIDE * self.p50)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory(ReadByKey):
    """Bytes that were resident: the largest of all times, and once everything was imported, before the model."""

    peak: int
    imports: int

    @property
    def model(self) -> int:
        """What the model took: weights, and room for what it computes."""
        return max(self.peak - self.imports, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndMeasurement(ReadByKey):
    """What an artifact gives at another of its ends. Fractions are against the first artifact of the run."""

    end: str  # "generation"
    unit: str  # what its steps are: "token"
    files: tuple[str, ...]  # of the graphs on the way
    bytes: int  # of all of them
    samples: int  # texts
    steps: int  # that the first artifact gave after them: tokens
    agreement: float  # fraction of these steps that it would have given there too
    same: float  # fraction of the samples that it answers the same to the end
    milliseconds: float  # the median of one step, after the first sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement(ReadByKey):
    """One row of a bench. Agreement and SQNR are against the first candidate of the run."""

    bundle: str
    target: str
    precision: str
    runtime: str
    bytes: int  # of the graph file
    parameters: int
    macs: int
    samples: int
    accuracy: float | None = None  # the metric, where that is accuracy: rows of before have no other
    # How far it answers as the reference does, 0-1, by the task: a fraction of samples or tokens with the same answer,
    # of embeddings with the same nearest neighbor, or of the variance of numbers. None where that cannot be told.
    agreement: float | None
    sqnr: float | None  # dB, 10 log10(|ref|^2 / |ref - out|^2), of the worst output; None where all are equal
    outputs: Mapping[str, float | None] = field(default_factory=dict)  # the same of each output, by its name
    # Fraction of the values that differ, of outputs of whole numbers, truth values and texts: 10% of them are 10 dB.
    differing: Mapping[str, float] = field(default_factory=dict)
    # Outputs whose length depends on the data -> the operator that selects them, before which they are compared,
    selected_by: Mapping[str, str] = field(default_factory=dict)
    same_selection: Mapping[str, float] = field(default_factory=dict)  # and how far the same is selected, 0-1
    held: tuple[str, ...] = ()  # the outputs that ``sqnr`` is the worst of, where not of all
    # Batch size -> milliseconds; "8x128" is a batch of 8 texts of 128 tokens.
    latency: Mapping[str, Latency] = field(default_factory=dict)
    threads: int = 1
    metric: MetricValue | None = None  # of the task, with its interval; None where targets are not known
    about: str = ""  # what that agreement is, in words
    memory: Memory | None = None  # of a process that runs nothing else, at the largest batch
    no_memory: str = ""  # why it was not measured, where it was asked for
    ends: tuple[EndMeasurement, ...] = ()  # what it gives elsewhere than at its first end: the text that is written
    digest: str = ""  # sha256 of the graph or weights, of several files that of theirs; "" in rows of before
    measured: MeasuredOn | None = None  # where, when and on what; None in rows of before

    @property
    def made_samples(self) -> str:
        """See ``MeasuredOn.made_samples``."""
        return "" if self.measured is None else self.measured.made_samples


def measured_now(
    rows: Sequence[Measurement], versions: Mapping[str, str], *, data: str = "", sha256: str = "", gpu: str = ""
) -> list[Measurement]:
    """Rows of one run, made here just now: ``versions`` of the runtimes they name, and the data they are of."""
    machine, date = this_machine(gpu), now()
    return [
        replace(
            row,
            measured=MeasuredOn(
                machine=machine, date=date, version=versions.get(row.runtime, ""), data=data, sha256=sha256
            ),
        )
        for row in rows
    ]


def runs_of(rows: Sequence[Measurement]) -> list[tuple[Measurement, ...]]:
    """The rows as they were measured together, the first run first; the first row of each is its reference."""

    def together(row: Measurement) -> object:
        return None if row.measured is None else (row.measured.date, row.measured.machine)

    return [tuple(run) for _, run in groupby(rows, together)]


def with_run(rows: Sequence[Measurement], run: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """``rows`` and those of a new ``run``, which come last.

    A run that was measured again whole goes: each of its graphs, by the same runtime in the same version, on the same
    machine and data, with all that was measured of it. Rows of before, which do not say these, stay.
    """
    return (*chain(*(each for each in runs_of(rows) if not _covers(run, each))), *run)


def _covers(run: Sequence[Measurement], earlier: Sequence[Measurement]) -> bool:
    return all(any(_repeats(new, old) for new in run) for old in earlier)


def _repeats(new: Measurement, old: Measurement) -> bool:
    """Whether a row measures what another did, and no less of it."""
    if new.measured is None or old.measured is None or not old.digest:
        return False
    subjects = [(row.digest, row.target, row.precision, row.runtime, row.threads, row.samples) for row in (new, old)]
    places = [(at.machine, at.version, at.made_samples or at.data, at.sha256) for at in (new.measured, old.measured)]
    as_much = set(new.latency) >= set(old.latency) and (old.memory is None or new.memory is not None)
    return subjects[0] == subjects[1] and places[0] == places[1] and as_much


def digest_of(digests: Iterable[str]) -> str:
    """The sha256 of a file, or that of the digests of several."""
    one, *others = digests
    return hashlib.sha256(" ".join([one, *others]).encode()).hexdigest() if others else one
