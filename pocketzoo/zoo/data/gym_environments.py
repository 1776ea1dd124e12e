"""Gymnasium environments with vector states and discrete actions, and episodes played by a policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.errors import DataError, PocketzooError, UnknownNameError, in_a_line
from pocketzoo.core.optional import require

Policy = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.int64]]  # states (B, size) -> actions (B,)


# Where the numbers of episodes begin that serve one purpose, so that none is evaluated on what it learned from.
FIRST = {"train": 0, "validate": 500_000, "test": 800_000, "play": 950_000}


def episode_seed(seed: int, purpose: str, number: int = 0) -> int:
    """The seed of an episode, of all that a run or evaluation of ``seed`` plays."""
    return seed * 1_000_003 + FIRST[purpose] + number


class Environment:
    """One environment by the name it is registered under, such as "CartPole-v1"."""

    def __init__(self, name: str) -> None:
        """Make it.

        Raises:
            MissingDependencyError: gymnasium is not installed, or something that this environment needs.
            UnknownNameError: Gymnasium knows none of this name.
            DataError: its states are not vectors, or its actions are not numbered.
        """
        gym = require("gymnasium", extra="gym")
        try:
            self.env: Any = gym.make(name, disable_env_checker=True)
        except gym.error.UnregisteredEnv as error:  # no such name, or no such version of it
            raise UnknownNameError(f"Gymnasium has no {name!r}: {error}", "name one such as CartPole-v1") from error
        except gym.error.Error as error:
            raise DataError(f"Gymnasium cannot make {name!r}: {error}", "install what it needs") from error
        except (PocketzooError, MemoryError):
            raise
        except Exception as error:  # of the module that "module:Name" imports, and of the environment's own code
            raise DataError(f"Gymnasium cannot make {name!r}: {in_a_line(error)}", "check its name") from error
        self.name = name
        states, actions = self.env.observation_space, self.env.action_space
        if not isinstance(states, gym.spaces.Box) or len(states.shape) != 1:
            raise DataError(f"the states of {name} are {states}, no vectors", "choose one such as CartPole-v1")
        if not isinstance(actions, gym.spaces.Discrete) or int(actions.start) != 0:
            raise DataError(f"the actions of {name} are {actions}, not 0, 1, ...", "choose one such as CartPole-v1")
        self.size, self.actions = int(states.shape[0]), int(actions.n)
        self.goal: float | None = self.env.spec.reward_threshold  # a mean return that counts as solved, if any

    def reset(self, seed: int) -> npt.NDArray[np.float32]:
        """Start an episode, which the seed decides; its first state."""
        state, _ = self.env.reset(seed=seed)
        return np.asarray(state, np.float32)

    def step(self, action: int) -> tuple[npt.NDArray[np.float32], float, bool, bool]:
        """The next state, the reward, and whether the episode is terminated, or cut off by its time limit."""
        state, reward, terminated, truncated, _ = self.env.step(action)
        return np.asarray(state, np.float32), float(reward), bool(terminated), bool(truncated)


def play_episodes(name: str, policy: Policy, seeds: range) -> npt.NDArray[np.float64]:
    """The return of one episode for each seed, all played side by side: (len(seeds),), not discounted."""
    running = [(i, env := Environment(name), env.reset(seed)) for i, seed in enumerate(seeds)]
    returns = np.zeros(len(seeds))
    while running:
        actions = policy(np.stack([state for _, _, state in running]))
        going = []
        for (i, env, _), action in zip(running, actions, strict=True):
            state, reward, terminated, truncated = env.step(int(action))
            returns[i] += reward
            if not terminated and not truncated:
                going.append((i, env, state))
        running = going
    return returns
