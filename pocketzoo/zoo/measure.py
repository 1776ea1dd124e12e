"""Measure graphs side by side: the same samples, the same session settings, timed in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.errors import BundleError, DataError
from pocketzoo.progress import SILENT, Progress
from pocketzoo.zoo.bundle import Bundle, FileEntry, Manifest
from pocketzoo.zoo.data import Batches
from pocketzoo.zoo.preprocess import Array
from pocketzoo.zoo.runner import OnnxRunner
from pocketzoo.zoo.specs import PER_TOKEN, TextSpec

BATCHES = (1, 32)
WARM_UP = 5  # runs of each graph before the first that counts, while they take less than 0.2 s
CLOSE = 0.05
LEAST = 3  # runs of each graph that count, however long they take


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A graph to measure, and what is known of it already."""

    bundle: str
    target: str  # "" for the float graph
    graph: Path
    parameters: int
    macs: int
    precision: str = "float32"
    returns: str = "logits"  # what it gives, one of specs.RETURNS: what agreement means


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Milliseconds for one batch."""

    p50: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One row of the table. Agreement and SQNR are against the first candidate of the run."""

    bundle: str
    target: str
    precision: str
    runtime: str
    bytes: int  # of the graph file
    parameters: int
    macs: int
    samples: int
    accuracy: float | None  # share of right answers; None where the classes are not known
    # Share of samples, or of tokens, whose top answer is the reference's; for embeddings, whose nearest neighbour is;
    # for numbers, that are off by at most CLOSE of the standard deviation of the reference's.
    agreement: float
    sqnr: float | None  # dB, 10 log10(|ref|^2 / |ref - out|^2); None where the outputs are equal
    latency: Mapping[str, Latency] = field(default_factory=dict)  # batch size -> milliseconds
    threads: int = 1


def candidate(manifest: Manifest, graph: Path, entry: FileEntry) -> Candidate:
    """A graph of a bundle."""
    return Candidate(
        bundle=manifest.name,
        target=entry.target,
        graph=graph,
        parameters=manifest.parameters,
        macs=manifest.macs,
        precision=entry.precision,
        returns=manifest.gives,
    )


def candidates(bundle: Bundle, targets: Sequence[str] | None = None) -> list[Candidate]:
    """The graphs of a bundle: all of them, or those for ``targets``."""
    return [
        candidate(bundle.manifest, path, bundle.manifest.files[path.name])
        for target, path in sorted(bundle.graphs().items())
        if targets is None or target in targets
    ]


