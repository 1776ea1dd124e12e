"""Agreement of a model's outputs with those of a reference, without labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import Array, Arrays, batch_size, first
from pocketzoo.core.numerics import predicted, right_answers
from pocketzoo.core.renamed import keywords_renamed
from pocketzoo.zoo.catalog.specs import PER_TOKEN, TextSpec
from pocketzoo.zoo.data.processors.open_processor import as_processor

Outputs = Arrays  # of one run of a model, by name, in the model's order

CLOSE = 0.05  # standard deviations of the reference that a number may be off
NEIGHBORS = 256  # embeddings it takes until nearest neighbors say something: among few, the nearest is often far
NEGLIGIBLE = 80.0  # dB: an error of a ten-thousandth is what other kernels, or another order of sums, make
CLASSES = frozenset({"logits", "q-values", "first-token-logits"})  # what a row's largest number is the answer of


def answers(outputs: Outputs, x: Arrays, spec: Any, returns: str) -> Array | None:
    """What a model that ``returns`` so answers to the inputs ``x``, from its first output: one row per answer.

    Answers are of samples, or of the tokens that a text has. A single number a sample, (N,), is a label already. None
    where the output is no such table: a map, boxes, one number per row.
    """
    out = first(outputs)
    if returns in PER_TOKEN:
        tokens = _tokens(x, as_processor(spec).text)
        return out.reshape(-1, out.shape[-1]) if tokens is None else out[tokens]
    if returns == "logits" and out.ndim == 1 and not _is_float(out):
        return out
    table = out.ndim == 2 and _is_float(out)
    return out if table and (returns in ("embedding", "values") or (returns in CLASSES and out.shape[1] > 1)) else None


def _tokens(x: Arrays, text: TextSpec | None) -> npt.NDArray[np.bool_] | None:
    """Which ids of a batch are tokens of a text, (B, T): as the mask says where there is one; None without texts."""
    if text is None:
        return None
    return np.asarray(x[text.mask] != 0 if text.mask in x else x[text.name] != text.pad)


def same(rows: Array, reference: Array, returns: str) -> npt.NDArray[np.bool_]:
    """Which rows (N, C) give the answer of the reference's (N,): ``Measurement.agreement`` is their fraction."""
    if returns == "embedding":
        return np.asarray(nearest_neighbors(rows) == nearest_neighbors(reference))
    if returns == "values":
        return np.asarray((np.abs(rows - reference) <= CLOSE * reference.std(0)).all(-1))
    return np.asarray(right_answers(rows, predicted(reference)))


class Comparison:
    """How near all outputs of a model are to a reference's, and how often both answer the same; batch by batch."""

    def __init__(self, returns: str, spec: Any) -> None:
        """``returns``: as ``Manifest.gives``; ``spec`` is the processor, or the config of one."""
        self.returns, self.spec = returns, as_processor(spec)
        self.samples = 0
        self._signal: dict[str, float] = {}
        self._noise: dict[str, float] = {}
        self._spread: dict[str, _Spread] = {}
        self._answers = self._agreed = self._right = 0
        self._targets: Counter[int] = Counter()
        self._tables: list[tuple[Array, Array]] = []  # kept only where all rows are looked at together

    def add(self, actual: Outputs, expected: Outputs, x: Arrays, y: npt.NDArray[Any] | None = None) -> None:
        """The outputs of both for a batch ``x``; ``y`` are its targets where they are known."""
        self.samples += batch_size(x)
        for name, ours, theirs in _paired(actual, expected):
            signal, noise = _signal_and_noise(ours, theirs)
            self._signal[name] = self._signal.get(name, 0.0) + signal
            self._noise[name] = self._noise.get(name, 0.0) + noise
            self._spread.setdefault(name, _Spread()).add(theirs)
        rows, reference = (answers(outputs, x, self.spec, self.returns) for outputs in (actual, expected))
        if rows is None or reference is None or rows.shape != reference.shape:
            return
        self._answers += len(rows)
        if self.returns in ("embedding", "values"):
            self._tables.append((rows, reference))
        else:
            self._agreed += int(same(rows, reference, self.returns).sum())
        if y is not None and self.returns == "logits" and y.ndim == 1 and len(y) == len(rows):
            self._right += int(right_answers(rows, y).sum())
            self._targets.update(y.tolist())

    @property
    def agreement(self) -> float | None:
        """Fraction of answers that are the reference's, 0-1; None where none can be told, or too few for neighbors."""
        if self._tables:
            if self.returns == "embedding" and self._answers < NEIGHBORS:
                return None
            rows, reference = (np.concatenate(part) for part in zip(*self._tables, strict=True))
            return float(np.mean(same(rows, reference, self.returns)))
        return self._agreed / self._answers if self._answers else None

    @property
    def accuracy(self) -> float | None:
        """Fraction of right answers, 0-1; None where the classes are not known."""
        known = sum(self._targets.values())
        return self._right / known if known else None

    @property
    def chance(self) -> float:
        """Fraction of right answers of who always names the class that is most frequent, 0-1."""
        return max(self._targets.values()) / sum(self._targets.values()) if self._targets else 0.0

    @property
    def sqnr(self) -> dict[str, float | None]:
        """By the reference's name of each output, in dB; None where it differs nowhere."""
        return {
            name: None if self._noise[name] == 0 else decibels(signal, self._noise[name])
            for name, signal in self._signal.items()
        }

    @property
    def like_constants(self) -> tuple[str, ...]:
        """Outputs whose error is as large as all that varies in the reference's: a constant would be as near.

        An output with an offset, or a truth value that is rarely true, may be so for all of its SQNR. Errors that
        ``NEGLIGIBLE`` dB leave behind do not count: what hardly varies need not be met more closely.
        """
        return tuple(
            name
            for name, sqnr in self.sqnr.items()
            if sqnr is not None and sqnr < NEGLIGIBLE and self._noise[name] >= self._spread[name].total
        )


def not_finite(outputs: Outputs, reference_outputs: Outputs) -> str:
    """The name of an output with values that are infinite or no number where the reference's are not; "" if none."""
    for name, ours, theirs in _paired(outputs, reference_outputs):
        if _is_float(ours) and ours.shape == theirs.shape and not (np.isfinite(ours) | ~np.isfinite(theirs)).all():
            return name
    one = next(iter(reference_outputs), "")  # of a model that gives no numbers at all there is nothing to compare
    return one if one and _is_float(reference_outputs[one]) and np.isnan(reference_outputs[one]).any() else ""


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


def worst(sqnr: Mapping[str, float | None]) -> float | None:
    """The lowest of the outputs' SQNR, in dB; None where none differs."""
    return min((value for value in sqnr.values() if value is not None), default=None)


def _paired(outputs: Outputs, reference_outputs: Outputs) -> Iterator[tuple[str, Array, Array]]:
    """Outputs of both by name; where one of two models calls them otherwise, by their places."""
    if set(outputs) >= set(reference_outputs):
        yield from ((name, outputs[name], out) for name, out in reference_outputs.items())
    else:
        yield from zip(reference_outputs, outputs.values(), reference_outputs.values(), strict=False)


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


def nearest_neighbors(vectors: Array) -> npt.NDArray[np.intp]:
    """For each vector (N, C) the other one of the largest cosine: (N,)."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    return np.asarray(cosines.argmax(-1))


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
