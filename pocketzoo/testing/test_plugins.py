"""Conformance of a plugin as a whole: it loads, declares something, and is cheap to list."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from pocketzoo.core.errors import DuplicateNameError
from pocketzoo.core.optional import EXTRAS
from pocketzoo.testing.checks import wrong
from pocketzoo.zoo.catalog.kinds import KINDS
from pocketzoo.zoo.catalog.plugin_manager import Plugin
from pocketzoo.zoo.catalog.registry import Registry

# Lists everything in a process of its own, then says which of the packages that extras bring it loaded.
LIST = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from pocketzoo.core.errors import PocketzooError
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.kinds import KINDS
from pocketzoo.zoo.catalog.registry import Registry
registry = Registry(create_manager())
try:
    for kind in KINDS:
        registry.entries(kind)
except PocketzooError as error:
    sys.exit(error.message)  # the last line on stderr is the reason
print(json.dumps([name for name in json.loads(sys.argv[2]) if name in sys.modules]))
"""


def test_it_loads(plugin: Plugin) -> None:
    """It was imported, and no hook failed when it was asked."""
    if plugin.reason.startswith("turned off"):
        pytest.skip(plugin.reason)
    if plugin.reason:
        wrong(f"plugin {plugin.name!r} is not in use: {plugin.reason}", "mend what the reason names")


def test_it_declares_something(plugin: Plugin, registry: Registry) -> None:
    """At least one spec."""
    if plugin.reason:
        pytest.skip("it is not in use (see test_it_loads)")
    try:
        declared = [name for kind in KINDS for name, e in registry.entries(kind).items() if e.plugin == plugin.name]
    except DuplicateNameError:
        pytest.skip("a name is declared twice (see test_no_name_is_declared_twice)")
    if not declared:
        wrong(f"plugin {plugin.name!r} declares nothing", "return at least one spec from one of its hooks")


@pytest.mark.parametrize("kind", KINDS)
def test_no_name_is_declared_twice(kind: str, registry: Registry) -> None:
    """Not in one plugin, and not in two that are installed here."""
    try:
        registry.entries(kind)
    except DuplicateNameError as error:
        wrong(error.message, f"rename yours: put the plugin's name in front of it ({error.hint})")


def test_listing_it_imports_nothing_heavy(plugin: Plugin) -> None:
    """``pocketzoo list`` calls every hook, and must stay quick."""
    if plugin.reason:
        pytest.skip("it is not in use (see test_it_loads)")
    admitted = "" if plugin.origin == "pocketzoo" else plugin.name
    done = subprocess.run(
        [sys.executable, "-c", LIST, json.dumps(sys.path), json.dumps(list(EXTRAS))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "POCKETZOO_PLUGINS": admitted},
    )
    if done.returncode:
        wrong(f"listing {plugin.name!r} alone fails: {done.stderr.strip().splitlines()[-1]}", "mend the hook it names")
    if loaded := json.loads(done.stdout.splitlines()[-1]):
        wrong(
            f"listing {plugin.name!r} imports {', '.join(loaded)}",
            "import heavy packages inside build, load, read, plan and apply, not at the top of the module",
        )
