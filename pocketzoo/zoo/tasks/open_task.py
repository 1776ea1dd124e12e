"""Open the task of a model and the decoder of its outputs: how what it outputs is read, scored, compared and shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import DataError, PluginError, UnknownNameError, guarded
from pocketzoo.zoo.bundles.manifest import Manifest
from pocketzoo.zoo.catalog.dataset import Dataset
from pocketzoo.zoo.catalog.described import Described, missing, provider, spec_of
from pocketzoo.zoo.catalog.head_task import (
    AnswerFacts,
    completed_decoder,
    decoder_for,
    facts_of,
    former_task,
    head_decoder,
    head_task,
)
from pocketzoo.zoo.catalog.registry import Entry, Registry
from pocketzoo.zoo.catalog.specs import HeadSpec
from pocketzoo.zoo.catalog.task import Answers, Estimate, MetricSpec, ModelFacts, Task, TaskSpec
from pocketzoo.zoo.data.target_kinds import of_kind


@dataclass(frozen=True)
class GuardedMetric:
    """A metric, of a plugin perhaps, whose mistakes are errors that say whose they are."""

    metric: Any
    owner: str  # "the task image-classification of pocketzoo"

    def update(self, answers: Answers, targets: Any) -> None:
        """``Metric.update``."""
        guarded(f"the metric of {self.owner}", self.metric.update, answers, targets)

    def need(self) -> None:
        """Nothing, where targets would do; the error of a metric that no data set has targets for."""
        if (why := getattr(self.metric, "unscored", None)) is not None:
            raise DataError(why, "compare models: pocketzoo bench")

    def merge(self, other: GuardedMetric) -> None:
        """``Metric.merge``."""
        guarded(f"the metric of {self.owner}", self.metric.merge, other.metric)

    def result(self) -> Mapping[str, Estimate]:
        """``Metric.result``."""
        results = guarded(f"the metric of {self.owner}", self.metric.result)
        if not isinstance(results, Mapping) or not all(isinstance(each, Estimate) for each in results.values()):
            raise PluginError(
                f"the metric of {self.owner} gives {results!r:.80}", "let result return a mapping of name to Estimate"
            )
        return results

    def details(self) -> Mapping[str, Any]:
        """``Metric.details``; nothing where it has none."""
        method = getattr(self.metric, "details", None)
        return {} if method is None else guarded(f"the metric of {self.owner}", method)

    def confusion(self) -> Any:
        """``Metric.confusion``; None where it has none."""
        method = getattr(self.metric, "confusion", None)
        return None if method is None else guarded(f"the metric of {self.owner}", method)

    def about(self, value: float) -> str:
        """``Metric.about``: an agreement in words."""
        method = getattr(self.metric, "about", None)
        return f"answers {value:.1%} the same" if method is None else str(method(value))


@dataclass(frozen=True)
class ModelTask:
    """The task of a model, with the decoder of its outputs, opened."""

    spec: TaskSpec
    task: Task
    decoder: Described
    decode: Callable[[Arrays, Arrays], Answers]
    reads: tuple[str, ...]  # the outputs that the decoder reads; "" is the first
    labels: tuple[str, ...]
    owner: str  # for errors
    facts: AnswerFacts  # what a bundle notes of it

    @property
    def metric(self) -> MetricSpec:
        """What the model is judged by."""
        return self.task.metric

    def entries(self, registry: Registry) -> list[Entry]:
        """What declares it, and its decoder: their code is part of what is learned and measured."""
        return [registry.entry("task", self.spec.name), registry.entry("decoder", self.decoder.name)]

    def answers(self, outputs: Arrays, inputs: Arrays) -> Answers:
        """The answers to a batch.

        Raises:
            DataError: the outputs are not what its decoder reads.
        """
        return guarded(f"the decoder {self.decoder.name} of {self.owner}", self.decode, outputs, inputs)

    def prepared(self, dataset: Dataset, model: ModelFacts) -> Dataset:
        """The samples with targets as this model takes them: for ``compress``, ``bench`` and reports.

        Targets of another kind are left out before ``Task.prepared``, and ``TaskSpec.align`` comes after it.
        """
        known = guarded(self.owner, self.task.prepared, of_kind(dataset, self.spec.targets), self.labels)
        return known if self.spec.align is None else guarded(self.owner, self.spec.align, known, model)

    def examples(self, dataset: Dataset, model: ModelFacts) -> Dataset:
        """What ``fit`` learns from and ``eval`` scores: the same, or what ``TaskSpec.examples`` makes of it."""
        if self.spec.examples is None:
            return self.prepared(dataset, model)
        return guarded(self.owner, self.spec.examples, dataset, model)

    def scores(self) -> GuardedMetric:
        """The metrics, empty."""
        return GuardedMetric(self.task.scores(self.labels), self.owner)

    def agreement(self) -> GuardedMetric:
        """The metric that compares two models, empty."""
        return GuardedMetric(self.task.agreement(), self.owner)

    def rows(self, answers: Answers, top: int = 5) -> list[Mapping[str, Any]]:
        """Each answer as plain data."""
        return guarded(self.owner, self.task.rows, answers, self.labels, top)

    def draw(self, sample: Any, answer: Mapping[str, Any], target: Any) -> str:
        """One answer as HTML."""
        return guarded(self.owner, self.task.draw, sample, answer, target, self.labels)

    def errors(self, answers: Answers, targets: Any) -> Any:
        """How wrong each answer is, (N,); all 0 where the task cannot tell."""
        method = getattr(self.task, "errors", None)
        return [0.0] * len(targets) if method is None else guarded(self.owner, method, answers, targets)

    def headline(self, results: Mapping[str, Estimate]) -> Estimate:
        """Of the results of ``scores``, the one that the model is judged by.

        Raises:
            PluginError: it is not among them.
        """
        if self.metric.name not in results:
            raise PluginError(
                f"the metric of {self.owner} has no result {self.metric.name!r}, only {', '.join(results) or 'none'}",
                "let result() give it",
            )
        return results[self.metric.name]


def open_task(manifest: Manifest, registry: Registry) -> ModelTask | None:
    """The task of a bundle's model; None where nobody said what its outputs mean.

    Raises:
        MissingPluginError: no plugin here declares its task or decoder; the hint says which package to install.
        PluginError: its decoder is for another task, or either of them cannot be opened.
    """
    if not manifest.task and not manifest.former_returns:
        return None
    if not manifest.task:
        spec = former_task(manifest.former_returns, manifest.processor, registry)
        decoder = completed_decoder(spec.decoder, None, spec, manifest.processor, registry)
        return _opened(spec, decoder, manifest.processor, manifest.labels, registry)
    wrote = manifest.task_provider or (manifest.decoder.provider if manifest.decoder is not None else "")
    try:
        spec = registry.get("task", manifest.task)
    except UnknownNameError as error:
        raise missing("task", manifest.task, wrote, registry, error.hint) from error
    decoder = manifest.decoder or Described(name=spec.decoder)
    return _opened(spec, decoder, manifest.processor, manifest.labels, registry)


def task_of_head(head: HeadSpec, model_input: Any, labels: Sequence[str], registry: Registry) -> ModelTask:
    """The task of a model with this head and input.

    Raises:
        UnknownNameError: no plugin declares its task or decoder; the hint is the nearest that one does.
        PluginError: its decoder is for another task, or either of them cannot be opened.
    """
    spec = head_task(head, model_input, registry)
    return _opened(spec, head_decoder(head, spec, model_input, registry), model_input, labels, registry)


def need_task(manifest: Manifest, registry: Registry) -> ModelTask:
    """``open_task`` of a model whose outputs have a meaning.

    Raises:
        DataError: nobody said which.
    """
    opened = open_task(manifest, registry)
    if opened is None:
        raise DataError(
            f"{manifest.name} has no task: nobody said what its outputs mean",
            "import it with --labels, or compare it: pocketzoo bench",
        )
    return opened


def reading_of(task: ModelTask | None) -> dict[str, Any]:
    """How ``load_data`` is to read targets for a task; as classes for a model without one."""
    if task is None:
        return {}
    return {"targets": task.spec.targets, "reader": task.spec.reader, "lenient": task.spec.lenient_reader}


def _opened(
    spec: TaskSpec, decoder: Described, model_input: Any, labels: Sequence[str], registry: Registry
) -> ModelTask:
    known, config = spec_of(decoder, "decoder", registry)
    decoder_for(known.name, spec, registry)
    owner = f"the task {spec.name} of {provider('task', spec.name, registry)}"
    return ModelTask(
        spec=spec,
        task=guarded(owner, spec.open),
        decoder=decoder,
        decode=guarded(f"the decoder {known.name} of {provider('decoder', known.name, registry)}", known.open, config),
        reads=tuple(known.reads(config)),
        labels=tuple(labels),
        owner=owner,
        facts=facts_of(spec, decoder, model_input, registry),
    )
