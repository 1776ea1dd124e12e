"""Replay buffer of an agent: the last transitions, sampled at random (Lin 1992)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Transitions:
    """A batch of them."""

    states: Tensor  # (B, size)
    actions: Tensor  # (B,)
    rewards: Tensor  # (B,)
    following: Tensor  # (B, size): the states after
    ended: Tensor  # (B,): 1.0 where the episode was terminated; a time limit is not an end of what could be earned


class Replay:
    """A ring of transitions: when it is full, the oldest goes."""

    def __init__(self, capacity: int, size: int) -> None:
        self.states = torch.zeros(capacity, size)
        self.following = torch.zeros(capacity, size)
        self.actions = torch.zeros(capacity, dtype=torch.int64)
        self.rewards, self.ended = torch.zeros(capacity), torch.zeros(capacity)
        self.added = 0  # ever

    def __len__(self) -> int:
        return min(self.added, len(self.states))

    def add(self, state: np.ndarray, action: int, reward: float, following: np.ndarray, ended: bool) -> None:
        """Keep one."""
        i = self.added % len(self.states)
        self.states[i], self.following[i] = torch.from_numpy(state), torch.from_numpy(following)
        self.actions[i], self.rewards[i], self.ended[i] = action, reward, float(ended)
        self.added += 1

    def sample(self, count: int, generator: np.random.Generator) -> Transitions:
        """Some of them, each as likely as any other."""
        rows = torch.from_numpy(generator.integers(len(self), size=count))
        return Transitions(
            self.states[rows], self.actions[rows], self.rewards[rows], self.following[rows], self.ended[rows]
        )

    def state(self) -> dict[str, Tensor]:
        """All it holds, to be kept with ``added``."""
        names = ("states", "following", "actions", "rewards", "ended")
        return {name: getattr(self, name)[: len(self)] for name in names}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put back what ``state`` gave; ``added`` is to be set as well."""
        for name, value in state.items():
            getattr(self, name)[: len(value)] = value
