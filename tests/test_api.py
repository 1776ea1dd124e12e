"""``pocketzoo.api``: what is in it, that it is light, that examples, documents and written plugins need no more."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_startup import HEAVY

from pocketzoo import api
from pocketzoo.core import errors
from pocketzoo.workflows.new_plugin import new_plugin
from pocketzoo.zoo.catalog import hookspecs
from pocketzoo.zoo.catalog.kinds import KINDS

ROOT = Path(__file__).parents[1]
# Released. A name may be added; one that goes warns for a release before.
STABLE = [
    "hookimpl", "require", "check_field", "nearest", "PocketzooError", "RecipeError", "DataError",
    "HeadMismatchError", "UnsupportedModelError", "BackboneSpec", "HeadSpec", "DatasetSpec", "ExporterSpec",
    "TargetSpec", "LoaderSpec", "FeatureSpec", "InputSpec", "TextSpec", "Cut", "Weights", "PackageFile", "HubFile",
    "Repository", "Compressor", "ModuleCompressor", "GraphCompressor", "Distillation", "Samples", "EngineOptions",
    "ExportRequest", "PruneConfig", "LowRankConfig", "Int8Config", "PrunePlan", "LowRankPlan", "Int8Plan", "Array",
    "Dataset", "Split", "from_arrays", "Bundle", "read_bundle", "Manifest", "Registry", "Entry", "Plugin",
    "default_registry", "Progress", "SILENT", "load_state", "read_safetensors", "replacing_file",
    "check_conformance",
]  # fmt: skip


def imports(code: str) -> Iterator[str]:
    """Modules of pocketzoo that some source imports."""
    for node in ast.walk(ast.parse(code)):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        yield from (name for name in names if name.split(".")[0] == "pocketzoo")


def in_comments(code: str) -> str:
    """Statements that a reader is to uncomment."""
    return "\n".join(re.findall(r"# (from pocketzoo\S* import .*)", code))


@pytest.mark.parametrize("name", api.__all__)
def test_every_name_is_there(name):
    assert getattr(api, name) is not None


def test_what_was_released_is_still_there():
    assert set(STABLE) <= set(api.__all__)


def test_all_errors_and_all_kinds_of_specs_are_in_it():
    family = {n for n, v in vars(errors).items() if isinstance(v, type) and issubclass(v, errors.PocketzooError)}
    assert family <= set(api.__all__)
    specs = {f"{kind.capitalize()}Spec" for kind in KINDS} - {"CompressorSpec"}
    assert specs <= set(api.__all__)
    assert api.hookimpl is hookspecs.hookimpl


def test_names_are_listed_once_and_are_those_that_a_type_checker_sees():
    tree = ast.parse(Path(api.__file__).read_text("utf8"))
    seen, lazy = set(), set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pocketzoo."):
            seen |= {alias.name for alias in node.names}
        if isinstance(node, ast.If):
            lazy |= {(a.name, n.module) for n in node.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert lazy == set(api._LAZY.items())
    assert sorted(api.__all__) == sorted(seen | {name for name, _ in lazy})
    assert dir(api) == sorted(api.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'pocketzoo.api' has no attribute 'BackboneSpecs'"):
        _ = api.BackboneSpecs


def test_it_loads_nothing_heavy():
    code = f"import pocketzoo.api, sys; dir(pocketzoo.api); print([n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.py")), ids=lambda p: p.name)
def test_examples_import_nothing_else(path):
    code = path.read_text("utf8")
    assert {*imports(code), *imports(in_comments(code))} <= {"pocketzoo.api"}


def test_the_examples_are_found():
    assert len(list((ROOT / "examples").rglob("*.py"))) >= 2


def test_a_written_plugin_imports_nothing_else(tmp_path):
    folder = new_plugin("my-plugin", tmp_path / "my-plugin")
    found = set()
    for path in folder.rglob("*.py"):
        code = path.read_text("utf8")
        found |= {*imports(code), *imports(in_comments(code))}
    assert found == {"pocketzoo.api"}


def test_the_page_on_plugins_imports_nothing_else():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/plugins.md").read_text("utf8"), re.S)
    assert blocks
    assert {name for block in blocks for name in imports(block)} == {"pocketzoo.api"}


@pytest.mark.parametrize("plugin", ["targets"])
def test_the_conformance_suite_can_be_called(plugin):
    api.check_conformance(plugin)


def test_a_plugin_that_is_not_there_does_not_conform():
    with pytest.raises(AssertionError, match="no plugin is called 'nobodys'"):
        api.check_conformance("nobodys")
