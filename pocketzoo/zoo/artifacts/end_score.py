"""How alike two artifacts answer at an end whose answers are steps of whole numbers, such as tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pocketzoo.core.arrays import Arrays
from pocketzoo.zoo.artifacts.driver import End
from pocketzoo.zoo.backends.timing import time_in_turn
from pocketzoo.zoo.catalog.backend import Runner


@dataclass(frozen=True, slots=True, kw_only=True)
class EndScore:
    """What an artifact answers at an end, compared with a reference."""

    samples: int
    steps: int  # of the reference's answers: tokens that it wrote
    agreement: float  # fraction of the steps that the other answers the same, after the reference's before it
    same: float  # fraction of the samples that it answers the same to the end


def likeness(end: End, reference: Runner, other: Runner, samples: Iterable[Arrays]) -> EndScore:
    """Run both on samples, the other on what follows the reference's answers (``End.following``)."""
    count = steps = right = whole = 0
    for sample in samples:
        inputs = end.sample(sample)
        expected = reference.infer(inputs)
        actual = other.infer(end.following(inputs, expected))
        equal = [actual[name] == answer for name, answer in expected.items()]
        same = sum(int(np.sum(each)) for each in equal)
        asked = sum(each.size for each in equal)
        count, steps, right, whole = count + 1, steps + asked, right + same, whole + (same == asked)
    return EndScore(samples=count, steps=steps, agreement=right / max(steps, 1), same=whole / max(count, 1))


def milliseconds_a_step(end: End, runners: Sequence[Runner], sample: Arrays, seconds: float) -> list[float]:
    """The median time of each runner for one of ``End.unit`` on a sample, run in turn."""
    runs, steps = zip(*(end.timed(runner, end.sample(sample)) for runner in runners), strict=True)
    spent = time_in_turn(runs, seconds)
    return [float(np.median(times.wall)) / count for times, count in zip(spent, steps, strict=True)]
