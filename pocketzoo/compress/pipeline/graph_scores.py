"""Compare two graphs: metric or agreement on validation data, file size, and latency measured in turn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import BundleError, DataError
from pocketzoo.core.files import scratch_folder, sha256
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.measure.forms_of_files import forms_of_files
from pocketzoo.measure.measure_graphs import median_milliseconds
from pocketzoo.measure.selecting_runner import with_selections
from pocketzoo.zoo.artifacts.driver import Graphs
from pocketzoo.zoo.artifacts.drivers import main_files, open_artifact
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.bundles.metric_value import MetricValue
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.tasks.agreement import Comparison, Outputs, not_finite, worst
from pocketzoo.zoo.tasks.open_task import ModelTask

SLACK = 1.03  # a graph is slower only if it takes so many times as long,
ROUNDS = 3  # and does so each time it is timed: a busy machine makes anything slow once
SECONDS = 0.2  # that each graph is timed for in a round
KEPT = 128 * 2**20  # bytes of the reference's outputs that are kept; beyond, it runs again with each graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The outputs of a graph on samples, compared with the reference."""

    samples: int
    metric: MetricValue | None  # of the task; None where targets are not known
    agreement: float | None  # how far it answers as the reference does, 0-1; None where that cannot be told
    outputs: Mapping[str, float | None]  # dB against the reference, by output; None where it differs nowhere
    differing: Mapping[str, float] = field(default_factory=dict)  # fraction of values, of outputs without a distance
    held: tuple[str, ...] = ()  # outputs that budgets and the floor are of; () is all
    like_constants: tuple[str, ...] = ()  # outputs of which nothing is left that varies, see Comparison
    chance: float = 0.0  # the metric of who knows nothing of the samples
    judged: tuple[str, ...] = ()  # the outputs that the metric and agreement are of; others have their SQNR alone
    unanswered: str = ""  # why there is no agreement
    parts: Mapping[str, str] = field(default_factory=dict)  # where outputs that join unlike things are worst
    # Outputs that are another length than the reference's -> the operator that they are compared before,
    selected_by: Mapping[str, str] = field(default_factory=dict)
    same_selection: Mapping[str, float] = field(default_factory=dict)  # and how far it selects the same, 0-1

    @property
    def sqnr(self) -> float | None:
        """Of the worst output that is held, in dB; None where nothing differs."""
        return worst(self.outputs, self.held)

    @property
    def worst(self) -> str:
        """The name of the output that has it."""
        held = self.held or tuple(self.outputs)
        return min(held, key=lambda name: math.inf if (sqnr := self.outputs[name]) is None else sqnr, default="")


class NotFiniteError(BundleError):
    """An output has values that are infinite or no numbers, where the reference's are not."""


