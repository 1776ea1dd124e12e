"""Modules under their old names: every name they had is there, found lazily, and one warning says where it is now."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from pocketzoo.core.former_names import names_before
from pocketzoo.core.moved import GONE, MOVED, RENAMED, new_modules

ROOT = Path(__file__).parents[2] / "pocketzoo"
# Every module of the last release, and what it defined without an underscore. Names are only ever added to this file.
OLD: dict[str, list[str]] = json.loads((Path(__file__).parents[1] / "old_names.json").read_text("utf8"))
# Shown in the documents of that release: they stay, and say nothing.
TAUGHT = ("pocketzoo.errors", "pocketzoo.zoo.specs", "pocketzoo.plugins.hookspecs", "pocketzoo.deploy.tensorrt")
PACKAGES = ("compress.pipeline", "deploy.check", "deploy.triton", "train.augment", "zoo.data", "zoo.hub")  # now folders


def file_of(module: str) -> Path:
    path = ROOT.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def bound(body: list[ast.stmt]) -> set[str]:
    """What a module's top level defines or imports."""
    found: set[str] = set()
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {alias.asname or alias.name for alias in node.names}
        else:
            found |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            for part in ("body", "orelse"):
                found |= bound(getattr(node, part, []))
    return found


def python(code: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", OLD)
def test_every_old_name_is_somewhere(module):
    """Read from the source, so that what needs a package that is not installed here is held as well."""
    files = [file_of(new) for new in new_modules(module) or (module,)]
    here = set().union(*[bound(ast.parse(path.read_text("utf8")).body) for path in files])
    renamed = {old: new for (place, old), new in RENAMED.items() if f"pocketzoo.{place}" == module}
    if module == "pocketzoo":
        here |= set(import_module("pocketzoo")._PUBLIC)
    gone = {name for place, name in GONE if f"pocketzoo.{place}" == module}
    assert {renamed.get(name, name) for name in OLD[module] if name not in gone} <= here
    assert gone <= set(OLD[module])
    for name in gone:
        instead = GONE[module.removeprefix("pocketzoo."), name]
        with warnings.catch_warnings(action="ignore"), pytest.raises(AttributeError, match=instead):
            getattr(import_module(module), name)


def test_the_table_has_no_row_for_what_did_not_move():
    assert {f"pocketzoo.{old}" for old in MOVED} <= set(OLD)
    assert {name for name, _ in RENAMED} <= {module.removeprefix("pocketzoo.") for module in OLD}
    files = {old for old in MOVED if file_of(f"pocketzoo.{old}").exists()}
    assert files == set(PACKAGES), "a file would be found before its row is looked at"


@pytest.mark.slow
def test_every_old_module_imports_with_every_name_and_one_warning():
    code = """
import json, sys, warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
old, packages = json.loads(Path(sys.argv[1]).read_text("utf8")), sys.argv[2].split()
from pocketzoo.core.moved import GONE, RENAMED
for module, names in old.items():
    names = [name for name in names if (module.removeprefix("pocketzoo."), name) not in GONE]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            found = import_module(module)
        except ModuleNotFoundError as error:
            if error.name.startswith("pocketzoo"):
                raise
            continue  # a package that the module needs is not installed
        importing = [str(w.message) for w in said if "has moved" in str(w.message)]
        for name in names:
            getattr(found, name)
            exec(f"from {module} import {name}", {})
    told = [w for w in said if "works for one release" in str(w.message)]
    assert all(w.category is DeprecationWarning for w in told)
    is_package = module.removeprefix("pocketzoo.") in packages
    moved = find_spec(module).origin.startswith("pocketzoo.")
    assert len(importing) == moved, (module, importing)
    renamed = [n for n in names if (module.removeprefix("pocketzoo."), n) in RENAMED]
    expected = len(names) if is_package else moved or len(renamed)
    assert len(told) == expected, (module, [str(w.message) for w in told])
    print(module, moved)
"""
    code = code.replace("sys.argv[1]", repr(str(Path(__file__).parents[1] / "old_names.json")))
    lines = python(code.replace("sys.argv[2]", repr(" ".join(PACKAGES)))).splitlines()
    assert sum(line.endswith(" True") for line in lines) > 150


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("from pocketzoo.zoo.registry import Registry", "pocketzoo.zoo.registry has moved to pocketzoo.zoo.catalog."),
        ("from pocketzoo.zoo import kinds", "pocketzoo.zoo.kinds has moved to pocketzoo.zoo.catalog.kinds;"),
        ("import pocketzoo.plugins.manager as m; m.BUILT_IN", "pocketzoo.plugins.manager has moved to"),
        (
            "from pocketzoo.zoo.bundle import Manifest, Bundle",
            "pocketzoo.zoo.bundles.manifest and pocketzoo.zoo.bundles",
        ),
        ("from pocketzoo.zoo.data import Dataset", "Dataset of pocketzoo.zoo.data has moved to pocketzoo.zoo.catalog."),
        ("from pocketzoo.compress.pipeline import SECONDS", "to pocketzoo.compress.pipeline.compress_model;"),
        ("from pocketzoo.zoo.trust import *; sign", "pocketzoo.zoo.trust has moved to pocketzoo.zoo.bundles.signing;"),
    ],
)
def test_the_warning_points_at_the_line_that_imports(statement, text):
    code = f"""
import warnings
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    exec(compile({statement!r}, "plugin.py", "exec"), {{}})
    exec(compile({statement!r}, "plugin.py", "exec"), {{}})
(one,) = [w for w in said if "has moved" in str(w.message)]
print(one.filename, one.lineno, one.category.__name__, one.message)
"""
    said = python(code)
    assert said.startswith("plugin.py 1 DeprecationWarning ")
    assert text in said
    assert "works for one release" in said


