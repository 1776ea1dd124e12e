"""Environments of Gymnasium whose optimal values are known: a corridor with a reward at its end, or without end."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

LENGTH = 4


class Corridor(gymnasium.Env):
    """Places 0 to 3 in a row, as one-hot vectors; 1 goes on, 0 goes back. The last step earns 1 and ends it."""

    def __init__(self, *, endless: bool = False) -> None:
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (LENGTH,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.endless, self.place = endless, 0

    def _state(self) -> np.ndarray:
        return np.eye(LENGTH, dtype=np.float32)[self.place]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(LENGTH))
        return self._state(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self.endless:  # every step earns 1, whatever is done
            return self._state(), 1.0, False, False, {}
        if action == 1 and self.place == LENGTH - 1:
            return self._state(), 1.0, True, False, {}
        self.place = min(max(self.place + (1 if action == 1 else -1), 0), LENGTH - 1)
        return self._state(), 0.0, False, False, {}


gymnasium.register("Corridor-v0", Corridor, max_episode_steps=12, reward_threshold=1.0, order_enforce=False)
gymnasium.register("Endless-v0", Corridor, max_episode_steps=12, kwargs={"endless": True}, order_enforce=False)
