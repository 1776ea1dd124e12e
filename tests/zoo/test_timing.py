"""The interval against what it promises, on noise that is known and on runs whose work is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.zoo.timing import CONFIDENCE, PATIENCE, WARM_UP, Interval, Times, speedup, time_in_turn, warm_up

X = np.linspace(0.1, 1.0, 4_000)


def work(times: int):
    """A run that takes ``times`` as long as one; no library spreads it over threads."""

    def run() -> None:
        for _ in range(times):
            np.tanh(X)

    return run


@pytest.fixture(scope="module")
def raced() -> list[Times]:
    """Two equal runs and one of 10% more work, on this machine as busy as it is."""
    return time_in_turn([work(20), work(22), work(20)], 0.3, least=200)


def test_a_tenth_more_work_is_seen(raced):
    found = speedup(raced[1].cpu, raced[0].cpu)
    assert found is not None
    assert found.high < 1.0
    assert found.low < 20 / 22 < found.high + 0.05


def test_equal_work_is_no_difference(raced):
    """By chance alone, one run in a hundred thousand may say otherwise."""
    found = speedup(raced[2].cpu, raced[0].cpu, confidence=1 - 1e-5)
    assert found is not None
    assert not found.differs


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """A machine that stops for a while, now and then: times of which a tenth are ten times as long."""
    generator = np.random.default_rng(0)
    held, rounds, truth = 0, 60, 1.1
    for _ in range(400):
        slow = np.where(generator.random((2, rounds)) < 0.1, 10.0, 1.0)
        ours, reference = slow * generator.lognormal(0.0, 0.1, (2, rounds))
        found = speedup(ours / truth, reference)
        assert found is not None
        held += found.low <= truth <= found.high
    assert held / 400 >= CONFIDENCE - 0.01
    assert held < 400  # it is no wider than it needs to be


def test_a_phase_that_slows_both_is_no_difference():
    """What a mean over all runs would take for one: the machine is slow in the second half, of which one has less."""
    phase = np.repeat([1.0, 3.0], 50)
    assert speedup(list(phase), list(phase)) == Interval(middle=1.0, low=1.0, high=1.0)


@given(st.lists(st.floats(0.1, 10.0), min_size=8, max_size=40), st.floats(0.2, 5.0))
def test_a_constant_factor_is_found_exactly(times, factor):
    found = speedup(times, [t * factor for t in times])
    assert found is not None
    for value in (found.middle, found.low, found.high):
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
    found = speedup([1.0] * rounds, [float(i + 1) for i in range(rounds)], confidence=confidence)
    assert (found and (found.low - 1, found.high - 1)) == bounds


def test_bounds_of_many_rounds_go_on_from_those_of_few():
    widths = []
    for rounds in (1000, 1001):
        found = speedup([1.0] * rounds, [float(i + 1) for i in range(rounds)])
        assert found is not None
        widths.append(found.high - found.low)
    assert abs(widths[0] - widths[1]) <= 4


@pytest.mark.parametrize(("seconds", "bounds", "count"), [(0.0, {"least": 4}, 4), (100.0, {"most": 6}, 6)])
def test_every_round_has_one_run_of_each(seconds, bounds, count):
    said: list[str] = []
    spent = time_in_turn([lambda: said.append("a"), lambda: said.append("b")], seconds, **bounds)
    rounds = np.array(said[-2 * count :]).reshape(count, 2)
    assert all(sorted(pair) == ["a", "b"] for pair in rounds)
    assert [(len(times.wall), len(times.cpu)) for times in spent] == [(count, count)] * 2


def test_the_order_changes_from_round_to_round():
    said: list[str] = []
    time_in_turn([lambda: said.append("a"), lambda: said.append("b")], 0.0, least=40)
    first = said[-80::2]
    assert 10 < first.count("a") < 30


def test_it_goes_on_until_it_is_enough_and_no_longer_than_patience_lasts():
    asked: list[int] = []

    def third(spent) -> bool:
        asked.append(len(spent[0].wall))
        return len(asked) == 3

    time_in_turn([work(1)], 0.01, enough=third)
    assert len(asked) == 3
    assert asked == sorted(set(asked))
    asked.clear()
    time_in_turn([work(1)], 0.01, enough=lambda spent: bool(asked.append(1)))
    assert 1 <= len(asked) <= math.log(PATIENCE, 1.3) + 1


def test_a_run_is_warm_when_it_gets_no_faster():
    import time

    left = [0.02, 0.015, 0.01]
    count = 0

    def run() -> None:
        nonlocal count
        count += 1
        time.sleep(left.pop(0) if left else 0.001)

    warm_up(run, 10.0)
    assert count >= 3 + WARM_UP
    count = 0
    warm_up(run, 0.0)
    assert count == 1