@pytest.mark.parametrize("module", TAUGHT)
def test_what_the_documents_taught_warns_of_nothing(module):
    names = ", ".join(OLD[module])
    assert python(f"from {module} import {names}", "-W", "error") == ""


def test_a_name_that_changed_in_a_module_that_stays_is_found_and_said_once(monkeypatch):
    module = ModuleType("pocketzoo.stays")
    module.Distill = object()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(RENAMED, ("stays", "Heal"), "Distill")
    module.__getattr__ = names_before(module.__name__)
    with pytest.warns(DeprecationWarning, match=r"Heal of pocketzoo.stays is called Distill now, in pocketzoo.stays; "):
        assert module.Heal is module.Distill
    assert module.Heal is module.Distill, "no second warning, which would be an error here"
    for name in ("Nothing", "__all__", "__path__"):
        with pytest.raises(AttributeError, match=f"'pocketzoo.stays' has no attribute '{name}'"):
            getattr(module, name)


def test_compress_is_the_same_function_by_either_path_and_its_module_stays_one():
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from pocketzoo.compress.pipeline import checkpoints, compress, graph_scores\n"
        "import pocketzoo.compress.pipeline.compress_model as new\n"
        "print(compress is new.compress, type(graph_scores).__name__, type(checkpoints).__name__)"
    )
    assert python(code) == "True module module\n"


def test_an_old_path_loads_nothing_until_a_name_is_used():
    code = (
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "import pocketzoo.zoo.graph, pocketzoo.compress.lowrank, pocketzoo.zoo.data, pocketzoo.zoo.bundle\n"
        "print([n for n in ('torch', 'onnx', 'numpy') if n in sys.modules])"
    )
    assert python(code) == "[]\n"


@pytest.mark.parametrize("name", ["pocketzoo.zoo.registri", "pocketzoo.zoo.nothing", "pocketzoo.nothing.below"])
def test_what_never_was_is_not_found(name):
    with pytest.raises(ModuleNotFoundError, match=name.rpartition(".")[0] if "below" in name else name):
        import_module(name)


def test_a_name_that_no_module_had_is_an_import_error():
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "for module in ('pocketzoo.zoo.registry', 'pocketzoo.zoo.hub'):\n"
        "    try:\n"
        "        exec(f'from {module} import nothing')\n"
        "    except ImportError as error:\n"
        "        print(error.name)\n"
    )
    assert python(code) == "pocketzoo.zoo.registry\npocketzoo.zoo.hub\n"