def measure(
    rows: Sequence[Candidate],
    data: Batches,
    *,
    batch_sizes: Sequence[int] = BATCHES,
    seconds: float = 0.5,
    threads: int = 1,
    progress: Progress = SILENT,
) -> list[Measurement]:
    """Score and time every candidate. ``seconds``: how long each is timed for at each batch size, at the least.

    Raises:
        DataError: the data does not fit the graphs.
    """
    with ExitStack() as stack:
        runners = [stack.enter_context(OnnxRunner(row.graph)) for row in rows]
        scores = _scores(runners, data, progress, rows[0].returns if rows else "logits")
    for row, score in zip(rows, scores, strict=True):
        if not np.isfinite(score.noise + score.signal):
            raise BundleError(f"{row.graph} gives outputs that are not finite", "make the model again")
    first = next(iter(data), (None, None))[0]
    if first is None:
        raise DataError("there are no samples to measure on", "give more data, or a split that is not empty")
    with ExitStack() as stack:
        runners = [stack.enter_context(OnnxRunner(row.graph, threads=threads)) for row in rows]
        timings: list[dict[str, Latency]] = [{} for _ in rows]
        for size in progress.track(batch_sizes, "timing", len(batch_sizes)):
            x = np.concatenate([first] * -(-size // len(first)))[:size]
            for timing, times in zip(timings, time_in_turn(_runs(runners, x), seconds), strict=True):
                p50, p99 = np.percentile(times, [50, 99])
                timing[str(size)] = Latency(p50=float(p50), p99=float(p99))
    return [
        Measurement(
            bundle=row.bundle,
            target=row.target,
            precision=row.precision,
            runtime="onnxruntime",
            bytes=row.graph.stat().st_size,
            parameters=row.parameters,
            macs=row.macs,
            samples=score.samples,
            accuracy=score.right / score.samples if score.labelled else None,
            agreement=score.agreed / score.answers,
            sqnr=score.sqnr,
            latency=timing,
            threads=threads,
        )
        for row, score, timing in zip(rows, scores, timings, strict=True)
    ]


@dataclass
class _Score:
    """Sums over the samples; nothing else is kept of them."""

    samples: int = 0
    answers: int = 0  # as many, or where each token gets one, the tokens
    right: int = 0
    agreed: int = 0
    signal: float = 0.0
    noise: float = 0.0
    labelled: bool = False
    outputs: list[Array] = field(default_factory=list)  # kept only where all of them are looked at together

    @property
    def sqnr(self) -> float | None:
        return float(10 * np.log10(self.signal / self.noise)) if self.noise > 0 and self.signal > 0 else None


def _scores(runners: Sequence[OnnxRunner], data: Batches, progress: Progress, returns: str) -> list[_Score]:
    scores = [_Score() for _ in runners]
    for x, y in progress.track(data, "scoring", len(data)):
        reference = answers(runners[0], x, data, returns)
        for runner, score in zip(runners, scores, strict=True):
            out = reference if runner is runners[0] else answers(runner, x, data, returns)
            score.samples += len(x)
            score.answers += len(out)
            if returns in ("embedding", "values"):
                score.outputs.append(out)
            else:
                score.agreed += int(same(out, reference, returns).sum())
            score.signal += float(np.square(reference, dtype=np.float64).sum())
            with np.errstate(invalid="ignore"):  # infinite outputs are reported below
                score.noise += float(np.square(reference - out, dtype=np.float64).sum())
            if y is not None and returns == "logits" and y.ndim == 1:
                score.labelled = True
                score.right += int((out.argmax(-1) == y).sum())
    if scores and scores[0].outputs:
        wanted = np.concatenate(scores[0].outputs)
        for score in scores:
            score.agreed = int(same(np.concatenate(score.outputs), wanted, returns).sum())
    return scores


def answers(runner: OnnxRunner, x: Array, data: Batches, returns: str) -> Array:
    """One row an answer: those of the samples, or of the tokens that a text has."""
    out: Array = runner.logits(x)
    if returns not in PER_TOKEN:
        return out
    return out[x != data.spec.pad] if isinstance(data.spec, TextSpec) else out.reshape(-1, out.shape[-1])


def same(given: Array, wanted: Array, returns: str) -> npt.NDArray[np.bool_]:
    """Which rows (N, C) give the answer of the reference's (N,): ``Measurement.agreement`` is their share."""
    if returns == "embedding":
        return np.asarray(nearest_neighbours(given) == nearest_neighbours(wanted))
    if returns == "values":
        return np.asarray((np.abs(given - wanted) <= CLOSE * wanted.std(0)).all(-1))
    return np.asarray(given.argmax(-1) == wanted.argmax(-1))


def nearest_neighbours(vectors: Array) -> npt.NDArray[np.intp]:
    """For each vector (N, C) the other one of the largest cosine: (N,)."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    return np.asarray(cosines.argmax(-1))


def r2(out: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> float:
    """The coefficient of determination of numbers (N, outputs), averaged over the outputs.

    1 is exact, and 0 what the mean of the wanted numbers scores. An output that never changes counts 1 if it is met.
    """
    missed = np.square(out - wanted, dtype=np.float64).sum(0)
    spread = np.square(wanted - wanted.mean(0), dtype=np.float64).sum(0)
    shares = np.where(spread > 0, missed / np.where(spread > 0, spread, 1.0), missed > 0)
    return float(1 - shares.mean())


def milliseconds(graphs: Sequence[Path], x: Array, seconds: float) -> list[float]:
    """The median time of each graph on one thread for the batch ``x``, run in turn."""
    with ExitStack() as stack:
        runners = [stack.enter_context(OnnxRunner(graph, threads=1)) for graph in graphs]
        return [float(np.median(times)) for times in time_in_turn(_runs(runners, x), seconds)]


def _runs(runners: Sequence[OnnxRunner], x: Array) -> list[Callable[[], object]]:
    return [partial(runner.logits, x) for runner in runners]


def time_in_turn(
    runs: Sequence[Callable[[], object]], seconds: float, *, least: int = LEAST, most: int | None = None
) -> list[list[float]]:
    """Milliseconds of each run, one of each in turn, so that a slow moment of the machine hits all alike.

    It goes on for ``seconds`` times the number of ``runs``, and makes ``least`` to ``most`` of each.
    """
    for run in runs:
        start = time.perf_counter()
        for _ in range(WARM_UP):
            run()
            if time.perf_counter() - start > 0.2:
                break
    spent: list[list[float]] = [[] for _ in runs]
    start = time.perf_counter()
    while (count := len(spent[0])) < least or (
        time.perf_counter() - start < seconds * len(runs) and (most is None or count < most)
    ):
        for run, times in zip(runs, spent, strict=True):
            begin = time.perf_counter()
            run()
            times.append((time.perf_counter() - begin) * 1e3)
    return spent
