"""The interval against what it promises, on clocks that are simulated: there the noise is known, and the truth."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from machine import Machine

from pocketzoo.zoo.backends.timing import (
    CONFIDENCE,
    LEAST,
    PATIENCE,
    WARM_UP,
    WARM_UP_SECONDS,
    Clock,
    Interval,
    speedup,
    time_in_turn,
    warm_up,
)

SIMULATIONS = 400
# Of 400 that miss with a probability of 1% each, more than 12 do in one of 4,000 cases: the binomial's tail.
MISSES = 12
TICK = 2.0**-10  # a second of them is a second, to the last bit

Noise = Callable[[np.random.Generator], Callable[[float], tuple[float, float]]]


def quiet(generator: np.random.Generator) -> Callable[[float], tuple[float, float]]:
    """Every run takes a little more or less."""
    return lambda now: (math.exp(0.02 * generator.normal()), 0.0)


def uneven(generator: np.random.Generator) -> Callable[[float], tuple[float, float]]:
    """Log-normal, as times on shared machines are: one run in twenty takes a third longer."""
    return lambda now: (math.exp(0.15 * generator.normal()), 0.0)


def drifting(generator: np.random.Generator) -> Callable[[float], tuple[float, float]]:
    """The clock rate falls and rises by half, slower than rounds follow each other, from where it happens to be."""
    phase = generator.uniform(0, 2 * math.pi)
    return lambda now: (math.exp(0.05 * generator.normal() + 0.4 * math.sin(phase + now / 0.03)), 0.0)


def bursts(generator: np.random.Generator) -> Callable[[float], tuple[float, float]]:
    """Others work in bursts, as long as several runs: it takes three times as long meanwhile, and waits as well."""
    busy, until = False, 0.0

    def at(now: float) -> tuple[float, float]:
        nonlocal busy, until
        while now >= until:
            busy = not busy
            until += generator.exponential(0.008 if busy else 0.02)
        return math.exp(0.05 * generator.normal()) * (3.0 if busy else 1.0), generator.exponential(0.02) * busy

    return at


def preempted(generator: np.random.Generator) -> Callable[[float], tuple[float, float]]:
    """Half of the runs are put aside for as long as they work, and longer: the thread works no more for it."""
    return lambda now: (math.exp(0.02 * generator.normal()), generator.exponential(0.002) * (generator.random() < 0.5))


NOISES: list[Noise] = [quiet, uneven, drifting, bursts, preempted]


def found(noise: Noise, seed: int, work: float, rounds: int, clock: str = "cpu") -> Interval:
    """How many times faster a millisecond of work is than ``work`` of them, on a machine with this noise."""
    machine = Machine(noise(np.random.default_rng(seed)))
    runs = [machine.run(1e-3 * work), machine.run(1e-3)]
    reference, ours = time_in_turn(runs, 0.0, least=rounds, most=rounds, clock=machine.clock)
    interval = speedup(getattr(ours, clock), getattr(reference, clock))
    assert interval is not None
    return interval


@pytest.mark.parametrize("noise", NOISES, ids=lambda n: n.__name__)
@pytest.mark.parametrize("work", [1.0, 1.1])
def test_the_interval_holds_the_truth_as_often_as_it_says(noise, work):
    """And equal work is called different as rarely, whatever the noise is like."""
    intervals = [found(noise, seed, work, rounds=30) for seed in range(SIMULATIONS)]
    misses = sum(not i.low <= work <= i.high for i in intervals)
    assert misses <= MISSES
    assert work != 1.0 or sum(i.differs for i in intervals) == misses


def test_the_interval_is_no_wider_than_it_needs_to_be():
    """For 90% of 100 rounds it misses where 41 of the ratios or fewer lie on one side of the truth, and only there."""
    generator, missed, times = np.random.default_rng(0), 0, 1000
    for _ in range(times):
        interval = speedup(*generator.lognormal(0.0, 0.1, (2, 100)), confidence=0.9)
        assert interval is not None
        missed += not interval.low <= 1.0 <= interval.high
    exact = 2 * sum(math.comb(100, k) for k in range(42)) / 2**100
    assert exact <= 0.1
    assert abs(missed - times * exact) <= 4 * math.sqrt(times * exact), "four standard deviations"


@pytest.mark.parametrize(
    ("noise", "rounds"),
    # Of the logarithms of ratios the deviation is s: 1.41 times that of a run. The median's is 1.25 s / sqrt(rounds),
    # the interval reaches 2.6 of those, and log(1.1) = 0.095 is then 5 more away, or further.
    [(quiet, 30), (uneven, 600), (drifting, 200), (preempted, 30)],
    ids=["quiet", "uneven", "drifting", "preempted"],
)
def test_a_tenth_more_work_is_seen(noise, rounds):
    for seed in range(100):
        interval = found(noise, seed, 1.1, rounds)
        assert interval.low > 1.0
        assert interval.low <= interval.middle <= interval.high < 1.25


def test_bursts_hide_a_tenth_from_a_few_rounds_and_not_from_many():
    seen = {n: sum(found(bursts, seed, 1.1, n).low > 1.0 for seed in range(50)) for n in (8, 1000)}
    assert seen[8] < 25
    assert seen[1000] == 50


def test_what_others_do_is_in_the_time_that_passes_and_not_in_that_of_the_thread():
    machine = Machine(preempted(np.random.default_rng(0)))
    (times,) = time_in_turn([machine.run(3e-3)], 0.0, least=200, clock=machine.clock)
    assert np.median(times.cpu) == pytest.approx(3.0, rel=0.01), "milliseconds"
    assert np.mean(times.wall) > 3.5
    assert all(wall >= cpu - 1e-9 for wall, cpu in zip(times.wall, times.cpu, strict=True))


def test_a_phase_that_slows_both_is_no_difference():
    """What a mean over all runs would take for one: the machine is slow in the second half, of which one has less."""
    phase = np.repeat([1.0, 3.0], 50)
    assert speedup(list(phase), list(phase)) == Interval(middle=1.0, low=1.0, high=1.0)


@given(st.lists(st.floats(0.1, 10.0), min_size=8, max_size=40), st.floats(0.2, 5.0))
def test_a_constant_factor_is_found_exactly(times, factor):
    interval = speedup(times, [t * factor for t in times])
    assert interval is not None
    for value in (interval.middle, interval.low, interval.high):
        assert math.isclose(value, factor, rel_tol=1e-9)


@given(st.lists(st.tuples(st.floats(0.1, 10.0), st.floats(0.1, 10.0)), min_size=8, max_size=40))
def test_turning_the_question_round_turns_the_answer_round(pairs):
    ours, theirs = zip(*pairs, strict=True)
    there, back = speedup(ours, theirs), speedup(theirs, ours)
    assert there is not None
    assert back is not None
    assert math.isclose(there.low, 1 / back.high, rel_tol=1e-9)
    assert there.low <= there.middle <= there.high


@pytest.mark.parametrize(
    ("rounds", "confidence", "bounds"),
    [(7, 0.99, None), (8, 0.99, (0, 7)), (6, 0.95, (0, 5)), (20, 0.99, (3, 16)), (100, 0.95, (39, 60))],
)
def test_the_bounds_are_those_of_the_sign_test(rounds, confidence, bounds):
    """Of the tables for confidence intervals of the median: ranks counted from 0."""
    interval = speedup([1.0] * rounds, [float(i + 1) for i in range(rounds)], confidence=confidence)
    assert (interval and (interval.low - 1, interval.high - 1)) == bounds


def test_bounds_of_many_rounds_go_on_from_those_of_few():
    widths = []
    for rounds in (1000, 1001):
        interval = speedup([1.0] * rounds, [float(i + 1) for i in range(rounds)])
        assert interval is not None
        widths.append(interval.high - interval.low)
    assert abs(widths[0] - widths[1]) <= 4


@pytest.mark.parametrize(("seconds", "bounds", "count"), [(0.0, {"least": 4}, 4), (100.0, {"most": 6}, 6)])
def test_every_round_has_one_run_of_each(seconds, bounds, count):
    said: list[str] = []
    machine = Machine()
    runs = [machine.run(1e-3, partial(said.append, name)) for name in "ab"]
    spent = time_in_turn(runs, seconds, clock=machine.clock, **bounds)
    rounds = np.array(said[-2 * count :]).reshape(count, 2)
    assert all(sorted(pair) == ["a", "b"] for pair in rounds)
    assert [(len(times.wall), len(times.cpu)) for times in spent] == [(count, count)] * 2


def test_the_order_changes_from_round_to_round():
    said: list[str] = []
    machine = Machine()
    time_in_turn([machine.run(1e-3, partial(said.append, n)) for n in "ab"], 0.0, least=40, clock=machine.clock)
    first = said[-80::2]
    assert 10 < first.count("a") < 30


def test_it_goes_on_for_the_seconds_that_were_asked_for():
    machine = Machine()
    spent = time_in_turn([machine.run(TICK), machine.run(3 * TICK)], 1.0, clock=machine.clock)
    assert [len(times.wall) for times in spent] == [512, 512], "two seconds of four ticks a round"
    assert spent[1].wall == [3e3 * TICK] * 512


def test_it_goes_on_until_it_is_enough_and_no_longer_than_patience_lasts():
    machine = Machine()
    asked: list[tuple[int, float]] = []

    def third(spent) -> bool:
        asked.append((len(spent[0].wall), machine.now))
        return len(asked) == 3

    time_in_turn([machine.run(TICK)], 1.0, enough=third, clock=machine.clock)
    assert [count for count, _ in asked] == [1024, math.ceil(1.3 * 1024), math.ceil(1.3 * math.ceil(1.3 * 1024))]
    asked.clear()
    begin = machine.now
    time_in_turn([machine.run(TICK)], 1.0, enough=lambda s: bool(asked.append((0, machine.now))), clock=machine.clock)
    assert PATIENCE - 0.01 <= machine.now - begin <= PATIENCE * 1.3 + 0.1
    assert 1 <= len(asked) <= math.log(PATIENCE, 1.3) + 1


def test_a_run_is_warm_when_it_gets_no_faster():
    left = [0.02, 0.015, 0.01]
    machine, count = Machine(), 0

    def run() -> None:
        nonlocal count
        count += 1
        machine.now += left.pop(0) if left else 0.001

    warm_up(run, 10.0, machine.clock)
    assert count == 4 + WARM_UP
    count = 0
    warm_up(run, 0.0, machine.clock)
    assert count == 1


def test_time_passes_on_this_machine_too():
    """The clock that is taken without another one; what it says of a machine is measured by a benchmark."""
    (times,) = time_in_turn([lambda: math.factorial(2_000)], 0.0, least=3)
    assert all(value > 0 for value in times.wall)
    assert all(value >= 0 for value in times.cpu)


# -- exact times, on a clock that is turned by hand


class Hands:
    """A clock that only runs turn."""

    def __init__(self) -> None:
        self.now = self.worked = 0.0
        self.clock = Clock(wall=lambda: self.now, cpu=lambda: self.worked)
        self.count = 0

    def takes(self, *seconds: float, share: float = 0.5) -> Callable[[], None]:
        """A run of these lengths one after another, the last from then on; it works for ``share`` of them."""
        left = list(seconds)

        def run() -> None:
            took = left.pop(0) if len(left) > 1 else left[0]
            self.now, self.worked, self.count = self.now + took, self.worked + share * took, self.count + 1

        return run


def test_defaults_are_those_of_the_documentation():
    assert (WARM_UP, WARM_UP_SECONDS, LEAST, CONFIDENCE, PATIENCE) == (5, 0.2, 3, 0.99, 6)


@pytest.mark.parametrize(
    ("seconds", "runs"),
    [
        ((1.0,), 6),  # the first is faster than nothing, and five are no faster
        ((2.0, 1.0), 7),
        ((1.0, 0.98), 6),  # 2% faster is steady
        ((1.0, 0.97), 7),
        ((4.0, 3.0, 2.0, 1.0), 9),
        ((1.0, 5.0, 1.0), 6),
    ],
)
def test_it_is_warm_after_five_runs_that_are_no_faster(seconds, runs):
    hands = Hands()
    warm_up(hands.takes(*seconds), 1e9, hands.clock)
    assert hands.count == runs


@pytest.mark.parametrize(("seconds", "runs"), [(0.0, 1), (1.0, 2), (2.5, 3), (3.0, 4)])
def test_it_is_warmed_no_longer_than_is_said(seconds, runs):
    hands = Hands()
    warm_up(hands.takes(1.0), seconds, hands.clock)
    assert hands.count == runs


def test_milliseconds_of_both_clocks_are_noted():
    hands = Hands()
    one, two = time_in_turn([hands.takes(0.25), hands.takes(0.5, share=0.25)], 0.0, clock=hands.clock)
    assert (one.wall, one.cpu) == ([250.0] * 3, [125.0] * 3)
    assert (two.wall, two.cpu) == ([500.0] * 3, [125.0] * 3)


@pytest.mark.parametrize(
    ("seconds", "bounds", "rounds"),
    [
        (0.0, {}, 3),
        (2.0, {}, 4),  # 2 seconds for each of two runs of half a second
        (2.0, {"most": 3}, 3),
        (0.0, {"least": 5, "most": 5}, 5),
        (0.0, {"least": 5, "most": 2}, 5),
        (3.5, {"least": 1}, 7),
    ],
)
def test_as_many_rounds_as_fit(seconds, bounds, rounds):
    hands = Hands()
    spent = time_in_turn([hands.takes(0.5), hands.takes(0.5)], seconds, clock=hands.clock, **bounds)
    assert [len(times.wall) for times in spent] == [rounds] * 2


def test_where_it_is_not_enough_it_continues_by_a_third_until_patience_ends():
    asked: list[int] = []

    def enough(spent) -> bool:
        asked.append(len(spent[0].wall))
        return len(asked) == 3

    hands = Hands()
    time_in_turn([hands.takes(1.0)], 10.0, enough=enough, clock=hands.clock)
    assert asked == [10, 13, 17]  # 1.3 * 10, and 1.3 * 13 = 16.9
    hands, asked = Hands(), []
    time_in_turn([hands.takes(1.0)], 10.0, enough=lambda s: asked.append(len(s[0].wall)), clock=hands.clock)
    assert asked == [10, 13, 17, 23, 30, 39, 51]
    assert hands.count == 6 + 67  # which is longer than six times ten: nobody is asked any more
    hands, asked = Hands(), []
    time_in_turn([hands.takes(1.0)], 2.0, most=4, enough=lambda s: asked.append(0), clock=hands.clock)
    assert hands.count == 3 + 4  # it is warmed for as long as is timed


@pytest.mark.parametrize(
    ("low", "high", "differs"),
    [(1.01, 1.2, True), (0.8, 0.99, True), (1.0, 1.2, False), (0.8, 1.0, False), (0.9, 1.1, False)],
)
def test_it_differs_where_one_is_not_between_the_bounds(low, high, differs):
    assert Interval(middle=1.0, low=low, high=high).differs is differs


def test_times_of_nothing_are_left_out():
    ours, reference = [1.0, 0.0, 2.0] + [1.0] * 7, [3.0, 5.0, 0.0] + [3.0] * 7
    assert speedup(ours, reference) == Interval(middle=3.0, low=3.0, high=3.0)
    assert speedup(ours[:9], reference[:9]) is None
    assert speedup([], []) is None
