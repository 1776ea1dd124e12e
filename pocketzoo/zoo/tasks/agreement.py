"""Compare the outputs of a model with those of a reference: signal to error, agreement, and the task's metric."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import Array, Arrays, Axes, batch_size
from pocketzoo.core.errors import DataError, UnknownNameError
from pocketzoo.core.renamed import keywords_renamed
from pocketzoo.zoo.bundles.metric_value import MetricValue
from pocketzoo.zoo.catalog.dataset import Targets
from pocketzoo.zoo.catalog.task import Estimate
from pocketzoo.zoo.tasks.open_task import GuardedMetric, ModelTask

if TYPE_CHECKING:
    from pocketzoo.zoo.graphs.foreign.selections import Selection
    from pocketzoo.zoo.tasks.output_forms import OutputForms, OutputParts

Outputs = Arrays  # of one run of a model, by name, in the model's order

NEGLIGIBLE = 80.0  # dB: an error of a ten-thousandth is what other kernels, or another order of sums, make


class Comparison:
    """How near all outputs of a model are to a reference's, how alike both answer, and how well; batch by batch."""

    def __init__(self, task: ModelTask | None, axes: Axes | None = None, forms: OutputForms | None = None) -> None:
        """``task`` is that of both models; None where nobody said what outputs mean. ``axes``: of their inputs;
        ``forms``: of the reference's outputs. Of one that joins unlike things the worst part decides; in place of one
        that is selected stands the worst of what it is selected from, where runners give it (``with_selections``).
        """
        self.task, self.axes = task, axes
        self._parts: Mapping[str, OutputParts] = {} if forms is None else forms.parts
        self._rounded: frozenset[str] = frozenset() if forms is None else forms.rounded
        self._selections: Mapping[str, Selection] = {} if forms is None else forms.selections
        self._overlaps: dict[str, list[float]] = {}  # of an output that is selected, for each sample
        self._names: dict[str, None] = {}  # of the outputs, in the reference's order
        self.samples = 0
        self.unanswered = ""  # why there are no answers to compare
        self.unscored = ""  # why targets are not held against them
        self._signal: dict[str, float] = {}
        self._noise: dict[str, float] = {}
        self._of_parts: dict[str, npt.NDArray[np.float64]] = {}  # (parts, 2): signal and noise of each
        self._spread: dict[str, _Spread] = {}
        self._counted: set[str] = set()  # outputs whose values are the same or not, with no distance between
        self._agreement: GuardedMetric | None = None if task is None else task.agreement()
        self._scores: GuardedMetric | None = None
        self._targets: list[Targets] = []

    def add(self, actual: Outputs, expected: Outputs, x: Arrays, y: Targets | None = None) -> None:
        """The outputs of both for a batch ``x``; ``y`` are its targets where they are known."""
        self.samples += batch_size(x, self.axes)
        for name, given, wanted in self._compared(actual, expected):
            rounded = name in self._rounded
            ours, theirs = (array.astype(np.float32) if rounded else array for array in (given, wanted))
            signal, noise = _signal_and_noise(ours, theirs)
            self._signal[name] = self._signal.get(name, 0.0) + signal
            self._noise[name] = self._noise.get(name, 0.0) + noise
            self._spread.setdefault(name, _Spread()).add(theirs)
            if name in self._parts and self._parts[name].fit(theirs) and ours.shape == theirs.shape:
                self._add_parts(name, ours, theirs)
            if not _is_float(theirs):
                self._counted.add(name)
        if self.task is None or self._agreement is None or self.unanswered:
            return
        try:
            answers, reference = (self.task.answers(outputs, x) for outputs in (actual, expected))
            self._agreement.update(answers, reference)
        except DataError as error:  # outputs of another form than its decoder reads: they are near or not, no more
            self.unanswered, self._scores = error.message, None
            return
        if y is None or self.unscored:
            return
        self._scores = self._scores or self.task.scores()
        try:
            self._scores.update(answers, y)
            self._targets.append(y)
        except DataError as error:
            self.unscored, self._scores = error.message, None

    def _add_parts(self, name: str, ours: Array, theirs: Array) -> None:
        pairs = zip(*map(self._parts[name].split, (ours, theirs)), strict=True)
        sums = np.array([_signal_and_noise(*pair) for pair in pairs])
        self._of_parts[name] = self._of_parts.get(name, 0.0) + sums

    def _compared(self, actual: Outputs, expected: Outputs) -> Iterator[tuple[str, Array, Array]]:
        """Outputs of both by name, with what they are selected from in place of those that are."""
        inner = {called for name, each in self._selections.items() for called in each.tensors(name)}
        for name, given, wanted in _paired(actual, expected):
            if name in inner:
                continue
            self._names.setdefault(name)
            if self._is_as_it_is(name, actual, expected):
                yield from ((name, *pair) for pair in _by_sample(given, wanted))
        for output, selection in self._selections.items():
            for called in selection.tensors(output):
                if called not in actual or called not in expected:
                    continue
                if called != selection.which(output):
                    yield called, actual[called], expected[called]
                    continue
                given, wanted = actual[called], expected[called]
                if selection.fixed:
                    overlaps = _overlaps_of_rows(given, wanted, selection.along)
                else:
                    pairs = _by_sample(given, wanted, selection.rank)
                    overlaps = [_overlap(ours, theirs, selection.along) for ours, theirs in pairs]
                self._overlaps.setdefault(output, []).extend(overlaps)

    def _is_as_it_is(self, name: str, actual: Outputs, expected: Outputs) -> bool:
        """Whether an output is compared itself: not selected, or of one length where no runner gives what is before."""
        selection = self._selections.get(name)
        if selection is None:
            return True
        return selection.fixed and not any(each in actual and each in expected for each in selection.compared(name))

    @property
    def agreement(self) -> Estimate | None:
        """How far both answer the same, 0-1; None where none can be told: ``unanswered`` says why."""
        if self._agreement is None or self.unanswered:
            return None
        try:
            return self._agreement.result()["agreement"]
        except DataError as error:
            self.unanswered = error.message
            return None

    @property
    def about(self) -> str:
        """The agreement in words: "equal predictions for 98.0% of the samples"."""
        agreement = self.agreement
        return "" if agreement is None or self._agreement is None else self._agreement.about(agreement.value)

    @property
    def score(self) -> MetricValue | None:
        """The task's metric; None where targets are not known."""
        if self.task is None or self._scores is None:
            return None
        return MetricValue.of(self.task.metric, self.task.headline(self._scores.result()))

    @property
    def chance(self) -> float:
        """The metric of who knows nothing of the samples."""
        if self.task is None or not self._targets:
            return 0.0
        return float(self.task.task.chance(np.concatenate(self._targets)))

    @property
    def sqnr(self) -> dict[str, float | None]:
        """By the reference's name of each output, in dB, of its worst part; None where it differs nowhere."""
        each = {
            name: None
            if self._noise[name] == 0
            else min((decibels(signal, self._noise[name]), *self._decibels_of_parts(name).values()))
            for name, signal in self._signal.items()
        }
        for output, selection in self._selections.items():
            if before := [each[called] for called in selection.compared(output) if called in each]:
                each[output] = worst({str(i): sqnr for i, sqnr in enumerate(before)})
        return {name: each[name] for name in self._names if name in each}

    @property
    def selected_by(self) -> dict[str, str]:
        """Outputs of another length than the reference's -> the operator that they are compared before."""
        return {
            name: each.by for name, each in self._selections.items() if set(each.compared(name)) & set(self._signal)
        }

    @property
    def same_selection(self) -> dict[str, float]:
        """How far both select the same for them, 0-1: what both do of what either does, the mean over the samples."""
        return {name: float(np.mean(overlaps)) for name, overlaps in self._overlaps.items()}

    @property
    def worst_parts(self) -> dict[str, str]:
        """Where in an output that joins unlike parts its SQNR is that low, in words: "4 to 21 of axis -2".

        Of one that is selected it is what is worst of what is before: "'scores' before NonMaxSuppression".
        """
        found = {name: self._decibels_of_parts(name) for name in self._of_parts}
        told = {name: self._parts[name].told(min(of, key=of.__getitem__)) for name, of in found.items() if len(of) > 1}
        for output, selection in self._selections.items():
            known = {name: called for called, name in selection.compared(output).items() if called in self._signal}
            if known:
                worst = min(known, key=lambda name: decibels(self._signal[known[name]], self._noise[known[name]]))
                told[output] = f"{worst!r} before {selection.by}"
        return told

    def _decibels_of_parts(self, name: str) -> dict[int, float]:
        """Of an output's parts by number; not of those that are all zero in the reference, which measure nothing."""
        sums = self._of_parts.get(name, ())
        return {i: decibels(signal, noise) for i, (signal, noise) in enumerate(sums) if signal > 0}

    @property
    def differing(self) -> dict[str, float]:
        """The fraction of the values that differ, of outputs of whole numbers, truth values and texts; at most 1."""
        return {
            name: min(self._noise[name] / self._signal[name], 1.0) if self._signal[name] else 0.0
            for name in self._signal
            if name in self._counted
        }

    @property
    def like_constants(self) -> tuple[str, ...]:
        """Outputs whose error is as large as all that varies in the reference's: a constant would be as near.

        An output with an offset, or a truth value that is rarely true, may be so for all of its SQNR. Errors that
        ``NEGLIGIBLE`` dB leave behind do not count: what hardly varies need not be met more closely.
        """
        before = {called: name for name, each in self._selections.items() for called in each.compared(name)}
        sqnr = self.sqnr
        flat = (before.get(name, name) for name in self._signal if self._noise[name] >= self._spread[name].total)
        return tuple(n for n in dict.fromkeys(flat) if (of := sqnr.get(n)) is not None and of < NEGLIGIBLE)


