"""The settings of ``fit_agent``: a frozen, validated dataclass, the same in Python and on the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pocketzoo.core.errors import check_field
from pocketzoo.core.typed import with_changes

SAYS = {  # the help of the command line's option too
    "steps": "Maximum number of environment steps.",
    "seed": "Random seed.",
    "batch_size": "Transitions per optimizer step.",
    "learning_rate": "Learning rate of Adam.",
    "discount": "Discount factor of future rewards, 0-1.",
    "clip": "Maximum norm of the gradient.",
    "capacity": "Capacity of the replay buffer, in transitions.",
    "warm_up": "Environment steps before training starts.",
    "learn_every": "Environment steps per optimizer step.",
    "target_every": "Optimizer steps between updates of the target network.",
    "explore_from": "Initial fraction of random actions (epsilon), 0-1.",
    "explore_to": "Final fraction of random actions, 0-1.",
    "explore_steps": "Environment steps over which epsilon decays linearly.",
    "evaluate_every": "Environment steps between evaluations.",
    "episodes": "Episodes per evaluation.",
    "goal": "Mean return at which training stops; default: the environment's own.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """Settings of ``fit_agent``. ``SAYS`` has what each of them is."""

    steps: int = 100_000
    seed: int = 0
    batch_size: int = 128
    learning_rate: float = 2e-3
    discount: float = 0.99
    clip: float = 10.0
    capacity: int = 50_000
    warm_up: int = 1_000
    learn_every: int = 4
    target_every: int = 100
    explore_from: float = 1.0
    explore_to: float = 0.05
    explore_steps: int = 6_000
    evaluate_every: int = 2_500
    episodes: int = 100
    goal: float | None = None

    def __post_init__(self) -> None:
        counts = ("steps", "batch_size", "capacity", "warm_up", "learn_every", "target_every", "explore_steps",
                  "evaluate_every", "episodes")  # fmt: skip
        for name in counts:
            check_field(self, name, getattr(self, name) >= 1, "at least 1")
        check_field(self, "seed", 0 <= self.seed < 2**31, "0 or more, below 2^31")
        for name in ("discount", "explore_from", "explore_to"):
            check_field(self, name, 0.0 <= getattr(self, name) <= 1.0, "from 0 to 1")
        for name in ("learning_rate", "clip"):
            check_field(self, name, 0.0 < getattr(self, name) < math.inf, "above 0")

    def exploration(self, step: int) -> float:
        """Fraction of random actions (epsilon) in a step."""
        share = min(1.0, step / self.explore_steps)
        return self.explore_from + (self.explore_to - self.explore_from) * share


def agent_settings(training: AgentConfig | Mapping[str, Any] | None, **changes: Any) -> AgentConfig:
    """A config with those of ``changes`` that are not None in it; texts, as a command line gives them, are read.

    Raises:
        RecipeError: there is no such setting, or it cannot be what it is.
    """
    return with_changes(AgentConfig, training, "fit-agent", **changes)
