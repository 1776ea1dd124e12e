from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ranges import Table, check_ranges

from pocketzoo.compress.configs import DistillConfig, Int8Config, LowRankConfig, PruneConfig
from pocketzoo.compress.plans import Int8Plan
from pocketzoo.core.errors import RecipeError
from pocketzoo.core.typed import from_plain, to_plain

SKIPS = st.lists(st.text("abc.*0", min_size=1, max_size=5), max_size=3).map(tuple)
PRUNES = st.builds(
    PruneConfig,
    ratio=st.floats(0.0, 1.0, exclude_max=True),
    granularity=st.sampled_from(["channel", "weight"]),
    scope=st.sampled_from(["uniform", "global"]),
    multiple=st.none() | st.integers(1, 64),
    skip=SKIPS,
)
SHARES = st.floats(0.0, 1.0, exclude_min=True)
LOW_RANKS = (
    st.builds(LowRankConfig, energy=SHARES, multiple=st.none() | st.integers(1, 64), skip=SKIPS)
    | st.builds(LowRankConfig, parameters=SHARES, only_faster=st.booleans(), skip=SKIPS)
    | st.builds(LowRankConfig, rank_fraction=SHARES)
)
INT8S = st.builds(
    Int8Config,
    ranges=st.sampled_from(["auto", "minmax", "percentile", "entropy", "mse"]),
    percentile=st.floats(50.0, 100.0, exclude_min=True),
    skip=SKIPS,
)


@given(PRUNES | LOW_RANKS | INT8S)
def test_every_config_survives_the_way_to_a_file_and_back(config):
    plain = to_plain(config)
    assert from_plain(type(config), plain) == config
    # TOML has no null: a field that is None is left out there.
    assert from_plain(type(config), {k: v for k, v in plain.items() if v is not None}) == config


@pytest.mark.parametrize(
    ("make", "field", "rule"),
    [
        (lambda: PruneConfig(ratio=1.0), "PruneConfig.ratio", "below 1"),
        (lambda: PruneConfig(ratio=-0.01), "PruneConfig.ratio", "at least 0"),
        (lambda: PruneConfig(ratio=30), "PruneConfig.ratio", "below 1"),
        (lambda: PruneConfig(ratio=float("nan")), "PruneConfig.ratio", "below 1"),
        (lambda: PruneConfig(multiple=0), "PruneConfig.multiple", "at least 1"),
        (lambda: PruneConfig(multiple=-8), "PruneConfig.multiple", "at least 1"),
        (lambda: LowRankConfig(energy=0.0), "LowRankConfig.energy", "above 0"),
        (lambda: LowRankConfig(energy=1.01), "LowRankConfig.energy", "at most 1"),
        (lambda: LowRankConfig(energy=float("nan")), "LowRankConfig.energy", "above 0"),
        (lambda: LowRankConfig(parameters=0.0), "LowRankConfig.parameters", "above 0"),
        (lambda: LowRankConfig(parameters=2.0), "LowRankConfig.parameters", "at most 1"),
        (lambda: LowRankConfig(rank_fraction=0.0), "LowRankConfig.rank_fraction", "above 0"),
        (lambda: LowRankConfig(energy=0.5, multiple=0), "LowRankConfig.multiple", "at least 1"),
        (LowRankConfig, "one of parameters, energy and rank_fraction", "parameters = 0.8"),
        (
            lambda: LowRankConfig(energy=0.9, parameters=0.5),
            "one of parameters, energy and rank_fraction",
            "parameters = 0.8",
        ),
        (lambda: Int8Config(percentile=50.0), "Int8Config.percentile", "above 50"),
        (lambda: Int8Config(percentile=100.1), "Int8Config.percentile", "at most 100"),
        (lambda: Int8Config(percentile=0.999), "Int8Config.percentile", "above 50"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_class_and_field(make, field, rule, refused):
    with refused(RecipeError, field, hint=rule):
        make()


@pytest.mark.parametrize("ratio", [-1.0, 1.0, 1.5, 99.0])
def test_the_value_itself_is_in_the_message(ratio, refused):
    with refused(RecipeError, repr(ratio)):
        PruneConfig(ratio=ratio)


@pytest.mark.parametrize("config", [PruneConfig(), LowRankConfig(energy=0.9), Int8Config()])
def test_configs_are_frozen_and_take_keywords_only(config):
    name = fields(config)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(config, name, 0.5)
    with pytest.raises(TypeError):
        type(config)(0.5)
    assert hash(config) == hash(from_plain(type(config), to_plain(config)))


RANGES: list[tuple[type, Table, dict[str, Any], dict[str, dict[str, Any]]]] = [
    (
        PruneConfig,
        {
            "ratio": (0.3, "[0, 1)"),
            "macs": (None, "(0, 1]"),
            "parameters": (None, "(0, 1]"),
            "latency": (None, "(0, 1]"),
            "multiple": (None, "[1, inf)"),
        },
        {},
        {},
    ),
    (
        LowRankConfig,
        {
            "parameters": (None, "(0, 1]"),
            "energy": (None, "(0, 1]"),
            "rank_fraction": (None, "(0, 1]"),
            "multiple": (None, "[1, inf)"),
        },
        {"energy": 0.5},
        {"parameters": {"energy": None}, "rank_fraction": {"energy": None}},
    ),
    (
        DistillConfig,
        {
            "epochs": (20, "[1, inf)"),
            "learning_rate": (1e-3, "(0, 1]"),
            "batch_size": (32, "[1, inf)"),
            "features": (0.5, "[0, 1]"),
            "patience": (5, "[1, inf)"),
            "seed": (0, "[0, inf)"),
        },
        {},
        {},
    ),
    (
        Int8Config,
        {"percentile": (99.99, "(50, 100]"), "min_sqnr": (None, "(0, 200)"), "max_drop": (None, "[0, 1)")},
        {},
        {},
    ),
]


@pytest.mark.parametrize(("config", "table", "base", "needs"), RANGES, ids=lambda x: getattr(x, "__name__", ""))
def test_numbers_are_held_to_their_ranges(config, table, base, needs):
    check_ranges(config, table, base, needs)


def test_switches_are_as_they_are_documented():
    """Of what is not a number."""
    prune, int8 = PruneConfig(), Int8Config()
    assert (prune.granularity, prune.scope, prune.pattern, prune.skip) == ("channel", "global", "", ())
    assert (LowRankConfig(energy=0.5).only_faster, DistillConfig().quantized) == (True, False)
    assert (int8.ranges, int8.activations, int8.smooth, int8.embeddings) == ("auto", "auto", True, True)


def test_an_int8_plan_is_what_was_decided_whether_its_integers_are_at_hand_or_not():
    """They are saved in a file of their own; a plan that is read without them is the same plan, and prints as it."""
    plan = Int8Plan(tensors={"w": object()})
    assert plan == Int8Plan()
    assert repr(plan) == repr(Int8Plan())
    assert plan.tensors.keys() == {"w"}
    assert "tensors" not in to_plain(plan)