def not_finite(outputs: Outputs, reference_outputs: Outputs) -> str:
    """The name of an output with values that are infinite or no number where the reference's are not; "" if none."""
    for name, ours, theirs in _paired(outputs, reference_outputs):
        if _is_float(ours) and ours.shape == theirs.shape and not (np.isfinite(ours) | ~np.isfinite(theirs)).all():
            return name
    first = next(iter(reference_outputs), "")  # of a model that gives no numbers at all there is nothing to compare
    return first if first and _is_float(reference_outputs[first]) and np.isnan(reference_outputs[first]).any() else ""


class _Spread:
    """How much an output varies, in the units of its noise: squares around the mean, or values other than the usual."""

    def __init__(self) -> None:
        self.count, self.sum, self.squares = 0, 0.0, 0.0
        self.values: Counter[Any] = Counter()

    def add(self, array: Array) -> None:
        if not _is_float(array):
            values, counts = np.unique(array, return_counts=True)
            self.values.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
            return
        finite = array[np.isfinite(array)].astype(np.float64)
        self.count += finite.size
        self.sum += float(finite.sum())
        self.squares += float(np.square(finite).sum())

    @property
    def total(self) -> float:
        if self.values:
            return float(sum(self.values.values()) - max(self.values.values()))
        return max(self.squares - self.sum**2 / self.count, 0.0) if self.count else 0.0


