from __future__ import annotations

import re
import sys
from fractions import Fraction
from importlib.metadata import metadata
from pathlib import Path

import numpy
import pytest

import pocketzoo
from pocketzoo.core.errors import MissingDependencyError
from pocketzoo.core.optional import lazily, not_installed, require, version_of_first


@pytest.mark.parametrize("name", ["json", "importlib.metadata", "PIL.Image", "sklearn.datasets"])
def test_what_is_installed_is_imported(name):
    assert require(name, extra="x") is sys.modules[name]


@pytest.mark.parametrize("extra", ["data", "compress", "tensorrt-rtx"])
@pytest.mark.parametrize("name", ["surely_not_installed", "surely_not_installed.deep.inside"])
def test_what_is_missing_is_named_with_the_line_that_installs_it(refused, name, extra):
    with refused(MissingDependencyError, repr(name), "not installed", hint=f"pip install 'pocketzoo[{extra}]'"):
        require(name, extra=extra)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("tensorrt_rtx", "'pocketzoo[tensorrt-rtx]'"),
        ("PIL.Image", "'pocketzoo[data]'"),
        ("numpy", "'pocketzoo'"),
        ("acme_builder", "acme_builder"),  # of a plugin: no extra brings it
    ],
)
def test_without_an_extra_the_table_says_which_brings_it(name, line):
    error = not_installed(name)
    assert repr(name) in error.message
    assert error.hint == f"pip install {line}"


def test_the_error_is_an_import_error_with_its_cause():
    with pytest.raises(ImportError) as caught:
        require("surely_not_installed", extra="x")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_package_that_is_there_but_lacks_one_of_its_own_explains_itself(tmp_path, monkeypatch):
    (tmp_path / "needs_another.py").write_text("import surely_not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="surely_not_installed") as caught:
        require("needs_another", extra="x")
    assert not isinstance(caught.value, MissingDependencyError)


@pytest.mark.parametrize("body", ["raise ImportError('libcuda.so.1: cannot open')", "raise OSError('broken library')"])
def test_a_package_that_is_there_but_broken_explains_itself(tmp_path, monkeypatch, body):
    (tmp_path / "is_broken.py").write_text(f"{body}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises((ImportError, OSError), match=r"cannot open|broken library") as caught:
        require("is_broken", extra="x")
    assert not isinstance(caught.value, MissingDependencyError)


def extras_named_in_the_source() -> set[str]:
    source = "\n".join(path.read_text("utf8") for path in Path(pocketzoo.__file__).parent.rglob("*.py"))
    return set(re.findall(r'extra="([^"]+)"', source)) | set(re.findall(r"pocketzoo\[([\w-]+)\]", source))


@pytest.mark.parametrize("extra", sorted(extras_named_in_the_source()))
def test_every_extra_a_hint_names_exists(extra):
    assert extra in metadata("pocketzoo").get_all("Provides-Extra")


def test_what_is_named_is_imported_when_it_is_called():
    made = lazily("fractions", "Fraction")
    assert made(3, 6) == Fraction(1, 2)
    assert lazily("fractions", "Fraction") is made
    absent = lazily("pocketzoo.nowhere", "Thing")  # nothing happens yet
    with pytest.raises(ModuleNotFoundError, match=r"pocketzoo\.nowhere"):
        absent()


def test_the_version_is_of_the_first_that_is_installed():
    assert version_of_first("no-such-distribution", "numpy", "click") == numpy.__version__
    assert version_of_first("no-such-distribution") == version_of_first() == ""
