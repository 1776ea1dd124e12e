"""Tasks, their decoders and their metrics: what the outputs of a model mean. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pocketzoo.core.arrays import Arrays
    from pocketzoo.zoo.catalog.dataset import Dataset, Targets
    from pocketzoo.zoo.catalog.specs import GenerationSpec

# Answers are in the canonical form of their task: an object of numpy arrays with one item per sample, such as
# ``zoo.tasks.decoders.answers.Classes``. A plugin's task may bring a form of its own.
Answers = Any

# How targets are read from the forms of data that are common to all tasks (an .npz with y, a column of a table):
# "classes": one label per sample, numbered; "numbers": (N, outputs) of float32; "flags": of each label whether it is
# true, (N, labels) of 0 and 1; "tags": of each word of a text its label, numbered, (N, words) with -100 after the last
# word; "arrays": y as it is, one row per sample.
TargetKind = Literal["classes", "numbers", "flags", "tags", "arrays"]


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
    # "" for a fraction of 0 to 1, which is shown in percent; "number" where there is none; else a word: "degrees".
    unit: str = ""
    alongside: tuple[str, ...] = ()  # other results that are shown with it: perplexity with a log likelihood


class Metric(Protocol):
    """A metric, or several of one pass, added up over batches. In numpy: the device evaluates too.

    It is pickled where several processes train one model. Three more methods may be there. ``details()`` gives what is
    no single number as plain data, such as the score of each class; ``confusion()`` an array (classes, classes) of
    counts, row by true class, which reports draw; ``about(value)`` says in words what an agreement of ``value`` means.
    """

    def update(self, answers: Answers, targets: Any, /) -> None:
        """Take in the answers to some samples, and what was right for them."""

    def merge(self, other: Any, /) -> None:
        """Take in what another of the same metric has seen: in another process, of other samples."""

    def result(self) -> Mapping[str, Estimate]:
        """The values by name, that of ``Task.metric`` among them. Raises DataError: nothing was seen, or too little."""


class Decoder(Protocol):
    """Outputs of a model to answers. In numpy."""

    def __call__(self, outputs: Arrays, inputs: Arrays, /) -> Answers:
        """The answers to a batch. ``inputs`` are what it was: masks are there, and images have their size.

        While ``fit`` validates a head on features that were computed once, they are read when they are first looked at.

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
    # The names of the outputs that a config reads; "" is the first. Others are held to an SQNR by budgets.
    reads: Callable[[Any], tuple[str, ...]] = lambda config: (getattr(config, "output", ""),)
    # A config completed by the model's input, a processor's config: with the padding's id, such as.
    complete: Callable[[Any, Any], Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a task may have to know of a model, to make samples to learn from or score on."""

    name: str
    labels: tuple[str, ...]
    input: Any  # the config of its processor
    files: Mapping[str, Path] = field(default_factory=dict)  # of the model, by name
    generation: GenerationSpec | None = None
    window: int | None = None  # tokens that are asked for at once; None: as many as is usual


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSettings:
    """What ``fit`` was asked for that concerns a loss. A task names those that it follows in ``TaskSpec.settings``."""

    name: str = ""  # HeadSpec.loss
    outputs: int = 0  # of the head
    label_smoothing: float = 0.0
    balanced: bool = False


class TaskTraining(Protocol):
    """The half of a task that only ``fit`` needs. In torch. One object is one run.

    A task whose targets are places may have ``move(targets, matrix)`` too, which returns the targets of images that
    were augmented in the ways of ``TaskSpec.moved_by``: of each, ``matrix`` (B, 3, 3) takes (x, y, 1) from where it was
    to where it is, in fractions of width and height from the left upper corner. What left the image is beyond 0 to 1.
    """

    def outputs(self, dataset: Dataset, model: ModelFacts) -> int:
        """How many outputs a head needs for such targets: ``HeadSpec.build`` is given it.

        Raises:
            DataError: the data has no such targets, or nothing to learn.
        """

    def begin(self, head: nn.Module, targets: Targets, settings: LossSettings) -> None:
        """Look at the training targets (N, ...) and tell the head what it should know of them; called once."""

    def loss(self, outputs: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        """The loss of a batch, a scalar, summed over what ``weight`` counts: parts of a batch are added up."""

    def weight(self, targets: Tensor) -> Tensor:
        """What the sum over a whole batch is divided by, a scalar: mostly the number of samples."""


class Task(Protocol):
    """A task that was opened: how targets are read and checked, answers scored, compared and drawn. In numpy.

    A task that can tell right answers from wrong ones may also have ``errors(answers, targets)``: how wrong each answer
    is, (N,), 0 where it is right. Reports then show the worst, and else the first.
    """

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
        """One answer and what would be right (None: unknown), as HTML for the report; what is not its own is escaped.

        SVG and ``data:`` images may be in it; what is fetched or run is not shown.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskExample:
    """What a model of a task may output, and what would be right: made up, for the conformance suite."""

    outputs: Arrays  # as its decoder, the one with its default config, reads them: one row per sample
    targets: Any  # as ``Task.prepared`` gives them
    labels: tuple[str, ...] = ()
    inputs: Arrays = field(default_factory=dict)  # where the decoder looks at them: masks
    samples: Sequence[Any] = ()  # for ``Task.draw``; none: texts


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """A task, by its pipeline tag on the Hub where it has one."""

    name: str  # "image-classification"
    summary: str
    open: Callable[[], Task]  # imports in its body
    decoder: str  # the one of a model that names none
    training: Callable[[], TaskTraining] | None = None  # None: models of this task are not fitted here
    # Of fit, that its loss follows: "balanced", "label_smoothing"; and "loss", the function that its head names.
    settings: tuple[str, ...] = ()
    movable: bool = False  # targets stay right when an image is moved, turned, or mixed with another
    # Where they do not: the augmentations that ``TaskTraining.move`` follows, of flip, rotate, shift, shear and zoom.
    moved_by: tuple[str, ...] = ()
    trained: bool = False  # fit continues with a pretrained head of this task, instead of one anew
    targets: TargetKind = "classes"
    # Of data in a form of its own; None for what is not that. Splits that it leaves out are divided off by the seed.
    reader: Callable[[Path], Dataset | None] | None = None
    # The same where samples that cannot be read are to be left out (--skip-bad), which ``Dataset.skipped`` then names.
    # None: there the reader's first error is one too.
    lenient_reader: Callable[[Path], Dataset | None] | None = None
    # Targets put where the model's processor puts what they are of: the tags of words on tokens. Samples stay.
    align: Callable[[Dataset, ModelFacts], Dataset] | None = None
    # What is learned from and scored on, where that is not the samples themselves: windows of the tokens of texts.
    examples: Callable[[Dataset, ModelFacts], Dataset] | None = None
    # Why a backbone cannot be used for it, and what to do; "" where it can.
    refuses: Callable[[Any], tuple[str, str]] | None = None
    # (samples, seed) -> outputs and targets that were made up, another set for each seed, which the conformance suite
    # takes. It makes up its own where the targets are classes, numbers or flags, and the outputs one row of them.
    example: Callable[[int, int], TaskExample] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)  # modality, or "": the Hub's pipeline tag, if not the name
    former: tuple[str, ...] = ()  # words for what a head ``returns`` that meant this task in earlier releases
    facts: Mapping[str, Any] = field(default_factory=dict)  # what is asked of some tasks alone: "generates", "acts"
