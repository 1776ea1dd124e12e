"""Seeds of episodes, and episodes that are played side by side."""

from __future__ import annotations

import numpy as np
import pytest

from pocketzoo.core.errors import DataError, UnknownNameError
from pocketzoo.zoo.data.gym_environments import Environment, episode_seed, play_episodes

pytest.importorskip("gymnasium")


def test_episodes_of_one_purpose_are_none_of_another():
    assert [episode_seed(0, purpose) for purpose in ("train", "validate", "test", "play")] == [
        0, 500_000, 800_000, 950_000,
    ]  # fmt: skip
    assert episode_seed(2, "test", 5) == 2_000_006 + 800_005
    assert episode_seed(1, "train", 3) == 1_000_006


def test_an_environment_says_what_it_is_and_a_seed_decides_it():
    env = Environment("CartPole-v1")
    assert (env.name, env.size, env.actions, env.goal) == ("CartPole-v1", 4, 2, 475.0)
    first = env.reset(3)
    assert (first.shape, first.dtype) == ((4,), np.float32)
    state, reward, terminated, truncated = env.step(1)
    assert (state.dtype, reward, terminated, truncated) == (np.float32, 1.0, False, False)
    assert np.array_equal(env.reset(3), first)
    assert not np.array_equal(env.reset(4), first)


def test_each_episode_is_played_to_its_own_end():
    """Pushed to one side the pole falls after some steps; each counts 1."""

    def alone(seed: int) -> float:
        env, total, over = Environment("CartPole-v1"), 0.0, False
        env.reset(seed)
        while not over:
            _, reward, over, _ = env.step(seed % 2)
            total += reward
        return total

    asked: list[int] = []

    def policy(states: np.ndarray) -> np.ndarray:
        asked.append(len(states))
        return np.ones(len(states), np.int64)

    returns = play_episodes("CartPole-v1", policy, range(1, 9, 2))
    assert returns.tolist() == [alone(seed) for seed in (1, 3, 5, 7)]
    assert len(set(returns.tolist())) > 1
    assert asked == [int((returns > step).sum()) for step in range(int(returns.max()))]


def test_a_time_limit_ends_an_episode_too():
    returns = play_episodes("MountainCar-v0", lambda states: np.ones(len(states), np.int64), range(2))
    assert returns.tolist() == [-200.0, -200.0]


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("NoSuch-v1", UnknownNameError, "Gymnasium has no 'NoSuch-v1': "),
        ("FrozenLake-v1", DataError, "the states of FrozenLake-v1 are Discrete(16), no vectors"),
        ("Pendulum-v1", DataError, "the actions of Pendulum-v1 are Box"),
    ],
)
def test_what_cannot_be_played_is_refused(name, kind, message, refused):
    with refused(kind, message, hint="one such as CartPole-v1"):
        Environment(name)


@pytest.mark.parametrize("name", ["hf://org/m", "no_such_module:Thing-v0", "json:Thing", ":", "a b", "\udcff"])
def test_a_name_that_is_none_is_an_error_of_ours(name):
    with pytest.raises((DataError, UnknownNameError), match="Gymnasium"):
        Environment(name)
