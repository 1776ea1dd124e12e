"""Settings of an agent: ranges, defaults, and the decay of exploration."""

from __future__ import annotations

from dataclasses import fields

import pytest
from ranges import check_ranges

from pocketzoo.core.errors import RecipeError
from pocketzoo.train.agents.settings import SAYS, AgentConfig, agent_settings


def test_numbers_are_held_to_their_ranges():
    count, fraction = "[1, inf)", "[0, 1]"
    table = {
        "steps": (100_000, count),
        "seed": (0, f"[0, {2**31 - 1}]"),
        "batch_size": (128, count),
        "learning_rate": (2e-3, "(0, inf)"),
        "discount": (0.99, fraction),
        "clip": (10.0, "(0, inf)"),
        "capacity": (50_000, count),
        "warm_up": (1_000, count),
        "learn_every": (4, count),
        "target_every": (100, count),
        "explore_from": (1.0, fraction),
        "explore_to": (0.05, fraction),
        "explore_steps": (6_000, count),
        "evaluate_every": (2_500, count),
        "episodes": (100, count),
    }
    check_ranges(AgentConfig, table, {}, {}, free={"goal"})
    assert AgentConfig().goal is None


def test_every_setting_says_what_it_is():
    assert list(SAYS) == [field.name for field in fields(AgentConfig)]


def test_exploration_decays_linearly_and_then_stays():
    config = AgentConfig(explore_from=0.9, explore_to=0.1, explore_steps=100)
    assert [config.exploration(step) for step in (0, 25, 50, 100, 101, 10**6)] == pytest.approx(
        [0.9, 0.7, 0.5, 0.1, 0.1, 0.1]
    )


def test_texts_are_read_and_what_is_none_changes_nothing(refused):
    assert agent_settings({"steps": "7"}, seed=None, clip=2.0) == AgentConfig(steps=7, clip=2.0)
    with refused(RecipeError, "fit-agent has no option 'step'"):
        agent_settings({"step": 1})
