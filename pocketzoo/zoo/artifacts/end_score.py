"""How alike two artifacts answer at an end whose answers are steps of whole numbers, such as tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pocketzoo.core.arrays import Arrays
from pocketzoo.zoo.artifacts.driver import End
from pocketzoo.zoo.backends.timing import time_in_turn
from pocketzoo.zoo.catalog.backend import Runner
from pocketzoo.zoo.tasks.decoders.answers import Texts
from pocketzoo.zoo.tasks.metrics.texts import TextAgreement


@dataclass(frozen=True, slots=True, kw_only=True)
class EndScore:
    """What an artifact answers at an end, compared with a reference."""

    samples: int
    steps: int  # of the reference's answers: tokens that it wrote
    agreement: float  # fraction of the steps that the other answers the same, after the reference's before it
    same: float  # fraction of the samples that it answers the same to the end


def likeness(end: End, reference: Runner, other: Runner, samples: Iterable[Arrays]) -> EndScore:
    """Run both on samples, the other on what follows the reference's answers (``End.following``)."""
    metric, count = TextAgreement(), 0
    for sample in samples:
        inputs = end.sample(sample)
        expected = reference.infer(inputs)
        actual = other.infer(end.following(inputs, expected))
        metric.update(_text(actual, expected), _text(expected, expected))
        count += 1
    steps = sum(metric.tokens)
    if not steps:
        return EndScore(samples=count, steps=0, agreement=0.0, same=float(count > 0))
    result = metric.result()
    return EndScore(samples=count, steps=steps, agreement=result["agreement"].value, same=result["equal texts"].value)


def _text(answers: Arrays, names: Arrays) -> Texts:
    """All steps of one sample, of outputs in the order of ``names``."""
    return Texts((np.concatenate([answers[name].ravel() for name in names]),))


def milliseconds_a_step(end: End, runners: Sequence[Runner], sample: Arrays, seconds: float) -> list[float]:
    """The median time of each runner for one of ``End.unit`` on a sample, run in turn."""
    runs, steps = zip(*(end.timed(runner, end.sample(sample)) for runner in runners), strict=True)
    spent = time_in_turn(runs, seconds)
    return [float(np.median(times.wall)) / count for times, count in zip(spent, steps, strict=True)]
