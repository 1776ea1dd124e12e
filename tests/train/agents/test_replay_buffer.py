"""The ring of transitions: what is kept, what goes, and what is drawn."""

from __future__ import annotations

import numpy as np
import torch

from pocketzoo.train.agents.replay_buffer import Replay


def filled(capacity: int, count: int) -> Replay:
    ring = Replay(capacity, 2)
    for i in range(count):
        ring.add(np.array([i, 10 * i], np.float32), i, i / 2, np.array([i + 1, -i], np.float32), i % 2 == 1)
    return ring


def test_the_oldest_goes_when_it_is_full():
    for count, kept in [(0, []), (1, [0]), (3, [0, 1, 2]), (4, [3, 1, 2]), (8, [6, 7, 5])]:
        ring = filled(3, count)
        assert (len(ring), ring.added) == (len(kept), count)
        state = ring.state()
        assert list(state) == ["states", "following", "actions", "rewards", "ended"]
        assert state["actions"].tolist() == kept
        assert state["states"].tolist() == [[i, 10 * i] for i in kept]
        assert state["following"].tolist() == [[i + 1, -i] for i in kept]
        assert state["rewards"].tolist() == [i / 2 for i in kept]
        assert state["ended"].tolist() == [float(i % 2) for i in kept]


def test_what_is_drawn_is_a_whole_transition_each_as_likely():
    drawn = filled(10, 4).sample(400, np.random.default_rng(0))
    i = drawn.actions
    assert (i.dtype, drawn.states.shape) == (torch.int64, (400, 2))
    assert torch.equal(drawn.states, torch.stack([i, 10 * i], 1).float())
    assert torch.equal(drawn.following, torch.stack([i + 1, -i], 1).float())
    assert torch.equal(drawn.rewards, i / 2)
    assert torch.equal(drawn.ended, (i % 2).float())
    assert all(60 < n < 140 for n in torch.bincount(i, minlength=4).tolist())
    assert torch.equal(i, torch.from_numpy(np.random.default_rng(0).integers(4, size=400)))


def test_what_was_kept_is_put_back():
    old, new = filled(5, 3), Replay(5, 2)
    new.load(old.state())
    new.added = old.added
    assert all(torch.equal(value, new.state()[name]) for name, value in old.state().items())