def worst(sqnr: Mapping[str, float | None], held: Collection[str] = ()) -> float | None:
    """The lowest SQNR of the outputs, or of those that are ``held``, in dB; None where none differs."""
    values = (value for name, value in sqnr.items() if not held or name in held)
    return min((value for value in values if value is not None), default=None)


def check_outputs(asked: Iterable[str], known: Collection[str]) -> tuple[str, ...]:
    """The outputs that are asked for by name, each once.

    Raises:
        UnknownNameError: a model has no such output.
    """
    for name in asked:
        if name not in known:
            raise UnknownNameError(f"the model has no output {name!r}", f"its outputs: {', '.join(known)}")
    return tuple(dict.fromkeys(asked))


def _paired(outputs: Outputs, reference_outputs: Outputs) -> Iterator[tuple[str, Array, Array]]:
    """Outputs of both by name; where one of two models calls them otherwise, by their places."""
    if set(outputs) >= set(reference_outputs):
        yield from ((name, outputs[name], out) for name, out in reference_outputs.items())
    else:
        yield from zip(reference_outputs, outputs.values(), reference_outputs.values(), strict=False)


def _by_sample(ours: Array, theirs: Array, rank: int | None = None) -> Iterable[tuple[Array, Array]]:
    """Two outputs, sample by sample where they are another for each, or have an axis more than ``rank``."""
    several = object in (ours.dtype, theirs.dtype) and all(isinstance(x, np.ndarray) for x in (*ours, *theirs))
    if several or (rank is not None and ours.ndim > rank):
        return zip(ours, theirs, strict=True)
    return [(ours, theirs)]


