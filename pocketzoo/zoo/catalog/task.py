"""Tasks, their decoders and their metrics: what the outputs of a model mean. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from pocketzoo.core.arrays import Arrays
    from pocketzoo.zoo.catalog.dataset import Dataset, Targets

# Answers are in the canonical form of their task: an object of numpy arrays with one item per sample, such as
# ``zoo.tasks.answers.Classes``. A plugin's task may bring a form of its own.
Answers = Any


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric's value on some samples, and the interval in which that of all is, at 95% confidence."""

    value: float
    low: float | None = None  # None where no interval is known
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """What is known of a metric before anything is measured."""

    name: str  # "accuracy", as people call it and as results are keyed
    higher_is_better: bool = True
    # The value of a model that knows nothing, where it is the same for all data: 0 for R2; None: ``Task.chance`` says.
    unit: str = ""  # "" for a fraction of 0 to 1, shown in percent


class Metric(Protocol):
    """A metric, or several of one pass, added up over batches. In numpy: the device evaluates too."""

    def update(self, answers: Answers, targets: Targets) -> None:
        """Take in the answers to some samples, and what was right for them."""

    def merge(self, other: Any) -> None:
        """Take in what another of the same metric has seen: in another process, of other samples."""

    def result(self) -> Mapping[str, Estimate]:
        """The values by name, that of ``Task.metric`` among them. Raises DataError: nothing was seen."""


class Decoder(Protocol):
    """Outputs of a model to answers. In numpy."""

    def __call__(self, outputs: Arrays, inputs: Arrays) -> Answers:
        """The answers to a batch. ``inputs`` are what it was: masks and paddings are there.

        Raises:
            DataError: the outputs are not what this decodes.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderSpec:
    """A way to read the outputs of a model as answers to a task. The config of each model is kept in its bundle."""

    name: str
    summary: str
    tasks: tuple[str, ...]  # whose answers it gives
    open: Callable[[Any], Decoder]  # of a config; imports in its body
    config: type[Any] | None = None  # a frozen dataclass of plain data with defaults; None: it needs none


class TaskTraining(Protocol):
    """The half of a task that only ``fit`` needs. In torch."""

    def loss(self, outputs: Mapping[str, Tensor], targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """The mean loss of a batch, a scalar."""


class Task(Protocol):
    """A task that was opened: how targets are read and checked, answers scored, compared and drawn. In numpy."""

    @property
    def metric(self) -> MetricSpec:
        """The one that budgets hold, that early stopping follows, and that models are ranked by."""

    def prepared(self, dataset: Dataset, labels: Sequence[str]) -> Dataset:
        """The data set with targets as ``Metric`` and ``TaskTraining`` take them, numbered as ``labels`` are.

        A data set whose targets are not of this model is given without them: good for calibration and agreement.

        Raises:
            DataError: targets are of another kind, or some of its classes are unknown to the model.
        """

    def scores(self, labels: Sequence[str]) -> Metric:
        """The metrics of this task, empty."""

    def agreement(self) -> Metric:
        """How far the answers of two models are the same, without targets: "agreement", 0 to 1.

        ``update(answers, reference answers)``.
        """

    def chance(self, targets: Targets) -> float:
        """The value of ``metric`` that who knows nothing of the samples reaches."""

    def rows(self, answers: Answers, labels: Sequence[str], top: int) -> list[Mapping[str, Any]]:
        """Each answer as plain data, for people and programs: what ``predict`` prints."""

    def draw(self, sample: Any, answer: Mapping[str, Any], target: Any, labels: Sequence[str]) -> str:
        """One answer and what would be right, as HTML for the report; SVG and ``data:`` images included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """A task, by its pipeline tag on the Hub where it has one."""

    name: str  # "image-classification"
    summary: str
    open: Callable[[], Task]  # imports in its body
    decoder: str  # the one of a model that names none
    training: Callable[[], TaskTraining] | None = None  # None: models of this task are not fitted here
    reader: Callable[[Path], Dataset | None] | None = None  # of data in a form of its own; None for what is not that
    former: tuple[str, ...] = ()  # words for what a head ``returns`` that meant this task in earlier releases
    options: Mapping[str, Any] = field(default_factory=dict)  # facts that plugins leave to each other
