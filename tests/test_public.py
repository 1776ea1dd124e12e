"""What ``import pocketzoo`` offers: names resolved on first use, packages that can be called, silent progress."""

from __future__ import annotations

import inspect
import subprocess
import sys
from types import ModuleType

import pytest

import pocketzoo
from pocketzoo.core.errors import BundleError
from pocketzoo.core.progress import SILENT

NAMES = [name for name in pocketzoo.__all__ if name != "__version__"]
VERBS = [name for name in NAMES if name not in ("hookimpl", "Registry")]


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_resolves(name):
    assert callable(getattr(pocketzoo, name))


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_has_a_docstring(name):
    assert inspect.getdoc(getattr(pocketzoo, name))


@pytest.mark.parametrize("name", ["pretrain", "Bundle", "__wrapped__", "lst"])
def test_an_unknown_name_is_an_attribute_error(name):
    with pytest.raises(AttributeError, match=f"module 'pocketzoo' has no attribute '{name}'"):
        getattr(pocketzoo, name)
    assert not hasattr(pocketzoo, name)


def test_dir_lists_every_public_name():
    assert set(pocketzoo.__all__) <= set(dir(pocketzoo))
    assert dir(pocketzoo) == sorted(dir(pocketzoo))
    assert len(set(pocketzoo.__all__)) == len(pocketzoo.__all__)


def test_the_version_is_the_installed_one():
    from importlib.metadata import version

    assert pocketzoo.__version__ == version("pocketzoo")


@pytest.mark.parametrize("name", ["compress", "plugins"])
def test_a_package_stays_callable_after_its_modules_are_imported(name):
    code = (
        f"import pocketzoo; before = pocketzoo.{name}; assert callable(before)\n"
        f"import pocketzoo.compress.configs, pocketzoo.zoo.catalog.hookspecs\n"
        f"assert pocketzoo.{name} is before and callable(pocketzoo.{name})\n"
        f"from pocketzoo import {name}; assert {name} is before"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["compress", "plugins"])
def test_a_callable_package_is_still_a_module(name):
    package = getattr(pocketzoo, name)
    assert isinstance(package, ModuleType)
    assert package.__name__ == f"pocketzoo.{name}"
    assert package.__path__
    assert inspect.getdoc(package)


def test_calling_plugins_lists_them(registry):
    found = pocketzoo.plugins(registry)
    assert found == registry.plugins()
    assert {"tinynet", "heads"} <= {plugin.name for plugin in found}


def test_calling_a_package_passes_arguments_and_errors_on(registry, tmp_path):
    with pytest.raises(TypeError, match="unexpected keyword argument 'ratio'"):
        pocketzoo.compress("tinynet", tmp_path / "out", data="digits", ratio=0.5)
    with pytest.raises(BundleError):
        pocketzoo.compress(tmp_path / "nothing", tmp_path / "out", data="digits", registry=registry)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", VERBS)
def test_every_parameter_of_a_verb_is_typed(name):
    function = getattr(pocketzoo, name)
    if isinstance(function, ModuleType):
        places = {"compress": "pocketzoo.compress.pipeline.compress_model", "plugins": "pocketzoo.zoo.catalog.registry"}
        function = places[name]
        module = __import__(function, fromlist=["x"])
        function = getattr(module, {"compress": "compress", "plugins": "list_plugins"}[name])
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty
        assert parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD), "named parameters only"


@pytest.mark.parametrize("items", [[], [1, 2, 3], range(2), iter("ab")])
def test_silent_progress_gives_the_items_and_prints_nothing(items, capsys):
    wanted = [*items] if not hasattr(items, "__next__") else ["a", "b"]
    assert [*SILENT.track(items, "label", 3)] == wanted
    SILENT.say("text")
    assert capsys.readouterr() == ("", "")


def test_silent_progress_asks_for_one_item_at_a_time():
    asked = []

    def items():
        for i in range(3):
            asked.append(i)
            yield i

    next(iter(SILENT.track(items(), "label")))
    assert asked == [0]
