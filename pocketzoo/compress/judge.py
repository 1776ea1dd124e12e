"""Is one graph as good, as small and as fast as another: answers on validation data, latency in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pocketzoo.errors import BundleError
from pocketzoo.progress import SILENT, Progress
from pocketzoo.zoo.agreement import answers, same
from pocketzoo.zoo.data import Batches
from pocketzoo.zoo.files import sha256
from pocketzoo.zoo.measure import milliseconds
from pocketzoo.zoo.preprocess import Array
from pocketzoo.zoo.runner import OnnxRunner

SLACK = 1.03  # a graph is slower only if it takes so many times as long,
ROUNDS = 3  # and does so each time it is timed: a busy machine makes anything slow once
SECONDS = 0.2  # that each graph is timed for in a round


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How a graph answers validation samples."""

    samples: int  # answers: of tokens where the model gives one for each
    accuracy: float | None  # share of right answers; None where the classes are not known
    agreement: float  # share of samples answered as the reference does; for embeddings, of nearest neighbours kept
    sqnr: float | None  # dB against the reference; None where nothing differs


class Judge:
    """Scores graphs that give ``returns`` (see ``HeadSpec``) against a reference on the same samples. It runs once."""

    def __init__(
        self,
        reference: Path,
        samples: Batches,
        *,
        returns: str,
        label: str = "validating",
        progress: Progress = SILENT,
    ) -> None:
        self.reference, self.samples, self.returns = reference, samples, returns
        self.label, self.progress = label, progress
        self._known: dict[str, Score] = {}  # by digest: what one step made is what the next one starts from

    def score(self, graph: Path) -> Score:
        """Scores of a graph.

        Raises:
            BundleError: its outputs are not finite.
        """
        digest = sha256(graph)
        if digest not in self._known:
            self._known[digest] = self._score(graph)
        return self._known[digest]

    def _score(self, graph: Path) -> Score:
        wanted, targets = self._answers
        given = wanted if graph == self.reference else self._run(graph)[0]
        if not np.isfinite(given).all():
            raise BundleError(f"{graph} gives outputs that are not finite", "make the model again")
        noise = float(np.square(wanted - given, dtype=np.float64).sum())
        signal = float(np.square(wanted, dtype=np.float64).sum())
        return Score(
            samples=len(wanted),
            accuracy=None if targets is None else float(np.mean(given.argmax(-1) == targets)),
            agreement=float(np.mean(same(given, wanted, self.returns))),
            sqnr=float(10 * np.log10(signal / noise)) if noise > 0 and signal > 0 else None,
        )

    def drop(self, graph: Path) -> float:
        """What a graph loses against the reference: accuracy, 0-1.

        Where the classes are not known it is the share of answers that changed: accuracy cannot fall by more than that.
        """
        score = self.score(graph)
        if score.accuracy is None:
            return 1.0 - score.agreement
        before = self.score(self.reference).accuracy
        return (before or 0.0) - score.accuracy

    @property
    def metric(self) -> str:
        """What ``drop`` speaks of."""
        return "agreement" if self._answers[1] is None else "accuracy"

    @cached_property
    def _answers(self) -> tuple[Array, Array | None]:
        return self._run(self.reference)

    def _run(self, graph: Path) -> tuple[Array, Array | None]:
        given, targets = [], []
        with OnnxRunner(graph) as runner:
            for x, y in self.progress.track(self.samples, self.label, len(self.samples)):
                given.append(answers(runner, x, self.samples, self.returns))
                targets.append(y)
        known = [y for y in targets if y is not None and y.ndim == 1 and self.returns == "logits"]
        return np.concatenate(given), np.concatenate(known) if known else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """Two graphs timed in turn: medians in milliseconds for one sample."""

    before: float
    after: float

    @property
    def slower(self) -> bool:
        return self.after > self.before * SLACK


def race(
    before: Path,
    after: Path,
    x: Array,
    timed: Callable[[Sequence[Path], Array, float], list[float]] = milliseconds,
) -> Race:
    """Time a graph beside the one it would replace. Only one that is slower in every round is called slower."""
    rounds: list[Race] = []
    while len(rounds) < ROUNDS and (not rounds or rounds[-1].slower):
        old, new = timed([before, after], x, SECONDS)
        rounds.append(Race(before=old, after=new))
    return min(rounds, key=lambda r: r.after / r.before)
