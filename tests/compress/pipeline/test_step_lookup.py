"""Which compressor takes a step, and what is said where none does."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from types import ModuleType

import pytest

from pocketzoo.compress.configs import Int8Config, PruneConfig
from pocketzoo.compress.pipeline.step_lookup import compressors_of
from pocketzoo.compress.plans import Int8Plan
from pocketzoo.core.errors import MissingPluginError, PluginError, RecipeError, UnknownNameError
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.bundles.saved_plans import find_compressor, saved_plan
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
    with refused(MissingPluginError, "acme 3.1's, of version 3; acme reads version 2", hint="pip install 'acme==3.1'"):
        find_compressor(newer, registry)
    older = replace(step, plan_version=1)
    with refused(MissingPluginError, "acme 3.1's, of version 1; acme reads version 2", hint="pip install 'acme==3.1'"):
        find_compressor(older, registry)
    with refused(MissingPluginError, "of version 3; acme reads version 2", hint="the manifest was changed"):
        find_compressor(replace(newer, provider="acme"), registry)
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


def fails(*_):
    return 1 / 0


def leaves(*_):
    raise SystemExit(3)


@pytest.mark.parametrize("failing", [fails, leaves])
@pytest.mark.parametrize("name", ["plan", "apply", "weaker", "describe", "exclude", "upgrade", "for_graph", "sketch"])
def test_what_a_plugin_s_compressor_raises_is_said_to_be_its(name, failing, refused):
    acme = ModuleType("acme")
    spec = replace(graph("x", Int4Config, describe=lambda plan: (), plan_version=2), **{name: failing})
    acme.pocketzoo_compressors = hookimpl(lambda: [spec], specname="pocketzoo_compressors")
    ((compressor, _),) = compressors_of([Step("x")], Registry(create_manager(points=[], extra=[acme])))
    with refused(PluginError, f"{name} of the compressor 'x' of acme failed: ", hint="pocketzoo plugins"):
        getattr(compressor, name)(None, None, None)
    with refused(PluginError, "'x' of acme failed") if name == "upgrade" else nullcontext():
        compressor.read_plan({}, version=1)


def test_a_plan_that_the_installed_version_does_not_read_names_both(tmp_path, refused):
    step = StepRecord(compressor="int4", provider="numpy 0.1", config={}, plan={"levels": 3})
    said = f"is numpy 0.1's, and numpy {version('numpy')} does not read it: no field of"
    with refused(MissingPluginError, said, hint="pip install 'numpy==0.1'"):
        saved_plan(Bundle(tmp_path, None), step, graph("int4", Int4Config))
    same = replace(step, provider=f"numpy {version('numpy')}")
    with refused(RecipeError, "no field of Int8Plan is called 'levels'"):
        saved_plan(Bundle(tmp_path, None), same, graph("int4", Int4Config))
