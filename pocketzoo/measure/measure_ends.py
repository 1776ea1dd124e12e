"""Measure artifacts where they end besides the first place: text that is written, against the first one's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.zoo.artifacts.driver import Artifact
from pocketzoo.zoo.artifacts.drivers import end_of, ends
from pocketzoo.zoo.artifacts.end_score import likeness, milliseconds_a_step
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.bundles.measurement import EndMeasurement
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.graphs.files.weight_files import graph_bytes


def measure_ends(
    artifacts: Sequence[Artifact | None],
    data: Batches,
    *,
    seconds: float = 0.5,
    threads: int = 1,
    progress: Progress = SILENT,
) -> list[tuple[EndMeasurement, ...]]:
    """For each artifact a row for each of its further ends; none where there is no artifact, or it has no others."""
    rows: list[list[EndMeasurement]] = [[] for _ in artifacts]
    names = dict.fromkeys(end.name for artifact in artifacts if artifact for end in ends(artifact)[1:])
    for name in names:
        there = [
            (i, end) for i, artifact in enumerate(artifacts) if artifact and (end := end_of(artifact, name)) is not None
        ]
        first = there[0][1]
        batches = replace(data, size=1 if first.alone else data.size, limit=first.most)
        samples = [inputs for inputs, _ in batches]
        with ExitStack() as stack:
            runners = [stack.enter_context(end.open(partial(OnnxRunner, threads=threads))) for _, end in there]
            scores = [
                likeness(end, runners[0], runner, samples)
                for (_, end), runner in progress.track(
                    list(zip(there, runners, strict=True)), f"measuring {name}", len(there)
                )
            ]
            times = milliseconds_a_step(first, runners, samples[0], seconds)
        for (i, end), score, spent in zip(there, scores, times, strict=True):
            paths = [end.artifact.graphs[graph] for graph in end.graphs]
            rows[i].append(
                EndMeasurement(
                    end=name,
                    unit=end.unit,
                    files=tuple(path.name for path in paths),
                    bytes=sum(map(graph_bytes, paths)),
                    samples=score.samples,
                    steps=score.steps,
                    agreement=score.agreement,
                    same=score.same,
                    milliseconds=spent,
                )
            )
    return [tuple(each) for each in rows]
