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

from pocketzoo.core.keys import digest_of
from pocketzoo.zoo.bundles.bill_of_materials import packages
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


def test_what_ships_goes_by_our_version_and_those_below(registry, monkeypatch):
    before = plugin_source(registry, "tinynet")
    assert before == plugin_source(registry, "mlp") == f"pocketzoo {digest_of(packages())}"
    for package in ("pocketzoo", "torch"):
        monkeypatch.setattr("pocketzoo.zoo.bundles.plugin_source.packages", lambda p=package: packages() | {p: "0.0"})
        assert plugin_source(registry, "tinynet") != before


HELPERS = {
    "in a function": "def build():\n    from ownhelper import Net\n    return Net()\n",
    "at the top": "import json, ownhelper as h\ndef build():\n    return h.Net()\n",
    "by name": "from importlib import import_module\ndef build():\n    return import_module('ownhelper').Net()\n",
    "of a helper": "def build():\n    import ownmiddle\n    return ownmiddle.Net()\n",
    "in a partial": "import functools, ownmiddle\nbuild = functools.partial(ownmiddle.call, 1)\n",
}


@pytest.mark.parametrize("text", HELPERS.values(), ids=HELPERS)
@pytest.mark.parametrize("package", [False, True])
def test_what_stands_beside_and_is_imported_counts(tmp_path, text, package):
    """One module that has the plugin, and another beside it; edited under one version, which nobody says."""
    plugin = dedent(PLUGIN.format(package="ownplugin")).partition("def build")[0] + text
    rest = dedent(PLUGIN.format(package="ownplugin")).partition("@hookimpl")
    (tmp_path / "ownplugin.py").write_text(plugin + "".join(rest[1:]))
    (tmp_path / "ownmiddle.py").write_text("from ownhelper import Net\ndef call(x):\n    return Net()\n")
    helper = tmp_path / "ownhelper" / "__init__.py" if package else tmp_path / "ownhelper.py"
    helper.parent.mkdir(exist_ok=True)
    helper.write_text("class Net:\n    pass\n")
    settle(tmp_path)
    before = asked(tmp_path)
    assert before == asked(tmp_path)
    helper.write_text("class Net:\n    x = 1\n")
    settle(tmp_path)
    assert asked(tmp_path) != before


def test_a_library_that_is_installed_to_be_edited_counts_by_its_files(tmp_path):
    """Its source tree has metadata of its own, which keep their version."""
    text = dedent(PLUGIN.format(package="ownplugin")).replace("from ownplugin.net import Net", "from edited import Net")
    (tmp_path / "ownplugin.py").write_text(text)
    (tmp_path / "edited.py").write_text("class Net:\n    pass\n")
    info = tmp_path / "edited.egg-info"
    info.mkdir()
    (info / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: edited\nVersion: 1.0\n")
    (info / "top_level.txt").write_text("edited\n")
    settle(tmp_path)
    before = asked(tmp_path)
    (tmp_path / "edited.py").write_text("class Net:\n    x = 1\n")
    settle(tmp_path)
    assert asked(tmp_path) != before


def test_all_of_its_distribution_counts_and_of_another_the_version(tmp_path):
    def info(name, version, *modules):
        place = tmp_path / f"{name}.dist-info"
        place.mkdir(exist_ok=True)
        (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (place / "RECORD").write_text("".join(f"{module}.py,,\n" for module in modules))

    asks = dedent(ASKS).replace("Registry(create_manager([], extra=[module]))", "Registry(create_manager())")
    asks = asks.replace("module = importlib", "importlib")

    def said():
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-c", asks, str(tmp_path)]
        return subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout

    info("own", "1.0", "ownplugin", "ownother")
    (tmp_path / "own.dist-info" / "entry_points.txt").write_text("[pocketzoo]\nown = ownplugin\n")
    info("Foreign-Name", "2.0", "foreign")
    text = dedent(PLUGIN.format(package="ownplugin")).replace("from ownplugin.net import Net", "import foreign as Net")
    (tmp_path / "ownplugin.py").write_text(text)
    (tmp_path / "ownother.py").write_text("x = 1\n")
    (tmp_path / "foreign.py").write_text("x = 1\n")
    settle(tmp_path)
    keys = [said()]
    assert keys == [said()]
    (tmp_path / "foreign.py").write_text("x = 2\n")  # nobody edits what is installed for good
    settle(tmp_path)
    assert keys == [said()]
    info("Foreign-Name", "2.1", "foreign")
    keys.append(said())
    (tmp_path / "ownother.py").write_text("x = 2\n")  # read by what no import tells
    settle(tmp_path)
    keys.append(said())
    info("own", "1.1", "ownplugin", "ownother")
    keys.append(said())
    assert len(set(keys)) == 4
