"""The answers of a bundle on labeled data: its task's metrics, a confusion matrix, and the worst answers, drawn."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.errors import DataError
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.zoo.artifacts.drivers import artifact_of, open_artifact
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.bundles.metric_value import MetricValue
from pocketzoo.zoo.catalog.backend import Runner
from pocketzoo.zoo.catalog.dataset import Dataset
from pocketzoo.zoo.catalog.registry import Registry, default_registry
from pocketzoo.zoo.catalog.task import Estimate
from pocketzoo.zoo.data.batches import Batches, Skipped
from pocketzoo.zoo.data.processors.open_processor import processor_of
from pocketzoo.zoo.tasks.model_facts import model_facts
from pocketzoo.zoo.tasks.open_task import ModelTask, need_task

MOST = 24  # answers that are kept: the worst


@dataclass(frozen=True, slots=True)
class Answers:
    """Of one bundle, on the test split of one data set."""

    data: str
    task: str
    samples: int
    metric: MetricValue
    results: Mapping[str, Estimate]  # all metrics of the task
    labels: tuple[str, ...] = ()
    confusion: npt.NDArray[np.int64] | None = None  # (C, C), row by true class; None where answers are no classes
    wrong: int | None = None  # how many answers were, kept or not; None where the task cannot tell
    drawn: tuple[str, ...] = field(default=())  # HTML: the worst answers first, or where none can be told the first


@dataclass(frozen=True, slots=True)
class _Answered:
    """One sample with its answer."""

    row: int
    answer: Mapping[str, Any]
    target: Any
    error: float


def measure_confusion(
    bundle: Bundle,
    data: Dataset,
    *,
    skip_bad: bool = False,
    registry: Registry | None = None,
    progress: Progress = SILENT,
) -> Answers:
    """Run the graph for the CPU over the test split.

    Raises:
        DataError: the model has no task, the data no targets for it, or a sample cannot be read.
    """
    registry = registry or default_registry()
    task = need_task(bundle.manifest, registry)
    processor = processor_of(bundle, registry)
    known = task.prepared(data, model_facts(bundle, processor, registry)).split("test")
    if known.targets is None:
        raise DataError(
            f"{data.name} has no targets for {bundle.manifest.name}, or no classes in common with it",
            "leave out --data, or give other data",
        )
    skipped = Skipped() if skip_bad else None
    batches = Batches(known, processor, skipped=skipped)
    metric, worst, samples, wrong = task.scores(), list[tuple[float, int, _Answered]](), 0, 0
    can_tell = hasattr(task.task, "errors")
    with open_artifact(artifact_of(bundle, "cpu"), OnnxRunner) as runner:
        answered = _answered(batches, runner, task, metric)
        for each in progress.track(answered, "finding the worst answers", len(known)):
            samples += 1
            wrong += each.error > 0
            if can_tell and each.error > 0:
                (heapq.heappush if len(worst) < MOST else heapq.heappushpop)(worst, (each.error, -each.row, each))
            elif not can_tell and len(worst) < MOST:
                worst.append((-float(samples), each.row, each))
    results = metric.result()
    shown = [each for _, _, each in sorted(worst, key=lambda item: item[:2], reverse=True)]
    return Answers(
        data=data.name,
        task=task.spec.name,
        samples=samples,
        metric=MetricValue.of(task.metric, task.headline(results)),
        results=results,
        labels=bundle.manifest.labels,
        confusion=metric.confusion(),
        wrong=wrong if can_tell else None,
        drawn=tuple(task.draw(known.samples[each.row], each.answer, each.target) for each in shown),
    )


def _answered(batches: Batches, runner: Runner, task: ModelTask, metric: Any) -> Iterator[_Answered]:
    """Every sample that can be read, in its place."""
    assert batches.split.targets is not None
    bad = batches.skipped
    for start in range(0, batches.samples, batches.size):
        part = list(range(start, min(start + batches.size, batches.samples)))
        for x, _ in batches.of([part]):
            if bad is not None and bad.names:
                part = [i for i in part if batches.split.called(i) not in bad.names]
            targets = batches.split.targets[part]
            answers = task.answers(runner.infer(x), x)
            metric.update(answers, targets)
            errors = task.errors(answers, targets)
            for row, answer, target, error in zip(part, task.rows(answers, top=1), targets, errors, strict=True):
                yield _Answered(row, answer, target, float(error))
