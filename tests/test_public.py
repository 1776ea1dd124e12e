"""What ``import pocketzoo`` offers: names resolved on first use, packages that can be called, silent progress."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
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
def test_the_signature_of_a_verb_shows_its_typed_arguments(name):
    signature = inspect.signature(getattr(pocketzoo, name))
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty
        assert parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD), "named parameters only"


@pytest.mark.parametrize(
    ("name", "module", "function"),
    [
        ("compress", "pocketzoo.compress.pipeline.compress_model", "compress"),
        ("plugins", "pocketzoo.zoo.catalog.registry", "list_plugins"),
    ],
)
def test_a_package_has_signature_and_docstring_of_what_it_calls(name, module, function):
    package, called = getattr(pocketzoo, name), getattr(import_module(module), function)
    assert inspect.signature(package) == inspect.signature(called)
    assert inspect.getdoc(package) == inspect.getdoc(called)


def test_the_docstring_of_compress_names_every_argument():
    text = inspect.getdoc(pocketzoo.compress)
    described = re.findall(r"^    (\w+): .", text[text.index("Args:") : text.index("Raises:")], re.M)
    assert described == [*inspect.signature(pocketzoo.compress).parameters]


# -- what type checkers and editors see


def test_a_type_checker_is_shown_what_is_there():
    """All public names, each from the module and under the name that ``_PUBLIC`` has, and the two packages."""
    tree = ast.parse(Path(pocketzoo.__file__).read_text("utf8"))
    (block,) = [n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    found, aliases = {}, {}
    for node in block.body:
        if isinstance(node, ast.ImportFrom) and node.module.startswith("pocketzoo."):
            for alias in node.names:
                assert alias.asname in (None, alias.name)
                found[alias.name] = (node.module, alias.name), alias.asname
        elif isinstance(node, ast.Assign):
            aliases[node.targets[0].id] = node.value.id
    shown = {name: place for name, (place, exported) in found.items() if exported}
    shown |= {name: found[value][0] for name, value in aliases.items()}
    packages = {name: shown.pop(name) for name in ("compress", "plugins")}
    assert shown == pocketzoo._PUBLIC
    for name, (module, function) in packages.items():
        assert inspect.signature(getattr(pocketzoo, name)) == inspect.signature(
            getattr(import_module(module), function)
        )


SNIPPETS = """
from pathlib import Path
import pocketzoo
from pocketzoo.api import BackboneSpec, Bundle, Entry, PruneConfig, Plugin, hookimpl
from pocketzoo.compress.configs import Int8Config

bundle: Bundle = pocketzoo.fit("tinynet", "out", data="digits", epochs=3)
number: int = pocketzoo.fit("tinynet", "out", data="digits")  # E: assignment
pocketzoo.fit("tinynet", data="digits")  # E: call-arg
pocketzoo.fit("tinynet", "out", data="digits", epochs="3")  # E: arg-type
pocketzoo.fti("tinynet", "out", data="digits")  # E: attr-defined
small: Bundle = pocketzoo.compress(bundle.path, "out", data="digits", steps=[PruneConfig(ratio=0.3), Int8Config()])
pocketzoo.compress("fitted", "out", dta="digits")  # E: call-arg
pocketzoo.compress("fitted", "out", data="digits", samples="all")  # E: arg-type
text: str = pocketzoo.compress("fitted", "out", data="digits")  # E: assignment
small.pth  # E: attr-defined
entries: list[Entry] = pocketzoo.list("tiny*")
pocketzoo.list(3)  # E: arg-type
names: list[str] = [plugin.name for plugin in pocketzoo.plugins()]
pocketzoo.plugins(3)  # E: arg-type
pocketzoo.eval(bundle.path, data="digits")
pocketzoo.eval(bundle.path, dat="digits")  # E: call-arg
pocketzoo.verify(Path("fitted")).manifest.name
pocketzoo.verify()  # E: call-arg
PruneConfig(ratoi=0.5)  # E: call-arg
import pocketzoo.compress.plans
pocketzoo.compress("fitted", Path("out"), data="digits", recipe="int8.toml")
from pocketzoo import compress, plugins
compress("fitted", "out", dta="digits")  # E: call-arg
plugin: Plugin = plugins()[0]
from pocketzoo.api import BackboneSpek  # E: attr-defined
from pocketzoo.zoo.data import Dtaset  # E: attr-defined

@hookimpl
def pocketzoo_backbones() -> list[BackboneSpec]:
    return ["tinynet"]  # E: list-item
"""


@pytest.mark.slow
def test_a_type_checker_passes_right_calls_and_names_wrong_ones(tmp_path):
    pytest.importorskip("mypy")
    path, root = tmp_path / "snippets.py", Path(pocketzoo.__file__).parents[1]
    path.write_text(SNIPPETS.lstrip("\n"))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", root / "pyproject.toml", "--follow-imports=silent",
         "--cache-dir", tmp_path / "cache", "--no-error-summary", "--hide-error-context", "--no-pretty", path],
        capture_output=True, text=True, timeout=900, check=False, cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(root)},
    )  # fmt: skip
    said = {(int(m[1]), m[2]) for m in re.finditer(r"snippets.py:(\d+): error: .* \[([a-z-]+)\]", done.stdout)}
    lines = enumerate(path.read_text("utf8").splitlines(), start=1)
    assert said == {(number, m[1]) for number, line in lines if (m := re.search(r"# E: ([a-z-]+)$", line))}, done.stdout


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
