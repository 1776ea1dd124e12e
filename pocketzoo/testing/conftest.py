"""Each check runs over the specs of its kind: a test that asks for ``backbone`` runs once for each backbone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from pocketzoo.core.errors import DuplicateNameError
from pocketzoo.testing.options import selected
from pocketzoo.testing.subjects import Backbone
from pocketzoo.zoo.catalog.kinds import KINDS
from pocketzoo.zoo.catalog.plugin_manager import Plugin
from pocketzoo.zoo.catalog.registry import Entry, Registry, default_registry


def entries(config: pytest.Config, kind: str) -> list[Entry]:
    """What the selected plugins declare of one kind."""
    names = selected(config)
    try:
        registered = default_registry().entries(kind).values()
    except DuplicateNameError:  # test_plugins.py says so
        return []
    return [entry for entry in registered if not names or entry.plugin in names]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the checks of kinds that the plugin has nothing of."""
    kind = collection_path.stem.removeprefix("test_").removesuffix("s")
    return True if kind in KINDS and not entries(config, kind) else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each spec, or each plugin."""
    config = metafunc.config
    for kind in KINDS:
        if kind in metafunc.fixturenames:
            subjects = entries(config, kind)
            # Of module scope: all checks of one backbone run together, so that it is built once.
            ids = [entry.name for entry in subjects]
            metafunc.parametrize(kind, subjects, indirect=kind == "backbone", ids=ids, scope="module")
    every = [entry for kind in KINDS for entry in entries(config, kind)]
    groups = {
        "entry": every,
        "licensed": [entry for entry in every if hasattr(entry.spec, "license")],
        "pretrained": [entry for entry in every if getattr(entry.spec, "weights", None) is not None],
    }
    for name in groups.keys() & set(metafunc.fixturenames):
        ids = [f"{entry.kind} {entry.name}" for entry in groups[name]]
        metafunc.parametrize(name, groups[name], ids=ids)
    if "plugin" in metafunc.fixturenames:
        names = selected(config)
        plugins = [plugin for plugin in _plugins() if not names or plugin.name in names]
        metafunc.parametrize("plugin", plugins, ids=[plugin.name for plugin in plugins])


def _plugins() -> tuple[Plugin, ...]:
    registry = default_registry()
    try:
        return registry.plugins()
    except DuplicateNameError:
        return registry.manager.plugins


@pytest.fixture(scope="session", autouse=True)
def quiet() -> Iterator[None]:
    """Keep torch's own trace, thousands of empty lines, out of what pytest shows of a failed check."""
    trace = logging.getLogger("torch.__trace")
    before, trace.propagate = trace.propagate, False
    yield
    trace.propagate = before


@pytest.fixture(scope="session")
def registry() -> Registry:
    """Everything that is registered in this environment."""
    return default_registry()


@pytest.fixture(scope="module")
def backbone(request: pytest.FixtureRequest, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A backbone, built when a check first asks for its module."""
    return Backbone(request.param.spec, registry, tmp_path_factory.mktemp("graphs"))


@pytest.fixture(scope="session")
def tinynet(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """The backbone that ships, which compressors and exporters are tried on."""
    return Backbone(registry.get("backbone", "tinynet"), registry, tmp_path_factory.mktemp("tinynet"))
