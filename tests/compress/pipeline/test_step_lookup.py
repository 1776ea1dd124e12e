"""Which compressor takes a step, and what is said where none does."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import pytest

from pocketzoo.compress.configs import Int8Config, PruneConfig
from pocketzoo.compress.pipeline.step_lookup import compressors_of
from pocketzoo.compress.plans import Int8Plan
from pocketzoo.core.errors import MissingPluginError, PluginError, RecipeError, UnknownNameError
from pocketzoo.zoo.bundles.saved_plans import find_compressor
from pocketzoo.zoo.bundles.step_record import StepRecord
from pocketzoo.zoo.catalog.compressor import GraphCompressor, Step
from pocketzoo.zoo.catalog.hookspecs import hookimpl
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Int4Config(Int8Config):
    group: int = 32


def graph(name: str, config: type, **more) -> GraphCompressor:
    return GraphCompressor(
        name=name, summary="s", config=config, plan_type=Int8Plan, plan=lambda *_: None, apply=lambda *_: None, **more
    )


@pytest.fixture(scope="module")
def registry():
    acme = ModuleType("acme")
    acme.pocketzoo_compressors = hookimpl(
        lambda: [graph("int8-acme", Int8Config), graph("int4", Int4Config, plan_version=2)],
        specname="pocketzoo_compressors",
    )
    return Registry(create_manager(points=[], extra=[acme]))


def test_a_name_finds_its_compressor_and_a_bare_config_the_one_that_alone_declares_its_type(registry):
    asked = [
        Step("int8-acme", Int8Config()),
        Step("int8"),
        PruneConfig(ratio=0.1),
        Int4Config(),
        Step("int8", Int4Config()),
    ]
    found = compressors_of(asked, registry)
    assert [compressor.name for compressor, _ in found] == ["int8-acme", "int8", "prune", "int4", "int8"]
    assert [config for _, config in found] == [Int8Config(), Int8Config(), PruneConfig(ratio=0.1), *[Int4Config()] * 2]


@pytest.mark.parametrize(
    ("step", "kind", "says", "hint"),
    [
        (Int8Config(), RecipeError, "several compressors: int8 and int8-acme", "Step('int8', Int8Config(...)) or"),
        (Step("int9"), UnknownNameError, "no compressor is called 'int9'", "int8"),
        (Step("prune", Int8Config()), RecipeError, "prune takes a PruneConfig, not a Int8Config", "Step('prune'"),
        (PruneConfig, RecipeError, "PruneConfig is a class, not a config", "PruneConfig()"),
        (3, RecipeError, "no compressor is configured by int", "registered"),
    ],
)
def test_what_nobody_takes_is_refused_with_what_to_write(step, kind, says, hint, registry, refused):
    with refused(kind, says, hint=hint):
        compressors_of([step], registry)


def test_which_budgets_a_config_takes_is_what_it_has_fields_for(registry):
    budgets = {name: registry.get("compressor", name).budgets for name in ("int4", "prune")}
    assert budgets == {"int4": {"min_sqnr", "max_drop"}, "prune": frozenset()}


def test_a_plan_is_replayed_by_who_knows_its_version(registry, refused):
    step = StepRecord(compressor="int4", provider="acme 3.1", config={}, plan={}, plan_version=2)
    assert find_compressor(step, registry).name == "int4"
    newer = StepRecord(compressor="int4", provider="acme 3.1", config={}, plan={}, plan_version=3)
    with refused(MissingPluginError, "the plan of step 'int4' has version 3", hint="pip install 'acme==3.1'"):
        find_compressor(newer, registry)
    gone = StepRecord(compressor="int3", provider="acme 3.1", config={}, plan={})
    with refused(MissingPluginError, "the compressor 'int3' is of acme 3.1", hint="pip install 'acme==3.1'"):
        find_compressor(gone, registry)


def test_what_excludes_layers_has_to_say_which_there_are(refused):
    with refused(PluginError, "has exclude and no describe"):
        graph("x", Int8Config, exclude=lambda plan, layers: plan)


def test_a_plan_of_before_is_upgraded():
    spec = graph("x", Int8Config, plan_version=3, upgrade=lambda plan, version: {"samples": plan["n"] + version})
    assert spec.read_plan({"n": 5}, version=1) == Int8Plan(samples=6)
    assert spec.read_plan({"samples": 5}, version=3) == Int8Plan(samples=5)
