"""Measure graphs side by side: the same samples, the same session settings, timed in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from pocketzoo.core.arrays import Arrays, batch_size, joined, rows
from pocketzoo.core.errors import BundleError, DataError
from pocketzoo.core.files import scratch_folder, sha256
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.measure.forms_of_files import forms_of_files
from pocketzoo.measure.measure_ends import measure_ends
from pocketzoo.measure.peak_memory import NotMeasured, peak_memory
from pocketzoo.measure.selecting_runner import with_selections
from pocketzoo.zoo.artifacts.driver import Artifact, Graphs
from pocketzoo.zoo.artifacts.drivers import artifact_of, main_files, open_artifact
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.backends.runtimes import CPU, open_runner, single_thread
from pocketzoo.zoo.backends.timing import LEAST, Times, speedup, time_in_turn
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.bundles.manifest import FileEntry, Manifest
from pocketzoo.zoo.bundles.measurement import PRECISE, Interval, Latency, Measurement, Memory, digest_of
from pocketzoo.zoo.catalog.backend import Runner
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.data.random_samples import random_samples
from pocketzoo.zoo.graphs.files.weight_files import weight_files
from pocketzoo.zoo.models.model_costs import macs_of
from pocketzoo.zoo.tasks.agreement import Comparison, check_outputs, not_finite, worst
from pocketzoo.zoo.tasks.open_task import ModelTask

BATCHES = (1, 32)
LEGACY = "accuracy"  # the metric that rows of before have as a field of its own, which readers of JSON know


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A graph to measure, and what is known of it already."""

    bundle: str
    target: str  # "" for the float graph
    graph: Path  # or what a back end built of it
    artifact: Artifact | None = None  # where the graph is run by a driver, with others perhaps
    parameters: int
    macs: int
    precision: str = "float32"
    runtime: str = CPU  # one of runtimes.runtimes()
    source: Path | None = None  # the bundle that it is of: a runtime of modules builds it from there
    others: tuple[Path, ...] = ()  # files that belong to what was built
    digest: str = ""  # of what it is, or was built from: sha256 of the file, of several that of theirs

    @property
    def bytes(self) -> int:
        """Of all that is loaded."""
        paths = [path for each in (*self.files, *self.others) for path in (each, *each.rglob("*"))]
        weights = [path for each in self.files for path in weight_files(each)]
        return sum(path.stat().st_size for path in {*paths, *weights} if path.is_file())

    @property
    def files(self) -> list[Path]:
        """All that runs on the way to its answers."""
        return [self.graph] if self.artifact is None else main_files(self.artifact)


def candidate(manifest: Manifest, graph: Path, entry: FileEntry) -> Candidate:
    """A graph of a bundle."""
    return Candidate(
        bundle=manifest.name,
        target=entry.target,
        graph=graph,
        parameters=manifest.parameters,
        macs=manifest.macs,
        precision=entry.precision,
        digest=entry.sha256,
    )


def candidates(bundle: Bundle, targets: Sequence[str] | None = None) -> list[Candidate]:
    """The graphs of a bundle: all of them, or those for ``targets``."""
    macs = macs_of(bundle)
    return [
        replace(
            candidate(bundle.manifest, paths[0], bundle.manifest.files[paths[0].name]),
            artifact=artifact,
            macs=macs,
            digest=digest_of(bundle.manifest.files[path.name].sha256 or sha256(path) for path in paths),
        )
        for target in bundle.targets()
        if targets is None or target in targets
        for artifact in [artifact_of(bundle, target)]
        for paths in [main_files(artifact)]
        if paths
    ]


def measure(
    rows: Sequence[Candidate],
    data: Batches,
    *,
    task: ModelTask | None = None,
    outputs: Sequence[str] = (),
    batch_sizes: Sequence[int] = BATCHES,
    lengths: Sequence[int] = (),
    seconds: float = 0.5,
    threads: int = 1,
    least: int = LEAST,
    precise: bool = False,
    memory: bool = False,
    registry: Registry | None = None,
    progress: Progress = SILENT,
) -> list[Measurement]:
    """Score and time every candidate. ``seconds``: how long each is timed for at each batch size, at the least.

    ``outputs`` are those whose worst is a row's SQNR, all where none is named; each is measured all the same.
    ``lengths`` are tokens: texts are timed at each of them, with random ids; without, as long as those of the data are.
    ``precise`` continues timing until the intervals are narrow, within ``timing.PATIENCE``. ``memory`` runs each
    candidate in a process of its own, after the others are through.

    Raises:
        DataError: the data does not fit the graphs, or lengths are given for what reads no texts, or beyond its reach.
        UnknownNameError: a runtime does not work here, or the first candidate has no such output.
    """
    inputs = _settings(data, batch_sizes, lengths)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        runners = [stack.enter_context(_open(row, registry, folder=folder)) for row in rows]
        held = check_outputs(outputs, [spec.name for spec in runners[0].signature.outputs]) if outputs else ()
        scores = _scores(runners, rows, data, task, progress)
    with ExitStack() as stack:
        runners = [stack.enter_context(_open(row, registry, threads)) for row in rows]
        timings: list[dict[str, Latency]] = [{} for _ in rows]
        clocks = [threads == 1 and single_thread(row.runtime, registry) for row in rows]
        for name, x in progress.track(inputs.items(), "timing", len(inputs)):
            spent = time_in_turn(
                _runs(runners, x),
                seconds,
                least=least,
                enough=partial(_narrow, clocks=clocks) if precise else None,
            )
            for timing, latency in zip(timings, _latencies(spent, batch_size(x, data.axes), clocks), strict=True):
                timing[name] = latency
    largest = max(inputs.values(), key=lambda x: sum(array.size for array in x.values()))
    memories: list[Memory | NotMeasured] = [NotMeasured("") for _ in rows]
    if memory:
        for i, row in enumerate(progress.track(rows, "measuring memory", len(rows))):
            memories[i] = peak_memory(row.runtime, row.artifact or row.graph, row.source, largest, threads, registry)
    artifacts = [row.artifact for row in rows]
    further = measure_ends(artifacts, data, seconds=seconds, threads=threads, progress=progress)
    return [
        Measurement(
            bundle=row.bundle,
            target=row.target,
            precision=row.precision,
            runtime=row.runtime,
            bytes=row.bytes,
            parameters=row.parameters,
            macs=row.macs,
            samples=score.samples,
            accuracy=metric.value if metric is not None and metric.key == LEGACY else None,
            metric=metric,
            agreement=None if agreement is None else agreement.value,
            about=score.about,
            sqnr=worst(score.sqnr, held),
            outputs=score.sqnr,
            differing=score.differing,
            selected_by=score.selected_by,
            same_selection=score.same_selection,
            held=held,
            latency=timing,
            threads=threads,
            memory=taken if isinstance(taken, Memory) else None,
            no_memory=taken.why if isinstance(taken, NotMeasured) else "",
            ends=others,
            digest=row.digest,
        )
        for row, score, timing, taken, others in zip(rows, scores, timings, memories, further, strict=True)
        for metric, agreement in [(score.score, score.agreement)]
    ]


