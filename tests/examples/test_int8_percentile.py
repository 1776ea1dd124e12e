"""examples/int8-percentile: two compressors take one config, and the one that is named runs."""

from __future__ import annotations

import examplepackages
import pytest
import smallnet
from rehearsal import rehearse

import pocketzoo
from pocketzoo.api import Int8Config, RecipeError, Step

FOLDER = examplepackages.on_path("int8-percentile")


@pytest.fixture(scope="module")
def registry():
    return examplepackages.registry_with("int8-percentile", extra=(smallnet,))


@pytest.fixture
def plans(small, registry, tmp_path):
    """The plan of each of the two for one config, by a recipe's word and by ``Step``."""

    def made(name: str, by_recipe: bool) -> dict:
        recipe = tmp_path / f"{name}.toml"
        recipe.write_text(f'version = 1\n[[step]]\nkind = "{name}"\nranges = "minmax"\npercentile = 90.0\n')
        config = Int8Config(ranges="minmax", percentile=90.0)
        asked = {"recipe": recipe} if by_recipe else {"steps": [Step(name, config)]}
        (step,) = rehearse(small.path, data="digits", samples=32, registry=registry, **asked)
        assert step.compressor == name
        assert step.config["ranges"] == "minmax"
        return step.plan

    return made


@pytest.mark.parametrize("by_recipe", [True, False])
def test_the_one_that_is_named_runs(plans, by_recipe):
    ours, theirs = plans("int8", by_recipe), plans("int8-percentile", by_recipe)
    assert ours["layers"] == theirs["layers"]
    narrower = [theirs["ranges"][name]["high"] < ours["ranges"][name]["high"] for name in ours["ranges"]]
    assert any(narrower), "percentiles cut what the least and largest value do not"
    assert plans("int8", not by_recipe) == ours


def test_a_bare_config_is_refused_with_the_steps_to_write(small, registry, refused):
    says = "Int8Config is the config of several compressors: int8 and int8-percentile"
    hint = "say which: Step('int8', Int8Config(...)) or Step('int8-percentile', Int8Config(...))"
    with refused(RecipeError, says, hint=hint):
        rehearse(small.path, data="digits", samples=8, steps=[Int8Config()], registry=registry)


def test_the_command_line_s_int8_is_the_one_that_ships(small, registry, tmp_path):
    """``--int8`` names it."""
    bundle = pocketzoo.compress(
        small.path, tmp_path / "out", data="digits", samples=16, steps=[Step("int8")], keep_slower=True,
        registry=registry,
    )  # fmt: skip
    assert [step.compressor for step in bundle.manifest.steps] == ["int8"]


def test_a_budget_leaves_layers_of_its_own_plan_in_float(small, registry, tmp_path):
    step = Step("int8-percentile", Int8Config(percentile=95.0))
    given = {"data": "digits", "samples": 32, "keep_slower": True, "registry": registry}
    bundle = pocketzoo.compress(small.path, tmp_path / "out", steps=[step], max_drop=0.02, **given)
    (record,) = bundle.manifest.steps
    assert record.compressor == "int8-percentile"
    assert record.report.metric.after >= record.report.metric.before - 0.02
