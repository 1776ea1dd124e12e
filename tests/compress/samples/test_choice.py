from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from pocketzoo.compress.plans import FurtherChoice
from pocketzoo.compress.samples.choice import Some, choose
from pocketzoo.core.arrays import joined


@dataclass
class Sourced:
    x: np.ndarray
    groups: np.ndarray | None = None

    def __iter__(self):
        return ({"image": self.x[start : start + 4]} for start in range(0, len(self.x), 4))


def levels(samples) -> np.ndarray:
    return joined(list(samples))["image"]


GROUPS = np.repeat(np.arange(8), 3)


def images() -> np.ndarray:
    """Of each source a level of its own, and a ramp on it."""
    ramp = np.linspace(0, 1, 16, dtype=np.float32) * np.ones((24, 3, 16, 1), np.float32)
    return ramp + GROUPS[:, None, None, None].astype(np.float32)


def test_both_are_judged_on_sources_that_nothing_was_made_of():
    asked = []

    def error(calibrating, judging):
        asked.append((set(calibrating.groups), set(judging.groups), len(levels(calibrating)), len(levels(judging))))
        return 1.0

    choice = choose(Sourced(images(), GROUPS), 24, error)
    (own, left_out, few, judged), (own_too, left_out_too, more, judged_too) = asked
    assert not own & left_out
    assert own | left_out == set(range(8))
    assert (own_too <= own, left_out_too, judged_too) == (True, left_out, judged)
    assert more == 2 * few  # as many are made as there are
    assert choice == FurtherChoice(made=24, real=1.0, joined=1.0, used=False)


def test_what_helps_is_used_and_what_hurts_is_refused():
    samples = Sourced(images(), GROUPS)

    def reach(calibrating, judging):  # the part of what is judged that lies outside of what was seen
        low, high = levels(calibrating).min(), levels(calibrating).max()
        return float(((levels(judging) < low) | (levels(judging) > high)).mean()) + 1e-3

    def count(calibrating, judging):  # every sample that is no real one costs
        return float(len(levels(calibrating)))

    assert not choose(samples, 24, count).used
    assert not choose(samples, 24, reach).used  # nothing that is made reaches further than what it is made of

    def variety(calibrating, judging):
        return 1.0 / len(np.unique(levels(calibrating)))

    assert choose(samples, 24, variety).used


@pytest.mark.parametrize("groups", [None, np.zeros(24, np.int64)])
def test_without_sources_nothing_can_be_left_out(groups):
    assert choose(Sourced(images(), groups), 24, lambda *_: 1.0) is None


def test_what_cannot_be_made_is_not_tried():
    samples = Sourced(images().reshape(24, -1), GROUPS)
    assert choose(samples, 24, lambda *_: pytest.fail("nothing was made")) is None


def test_some_samples_come_in_their_order_with_their_sources():
    which = np.arange(24) % 5 == 0
    some = Some(Sourced(images(), GROUPS), which)
    assert np.array_equal(levels(some), images()[which])
    assert np.array_equal(some.groups, GROUPS[which])
