"""Whoever asks for what a broken plugin would have declared is told why it does not, whatever is asked for."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest

import pocketzoo
from pocketzoo.compress.pipeline.recipe import read_steps
from pocketzoo.compress.pipeline.step_lookup import compressors_of
from pocketzoo.core.errors import PocketzooError
from pocketzoo.deploy.export_forms import find_form
from pocketzoo.zoo.backends.open_backend import backend_named, find_runtime
from pocketzoo.zoo.bundles.saved_plans import find_compressor
from pocketzoo.zoo.bundles.step_record import StepRecord
from pocketzoo.zoo.catalog.compressor import Step
from pocketzoo.zoo.catalog.described import Described, spec_of
from pocketzoo.zoo.catalog.kinds import KINDS
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import Repository
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.data.processors.open_processor import open_config
from pocketzoo.zoo.models.info import info
from pocketzoo.zoo.models.open_model import open_model
from pocketzoo.zoo.models.resolver import find_loader

NAME, REASON = "acme-thing", "the licence server was not found"
Ask = Callable[[Registry], object]


class Config:
    """Of no compressor here."""


def broken(kind: str) -> Registry:
    """What ships, and a plugin whose hook for one kind raises."""

    def fail() -> list[object]:
        raise RuntimeError(REASON)

    plugin = ModuleType("acme")
    setattr(plugin, f"pocketzoo_{kind}s", pocketzoo.hookimpl(fail))
    return Registry(create_manager(points=[], extra=[plugin]))


def repository(registry: Registry) -> object:
    given = Repository(repo_id="org/m", commit="b" * 40, library="acme", config={}, files={}, sizes={}, digests={})
    return find_loader(given, registry)


def described(kind: str, provider: str) -> Ask:
    return lambda registry: spec_of(Described(name=NAME, provider=provider), kind, registry)


def taken(provider: str) -> Ask:
    return lambda registry: find_compressor(
        StepRecord(compressor=NAME, provider=provider, config={}, plan={}), registry
    )


ASKS: list[tuple[str, str, Ask]] = [
    *((kind, "its name", lambda registry, kind=kind: registry.get(kind, NAME)) for kind in KINDS),
    *((kind, "info", lambda registry: info(NAME, registry=registry)) for kind in KINDS),
    *((kind, "a manifest", described(kind, "")) for kind in ("task", "decoder", "processor")),
    *((kind, "a manifest of it", described(kind, "acme 1.2.0")) for kind in ("task", "decoder", "processor")),
    ("backbone", "a model", lambda registry: open_model(NAME, registry=registry)),
    ("compressor", "a recipe", lambda registry: read_steps([{"kind": NAME}], "it", registry)),
    ("compressor", "a step", lambda registry: compressors_of([Step(NAME)], registry)),
    ("compressor", "a config", lambda registry: compressors_of([Config()], registry)),
    ("compressor", "a saved step", taken("")),
    ("compressor", "a saved step of it", taken("acme 1.2.0")),
    ("exporter", "--to", lambda registry: find_form(NAME, registry)),
    ("backend", "--to", lambda registry: find_form(NAME, registry)),
    ("backend", "a target", lambda registry: backend_named(NAME, registry)),
    ("backend", "--runtime", lambda registry: find_runtime(NAME, registry)),
    ("dataset", "--data", lambda registry: load_data(NAME, registry=registry)),
    ("loader", "a repository", repository),
    ("processor", "a config", lambda registry: open_config(Config(), registry=registry)),
]


@pytest.mark.parametrize(("kind", "way", "ask"), ASKS, ids=lambda value: value if isinstance(value, str) else "")
def test_the_reason_is_in_the_error(kind, way, ask):
    with pytest.raises(PocketzooError) as caught:
        ask(broken(kind))
    assert "acme" in str(caught.value)
    assert REASON in str(caught.value), str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("kind", KINDS)
def test_list_tells_it_too(kind, run, monkeypatch):
    monkeypatch.setattr("pocketzoo.zoo.catalog.registry.default_registry", lambda: broken(kind))
    result = run("list", "acme*", "--kind", kind)
    assert result.exit_code == 1
    assert REASON in result.stderr
