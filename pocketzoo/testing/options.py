"""The option --plugin, as a pytest plugin of its own: pytest reads options before it finds the suite's conftest."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --plugin."""
    parser.getgroup("pocketzoo").addoption(
        "--plugin",
        action="append",
        default=[],
        dest="pocketzoo_plugins",
        metavar="NAME",
        help="With --pyargs pocketzoo.testing: check this plugin alone, by its entry point; may be repeated.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a name that no plugin has before anything runs."""
    if names := selected(config):
        from pocketzoo.core.errors import nearest
        from pocketzoo.zoo.catalog.registry import default_registry

        known = [plugin.name for plugin in default_registry().manager.plugins]
        for name in names:
            if name not in known:
                raise pytest.UsageError(f"no plugin is called {name!r} ({nearest(name, known)}); see pocketzoo plugins")


def selected(config: pytest.Config) -> list[str]:
    """The names that --plugin gave, each once or with commas between; empty for all plugins."""
    values: list[str] = config.getoption("pocketzoo_plugins", default=[])
    return [name.strip() for part in values for name in part.split(",") if name.strip()]