def _overlap(ours: Array, theirs: Array, along: int) -> float:
    """What both select, as a fraction of what either does (Jaccard); 1 where neither selects anything."""
    own, other = ({tuple(np.ravel(each).tolist()) for each in np.moveaxis(x, along, 0)} for x in (ours, theirs))
    return len(own & other) / len(own | other) if own or other else 1.0


def _overlaps_of_rows(ours: Array, theirs: Array, along: int) -> list[float]:
    """``_overlap`` of each row along an axis, in which as many are selected."""
    own, other = (np.moveaxis(x, along, -1).reshape(-1, x.shape[along]) for x in (ours, theirs))
    return [_overlap(a, b, 0) for a, b in zip(own, other, strict=True)]


def _signal_and_noise(actual: Array, expected: Array) -> tuple[float, float]:
    """Sums of squares of the reference and of the error.

    Of whole numbers, truth values and texts, which have no distance, every value counts 1, and 1 more that differs: one
    in ten that is wrong is 10 dB. What is infinite or no number in both alike counts nothing, and else for ever.
    """
    if actual.shape != expected.shape:
        return float(expected.size), np.inf
    if not _is_float(expected):
        return float(expected.size), float((actual != expected).sum())
    whole = np.isfinite(expected)
    if not whole.all():
        if not np.array_equal(actual[~whole], expected[~whole], equal_nan=True):
            return float(expected.size), np.inf
        actual, expected = actual[whole], expected[whole]
    with np.errstate(invalid="ignore", over="ignore"):  # a model that gives no numbers has endless noise
        noise = float(np.square(expected.astype(np.float64) - actual).sum())
    signal = float(np.square(expected, dtype=np.float64).sum())
    return signal, noise if np.isfinite(noise) else np.inf


def _is_float(array: Array) -> bool:
    return bool(np.issubdtype(array.dtype, np.floating))


@keywords_renamed(wanted="reference")
def sqnr(out: npt.NDArray[Any], reference: npt.NDArray[Any]) -> float:
    """The ratio of signal to error in dB, 10 log10(|wanted|^2 / |wanted - out|^2).

    Infinite where both are equal, and -infinite where ``out`` is of another shape, or not finite.
    """
    if out.shape != reference.shape or not np.isfinite(out).all():
        return -np.inf
    noise = float(np.square(out.astype(np.float64) - reference).sum())
    return decibels(float(np.square(reference.astype(np.float64)).sum()), noise)


def noise_to_signal(outputs: Iterable[Array], reference_outputs: Iterable[Array]) -> float:
    """The power of the error relative to that of the expected outputs, over arrays of any shapes; 0 if they are equal.

    Infinite where shapes differ, what was given is not finite, or there is an error and no signal.
    """
    parts = [_signal_and_noise(a, b) for a, b in zip(outputs, reference_outputs, strict=True)]
    signal, noise = sum(part[0] for part in parts), sum(part[1] for part in parts)
    return 0.0 if noise == 0 else noise / signal if signal > 0 else np.inf


def decibels(signal: float, noise: float) -> float:
    """The ratio of two sums of squares in dB."""
    if noise == 0:
        return np.inf
    return float(10 * np.log10(signal / noise)) if signal > 0 and noise < np.inf else -np.inf
