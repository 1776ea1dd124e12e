"""What stands for a plugin's code in keys: it changes with every file of the package, and stays where nothing did."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest

from pocketzoo.core.version import __version__
from pocketzoo.zoo.bundles.plugin_source import plugin_source
from pocketzoo.zoo.catalog.hookspecs import hookimpl
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry

PLUGIN = """
    from pocketzoo import hookimpl
    from pocketzoo.zoo.specs import BackboneSpec, FeatureSpec, InputSpec

    def build():
        from {package}.net import Net
        return Net()

    @hookimpl
    def pocketzoo_backbones():
        return [BackboneSpec(name="own", summary="own", license="MIT",
                             input=InputSpec(shape=("batch", 1, 8, 8), mean=(0.5,), std=(0.5,), resize=8),
                             features=FeatureSpec("vector", (4,)), build=build)]
"""
ASKS = """
    import sys, importlib
    sys.path[:0] = sys.argv[1:]
    from pocketzoo.zoo.catalog.plugin_manager import create_manager
    from pocketzoo.zoo.catalog.registry import Registry
    from pocketzoo.zoo.bundles.plugin_source import plugin_sources
    module = importlib.import_module("ownplugin")
    registry = Registry(create_manager([], extra=[module]))
    print(plugin_sources(registry, registry.entry("backbone", "own")))
"""


def asked(*folders: Path) -> str:
    """The plugin's source as a process says that begins now."""
    command = [sys.executable, "-c", dedent(ASKS), *map(str, folders)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout


@pytest.fixture
def package(tmp_path):
    """As it is installed: below a folder whose name is left out where it stands inside a package."""
    folder = tmp_path / ".venv" / "lib" / "ownplugin"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text(dedent(PLUGIN.format(package="ownplugin")))
    (folder / "net.py").write_text("class Net:\n    pass\n")
    (folder / "data" / "labels.txt").write_text("a\nb\n")
    settle(tmp_path)
    return folder


def settle(folder: Path) -> None:
    """Written long before any process that reads it began."""
    for path in folder.rglob("*"):
        os.utime(path, (1.7e9, 1.7e9))


@pytest.mark.parametrize("file", ["__init__.py", "net.py", "data/labels.txt", "new.py"])
def test_every_file_of_the_package_counts(package, file):
    before = asked(package.parent)
    assert before == asked(package.parent)
    path = package / file
    path.write_text((path.read_text() if path.exists() else "") + "\n")
    settle(package)
    assert asked(package.parent) != before


def test_what_python_writes_alongside_does_not_count(package):
    before = asked(package.parent)
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "net.cpython-311.pyc").write_bytes(b"x")
    (package / ".git").mkdir()
    (package / ".git" / "HEAD").write_text("x")
    assert asked(package.parent) == before


def test_a_plugin_of_one_file_and_what_it_builds_by(tmp_path):
    """The module that has the plugin is one file, and its network is of another package."""
    (tmp_path / "ownnets").mkdir()
    (tmp_path / "ownnets" / "__init__.py").write_text("")
    (tmp_path / "ownnets" / "net.py").write_text("class Net:\n    pass\n\ndef build():\n    return Net()\n")
    text = dedent(PLUGIN.format(package="ownnets")).replace("def build():", "def unused():")
    (tmp_path / "ownplugin.py").write_text("from ownnets.net import build\n" + text)
    (tmp_path / "unrelated.py").write_text("")
    settle(tmp_path)
    before = asked(tmp_path)
    (tmp_path / "unrelated.py").write_text("x = 1")
    settle(tmp_path)
    assert asked(tmp_path) == before
    (tmp_path / "ownnets" / "net.py").write_text("class Net:\n    x = 1\n\ndef build():\n    return Net()\n")
    settle(tmp_path)
    assert asked(tmp_path) != before


def test_edited_while_it_runs_is_no_other_process_s(package):
    """What a process has imported may be what the file was before."""
    os.utime(package / "net.py", (time.time() + 0.0, time.time() + 0.0))
    code = dedent(ASKS).replace("print(", "import pathlib, os; os.utime(sys.argv[1] + '/ownplugin/net.py'); print(")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "PYTHONDONTWRITEBYTECODE": "1"}
    said = [
        subprocess.run(
            [sys.executable, "-c", code, str(package.parent)], env=env, capture_output=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert said[0] != said[1]


def test_a_module_in_memory_has_a_source_of_its_own():
    def registry():
        module = ModuleType("in_memory")
        module.pocketzoo_backbones = hookimpl(lambda: [])
        module.pocketzoo_backbones.__name__ = "pocketzoo_backbones"
        return Registry(create_manager([], extra=[module]))

    first, second = registry(), registry()
    assert plugin_source(first, "in_memory") == plugin_source(first, "in_memory") != plugin_source(second, "in_memory")


def test_what_ships_goes_by_our_version(registry):
    assert plugin_source(registry, "tinynet") == plugin_source(registry, "mlp") == f"pocketzoo {__version__}"