class Judge:
    """Scores graphs against a reference on the same samples; ``task`` is the model's, None where it has none.

    ``held`` are the outputs that budgets and the floor are of, all where none is named.
    """

    def __init__(
        self,
        reference: Graphs,
        samples: Batches,
        *,
        task: ModelTask | None,
        held: Sequence[str] = (),
        label: str = "validating",
        progress: Progress = SILENT,
    ) -> None:
        self.reference, self.samples, self.task = reference, samples, task
        self.held, self.label, self.progress = tuple(held), label, progress
        self._forms = forms_of_files(main_files(reference))
        self._known: dict[str, Score] = {}  # by digest: what one step made is what the next one starts from
        self._kept: list[Outputs] | None = None  # of the reference, a batch each, where they take little memory

    def score(self, graph: Graphs) -> Score:
        """Scores of a graph.

        Raises:
            NotFiniteError: its outputs are not finite.
        """
        digest = " ".join(map(sha256, main_files(graph)))
        if digest not in self._known:
            self._known[digest] = self._score(graph)
        return self._known[digest]

    def _score(self, graph: Graphs) -> Score:
        comparison = Comparison(self.task, self.samples.axes, self._forms)
        with ExitStack() as stack:
            start = with_selections(OnnxRunner, stack.enter_context(scratch_folder()))
            runner = stack.enter_context(open_artifact(graph, start))
            own = graph == self.reference
            reference = runner if own else stack.enter_context(open_artifact(self.reference, start))
            reference_batches, size = list[Outputs](), 0
            batches = self.progress.track(self.samples, self.label, len(self.samples))
            for i, (x, y) in enumerate(batches):
                reference_outputs = self._kept[i] if self._kept is not None else reference.infer(x)
                outputs = reference_outputs if own else runner.infer(x)
                if lacking := not_finite(outputs, reference_outputs):
                    raise NotFiniteError(
                        f"the output {lacking!r} of {main_files(graph)[0]} is not finite", "rebuild the model"
                    )
                comparison.add(outputs, reference_outputs, x, y)
                size += sum(out.nbytes for out in reference_outputs.values())
                if size <= KEPT:
                    reference_batches.append(reference_outputs)
        if size <= KEPT:
            self._kept = reference_batches
        agreement = comparison.agreement
        return Score(
            samples=comparison.samples,
            metric=comparison.score,
            agreement=None if agreement is None else agreement.value,
            outputs=comparison.sqnr,
            differing=comparison.differing,
            held=self.held,
            like_constants=comparison.like_constants,
            chance=comparison.chance,
            judged=() if self.task is None else judged_outputs(self.task, comparison.sqnr),
            unanswered=comparison.unanswered,
            parts=comparison.worst_parts,
            selected_by=comparison.selected_by,
            same_selection=comparison.same_selection,
        )

    def drop(self, graph: Graphs) -> float:
        """What a graph loses against the reference of the task's metric, 0-1; below 0 where it gains.

        Of a metric with a unit, such as degrees, it is the fraction of the reference's value by which that worsens.
        Where targets are not known it is what is missing to full agreement: accuracy cannot fall by more than that.

        Raises:
            DataError: no metric is known for what the model outputs.
        """
        whole = self.score(self.reference).metric
        if whole is not None:
            loss = whole.loss(self.value(graph))
            return loss / abs(whole.value) if whole.unit and whole.value else loss
        return self.value(self.reference) - self.value(graph)

    def value(self, graph: Graphs) -> float:
        """The metric of a graph, or where targets are not known its agreement, 0-1.

        Raises:
            DataError: as ``drop``.
        """
        score = self.score(graph)
        value = score.metric.value if score.metric is not None else score.agreement
        if value is None:
            raise DataError(
                score.unanswered or "no metric is known for the outputs of this model, so max_drop cannot apply",
                "give more samples to validate on, or use --min-sqnr instead"
                if score.unanswered
                else "use --min-sqnr instead",
            )
        return value

    @property
    def metric(self) -> str:
        """What ``drop`` speaks of."""
        metric = self.score(self.reference).metric
        return "agreement" if metric is None else metric.name

    def told(self, drop: float, allowed: float, *, so_far: bool = True) -> str:
        """A drop that is more than what is allowed, in words."""
        metric = self.score(self.reference).metric or MetricValue(name="agreement", value=1.0)
        end = "are allowed so far" if so_far else "are allowed"
        if metric.unit:
            of = metric.shown(metric.value)
            return f"{metric.name} {metric.worsens} by {drop:.1%} of {of}, {allowed:.1%} {end}"
        return f"{metric.name} {metric.worsens} by {100 * drop:.2f} points, {100 * allowed:.2f} {end}"


def judged_outputs(task: ModelTask, outputs: Iterable[str]) -> tuple[str, ...]:
    """The names of the outputs that a task's decoder reads, of all of a model in its order."""
    names = list(outputs)
    return tuple(dict.fromkeys(name or names[0] for name in task.reads)) if names else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """Two graphs timed in turn: medians in milliseconds for one sample."""

    before: float
    after: float

    @property
    def slower(self) -> bool:
        return self.after > self.before * SLACK


def race(
    before: Graphs,
    after: Graphs,
    x: Arrays,
    timed: Callable[[Sequence[Graphs], Arrays, float], list[float]] = median_milliseconds,
) -> Race:
    """Time a graph in turn with the one it would replace. Only one that is slower in every round is called slower."""
    rounds: list[Race] = []
    while len(rounds) < ROUNDS and (not rounds or rounds[-1].slower):
        old, new = timed([before, after], x, SECONDS)
        rounds.append(Race(before=old, after=new))
    return min(rounds, key=lambda r: r.after / r.before)
