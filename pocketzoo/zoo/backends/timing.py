"""Time functions in turn, and estimate how many times faster one is, with a confidence interval.

A busy machine slows all that runs on it, in bursts. Four things keep that out of the answer. The runs are made in
rounds, one of each, so that a burst hits all alike (Kalibera and Jones, "Rigorous benchmarking in reasonable time",
ISMM 2013). The order within a round is drawn anew each time: what comes first differs between machines and memory
layouts (Mytkowicz et al., "Producing wrong data without doing anything obviously wrong!", ASPLOS 2009), and with a
random order two equal runs are each as often the faster one, whatever the noise is like. Runs are compared within
their rounds, by the median of the ratios, whose interval is that of the sign test (Thompson, "On confidence ranges for
the median", 1936): it assumes nothing of how times are distributed, which outliers make anything but normal. And where
a run works in the calling thread alone, the CPU time of that thread is compared: others do not add to it.

Time is read of a ``Clock``. What is said here of noise holds for clocks that are simulated, where the truth is known,
and is tested on those; how well it holds on a machine is measured by ``benchmarks/timing.py``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np

from pocketzoo.zoo.bundles.measurement import Interval

WARM_UP = 5  # runs of each in a row that are no faster than those before it: it is warm
WARM_UP_SECONDS = 0.2  # to try for, at most, where less than this is asked to be timed
LEAST = 3  # runs of each that count, however long they take
CONFIDENCE = 0.99
PATIENCE = 6  # times as long as was asked for, at most, where the answer is not precise enough


@dataclass(frozen=True, slots=True)
class Clock:
    """What time is read of, in seconds: that which passes, and that which the calling thread works."""

    wall: Callable[[], float] = time.perf_counter
    cpu: Callable[[], float] = time.thread_time


CLOCK = Clock()


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of the runs that count, in order."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  # of the calling thread


def warm_up(run: Callable[[], object], seconds: float, clock: Clock = CLOCK) -> None:
    """Run until ``WARM_UP`` times in a row it was not 2% faster than before, or for ``seconds``."""
    start, fastest, steady = clock.wall(), math.inf, 0
    while steady < WARM_UP:
        begin = clock.wall()
        run()
        took = clock.wall() - begin
        steady = 0 if took < 0.98 * fastest else steady + 1
        fastest = min(fastest, took)
        if clock.wall() - start > seconds:
            break


def time_in_turn(
    runs: Sequence[Callable[[], object]],
    seconds: float,
    *,
    least: int = LEAST,
    most: int | None = None,
    enough: Callable[[Sequence[Times]], bool] | None = None,
    clock: Clock = CLOCK,
) -> list[Times]:
    """Times of each run, one of each in turn in an order that is drawn anew, after a warm-up.

    It continues for ``seconds`` times the number of ``runs``, and makes ``least`` to ``most`` of each. Where ``enough``
    is given and says no, it continues, for ``PATIENCE`` times as long at most.
    """
    for run in runs:
        warm_up(run, max(seconds, WARM_UP_SECONDS), clock)
    generator = np.random.default_rng(0)
    spent = [Times() for _ in runs]
    asked = seconds * len(runs)
    until, start = asked, clock.wall()
    while True:
        while (count := len(spent[0].wall)) < least or (
            clock.wall() - start < until and (most is None or count < most)
        ):
            for i in generator.permutation(len(runs)):
                begin, worked = clock.wall(), clock.cpu()
                runs[i]()
                spent[i].cpu.append((clock.cpu() - worked) * 1e3)
                spent[i].wall.append((clock.wall() - begin) * 1e3)
        over = clock.wall() - start >= PATIENCE * asked or len(spent[0].wall) == most
        if over or enough is None or enough(spent):
            return spent
        until = (clock.wall() - start) * 1.3


def speedup(ours: Sequence[float], reference: Sequence[float], *, confidence: float = CONFIDENCE) -> Interval | None:
    """How many times faster we are than the reference: the median over the rounds, and its interval.

    Item i of both is of round i. None where so few rounds allow no interval of this ``confidence`` (8 do for 0.99).
    """
    pairs = [(a, b) for a, b in zip(ours, reference, strict=True) if a > 0 and b > 0]
    ratios = np.sort([b / a for a, b in pairs])
    cut = _outside(len(ratios), confidence)
    if cut is None:
        return None
    return Interval(middle=float(np.median(ratios)), low=float(ratios[cut]), high=float(ratios[-1 - cut]))


def _outside(n: int, confidence: float) -> int | None:
    """How many of n sorted values lie below an interval that holds the median with this probability at the least."""
    tail = (1 - confidence) / 2
    if n > 1000:  # the binomial is normal by then
        return math.floor(n / 2 - NormalDist().inv_cdf(1 - tail) * math.sqrt(n) / 2) - 1
    below, outside = 0, None
    for k in range(n // 2 + 1):
        below += math.comb(n, k)  # of 2^n: the ways in which at most k values lie below the median
        if below > tail * 2**n:
            break
        outside = k
    return outside