def _open(row: Candidate, registry: Registry | None, threads: int = 0, folder: Path | None = None) -> Runner:
    """What runs a row. With a ``folder`` it also gives what outputs are selected from: see ``with_selections``."""

    def plain(graph: Path) -> Runner:
        return open_runner(row.runtime, graph, row.source, threads=threads, registry=registry)

    start = plain if folder is None else with_selections(plain, folder)
    return start(row.graph) if row.artifact is None else open_artifact(row.artifact, start)


def _settings(data: Batches, batch_sizes: Sequence[int], lengths: Sequence[int]) -> dict[str, Arrays]:
    """What is timed: a batch for each size, and where samples have lengths, for each of those asked for."""
    shown = next(iter(data), (None, None))[0]
    if shown is None:
        raise DataError("there are no samples to measure on", "give more data, or a split that is not empty")
    if not lengths:
        axes = data.axes
        many = {size: joined([shown] * -(-size // batch_size(shown, axes)), axes) for size in batch_sizes}
        return {str(size): rows(x, slice(size), axes) for size, x in many.items()}
    processor = data.processor
    return {f"{size}x{length}": random_samples(processor, size, length) for size in batch_sizes for length in lengths}


def _latencies(spent: Sequence[Times], size: int, clocks: Sequence[bool]) -> list[Latency]:
    latencies = []
    for i, times in enumerate(spent):
        cpu = clocks[0] and clocks[i]
        p50, p90, p99 = np.percentile(times.wall, [50, 90, 99])
        latencies.append(
            Latency(
                p50=float(p50),
                p90=float(p90),
                p99=float(p99),
                throughput=size * 1e3 / float(np.mean(times.wall)),
                runs=len(times.wall),
                faster=_against(spent, i, cpu) if i else None,
                clock="cpu" if cpu else "wall",
            )
        )
    return latencies


def _against(spent: Sequence[Times], i: int, cpu: bool) -> Interval | None:
    return speedup(spent[i].cpu, spent[0].cpu) if cpu else speedup(spent[i].wall, spent[0].wall)


def _narrow(spent: Sequence[Times], clocks: Sequence[bool]) -> bool:
    """Whether all intervals are."""
    ratios = [_against(spent, i, clocks[0] and clocks[i]) for i in range(1, len(spent))]
    return all(f is not None and f.high / f.low <= (1 + PRECISE) ** 2 for f in ratios)


def _scores(
    runners: Sequence[Runner],
    rows: Sequence[Candidate],
    data: Batches,
    task: ModelTask | None,
    progress: Progress,
) -> list[Comparison]:
    forms = forms_of_files(rows[0].files)
    scores = [Comparison(task, data.axes, forms) for _ in rows]
    for x, y in progress.track(data, "scoring", len(data)):
        reference = runners[0].infer(x)
        for runner, row, score in zip(runners, rows, scores, strict=True):
            out = reference if runner is runners[0] else runner.infer(x)
            if lacking := not_finite(out, reference):
                raise BundleError(
                    f"the output {lacking!r} of {row.bundle} is not finite",
                    "measure it on its own data with --data; if that is what it had, rebuild the model",
                )
            score.add(out, reference, x, y)
    return scores


def median_milliseconds(graphs: Sequence[Graphs], x: Arrays, seconds: float) -> list[float]:
    """The median time of each graph on one thread for the batch ``x``, run in turn."""
    with ExitStack() as stack:
        start = partial(OnnxRunner, threads=1)
        runners = [stack.enter_context(open_artifact(graph, start)) for graph in graphs]
        return [float(np.median(times.wall)) for times in time_in_turn(_runs(runners, x), seconds)]


def _runs(runners: Sequence[Runner], x: Arrays) -> list[Callable[[], object]]:
    return [partial(runner.infer, x) for runner in runners]
