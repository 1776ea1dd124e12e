"""Who may import whom, read from the source with ``ast``: rooms in one order, no circles, nothing too large.

A room is a folder of ``pocketzoo/``. It may import itself and the rooms above it in ``ROOMS``; all imports count, those
in functions and under ``TYPE_CHECKING`` included. What breaks a rule today is listed in ``layers.json`` and may only
become less: a new violation fails, and so does an entry that is none any more.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "pocketzoo"
DATA = json.loads((Path(__file__).parent / "layers.json").read_text("utf8"))

ROOMS = [
    "core", "core/untrusted",
    "core", "core/reading",
    "zoo/catalog", "zoo", "zoo/graphs", "zoo/graphs/files", "zoo/graphs/foreign", "zoo/graphs/rewriting",
    "zoo/backends/onnxruntime", "zoo/hub", "zoo/bundles",
    "zoo/data/processors", "zoo/data/grouping", "zoo/data",
    "zoo/modules", "zoo/models",
    "zoo/backends/tensorrt", "zoo/backends/torch", "zoo/backends",
    "zoo/tasks/decoders", "zoo/tasks/metrics", "zoo/tasks/training", "zoo/tasks",
    "zoo/artifacts",
    "measure",
    "train/distributed", "train/augment", "train", "train/agents",
    "compress", "compress/samples", "compress/statistics", "compress/pruning", "compress/low_rank",
    "compress/quantization", "compress/quantization/precision", "compress/distillation", "compress/pipeline",
    "deploy", "deploy/triton", "deploy/check", "deploy/device",
    "reports/measured", "reports/charts", "reports",
    "workflows",
    "testing",
    "plugins", "plugins/transformers",
    "cli",
]  # fmt: skip
FILES_A_ROOM, LINES_A_FILE = 20, 400
TOP = ("pocketzoo", "pocketzoo.__main__", "pocketzoo.api")  # the root stands on top of all rooms
# What documents, examples and written plugins import: lists of names that live elsewhere. Nothing here imports them.
FACADES = (
    "pocketzoo.errors",
    "pocketzoo.zoo.specs",
    "pocketzoo.plugins.hookspecs",
    "pocketzoo.deploy.tensorrt",
)
# What plugins that ship see at the top is what any plugin sees: specs, hooks, and no registry.
PLUGINS_SEE = (
    "pocketzoo.core.errors",
    "pocketzoo.core.former_names",
    "pocketzoo.core.optional",
    "pocketzoo.core.progress",
    "pocketzoo.core.renamed",
    "pocketzoo.core.untrusted.limits",
    "pocketzoo.compress.configs",
    "pocketzoo.compress.plans",
    "pocketzoo.plugins.*",
    "pocketzoo.zoo.backends.*.facts",
    "pocketzoo.zoo.catalog.backend",
    "pocketzoo.zoo.catalog.compressor",
    "pocketzoo.zoo.catalog.engine_options",
    "pocketzoo.zoo.catalog.export_request",
    "pocketzoo.zoo.catalog.hookspecs",
    "pocketzoo.zoo.catalog.processor",
    "pocketzoo.zoo.catalog.processor_configs",
    "pocketzoo.zoo.catalog.signature",
    "pocketzoo.zoo.catalog.specs",
    "pocketzoo.zoo.catalog.task",
    "pocketzoo.zoo.hub.shard_index",
    "pocketzoo.zoo.hub.weights",
    "pocketzoo.zoo.tasks.decoders.configs",
)
# What the command line sees at the top: anything else would be loaded for every ``--help``.
COMMANDS_SEE = (
    "pocketzoo.cli.*",
    "pocketzoo.core.caching",
    "pocketzoo.core.errors",
    "pocketzoo.core.former_names",
    "pocketzoo.core.optional",
    "pocketzoo.core.reading.environment",
    "pocketzoo.core.renamed",
    "pocketzoo.core.telemetry",
    "pocketzoo.core.untrusted.exits",
    "pocketzoo.core.untrusted.shown",
    "pocketzoo.core.version",
    "pocketzoo.train.agents.settings",
    "pocketzoo.train.settings",
    "pocketzoo.zoo.catalog.kinds",
)
# Glob -> packages that cost nothing. What others import at the top is in layers.json.
LIGHT = {
    "pocketzoo.cli.*": {"click"},
    "pocketzoo.zoo.catalog.hookspecs": {"pluggy"},
    "pocketzoo.zoo.catalog.plugin_manager": {"pluggy"},
    "pocketzoo.core.reading.documents": {"tomli"},
    "pocketzoo.reports.*": {"markupsafe"},
}
ENTRANCES = [
    "pocketzoo",
    "pocketzoo.cli.main",
    *[
        f"pocketzoo.plugins.{n}"
        for n in ("tinynet", "heads", "compressors", "exporters", "targets", "backends", "datasets")
        for n in ("tinynet", "heads", "tasks", "compressors", "exporters", "targets", "datasets")
    ],
    "pocketzoo.zoo.catalog.registry",
    "pocketzoo.zoo.models.info",
]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text("utf8")) for name, path in FILES.items()}


def at_the_top(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Imports that run when the module is imported; those for type checkers only do not."""
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from at_the_top(node.orelse)
        else:
            for part in ("body", "orelse", "finalbody"):
                yield from at_the_top(getattr(node, part, []))
            for handler in getattr(node, "handlers", []):
                yield from at_the_top(handler.body)


def imported(nodes: Iterable[ast.AST]) -> set[str]:
    """What is imported: a module's full name, or module.attribute for what is no module of ours."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in FILES or node.module == "pocketzoo" else node.module)
    return found


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] == "pocketzoo"}


TOP_IMPORTS = {name: imported(at_the_top(tree.body)) for name, tree in TREES.items()}
AT_THE_TOP = {name: ours(found) for name, found in TOP_IMPORTS.items()}
# Of all imports, those of files.
ALL = {name: (ours(imported(ast.walk(tree))) & set(FILES)) - {"pocketzoo", name} for name, tree in TREES.items()}
OTHERS = {
    name: {i.split(".")[0] for i in found} - {"pocketzoo", *sys.stdlib_module_names}
    for name, found in TOP_IMPORTS.items()
}


def room(name: str) -> str:
    """The folder of a module; a plugin that is a folder is one thing with the others."""
    folder = FILES[name].parent.relative_to(ROOT).as_posix()
    return "plugins" if folder.startswith("plugins/") and folder not in ROOMS else folder


def reached(name: str, arrows: dict[str, set[str]]) -> set[str]:
    """All that can be reached along arrows, itself only where it lies on a circle."""
    seen: set[str] = set()
    waiting = [*arrows[name]]
    while waiting:
        if (each := waiting.pop()) not in seen:
            seen.add(each)
            waiting += arrows.get(each, ())
    return seen


@cache
def violations() -> dict[str, list[str]]:
    """All there are, by rule; "a -> b" is an import."""
    below = [name for name in FILES if name not in (*TOP, *FACADES)]
    arrows = {name: ALL[name] & set(below) for name in below}
    ends = {name: reached(name, arrows) for name in below}
    pairs = [(a, b) for a in below for b in sorted(arrows[a])]
    rank = {name: ROOMS.index(room(name)) for name in below}
    folders: dict[str, int] = {}
    for name, path in FILES.items():
        if path.name != "__init__.py":
            folders[room(name)] = folders.get(room(name), 0) + 1
    return {
        "runs back": [f"{a} -> {b}" for a, b in pairs if rank[b] > rank[a]],
        "in a circle": [f"{a} -> {b}" for a, b in pairs if a in ends[b]],
        "large folders": sorted(folder for folder, count in folders.items() if count > FILES_A_ROOM),
        "long files": [name for name, path in FILES.items() if len(path.read_text("utf8").splitlines()) > LINES_A_FILE],
    }


def test_every_folder_is_a_room():
    folders = {room(name) for name in FILES if name not in TOP} - {"."}
    assert folders == set(ROOMS)


@pytest.mark.parametrize("rule", ["runs back", "in a circle", "large folders", "long files"])
def test_violations_only_become_less(rule):
    today, listed = set(violations()[rule]), set(DATA["violations"].get(rule, []))
    assert not today - listed, "new violations"
    assert not listed - today, "mended: take it out of layers.json"


def test_nothing_below_imports_the_root():
    """It stands on top, and lends its names to those outside only; the version is in core."""
    asked = {name: ours(imported(ast.walk(TREES[name]))) - set(FILES) for name in FILES if name not in TOP}
    asked |= {name: {"pocketzoo"} for name in asked if "pocketzoo" in imported(ast.walk(TREES[name]))}
    assert not {name: roots for name, roots in asked.items() if roots}


def executed(name: str) -> set[str]:
    """Modules of ours that run when ``name`` is imported: its imports and all the packages above them."""
    found = set()
    for each in [*AT_THE_TOP[name], name]:
        parts = each.split(".")
        found |= {".".join(parts[:i]) for i in range(1, len(parts) + 1)}
    return {each for each in found if each in FILES} - {name}


def closure(name: str) -> set[str]:
    seen, waiting = set(), [name]
    while waiting:
        if (each := waiting.pop()) not in seen:
            seen.add(each)
            waiting += executed(each)
    return seen


@pytest.mark.parametrize(
    ("glob", "allowed"),
    [("pocketzoo.plugins.*", PLUGINS_SEE), ("pocketzoo.cli.*", COMMANDS_SEE)],
    ids=["plugins", "cli"],
)
def test_the_edges_see_little_at_the_top(glob, allowed):
    seen = {name: AT_THE_TOP[name] for name in FILES if fnmatchcase(name, glob) and name not in FACADES}
    assert len(seen) > 5
    for name, found in seen.items():
        assert not {i for i in found if not any(fnmatchcase(i, pattern) for pattern in allowed)}, name


@pytest.mark.parametrize("name", FACADES)
def test_a_facade_lists_names_and_is_imported_by_nobody(name):
    body = [node for node in TREES[name].body if not isinstance(node, (ast.Expr, ast.ImportFrom))]
    assert [ast.unparse(node.targets[0]) for node in body if isinstance(node, ast.Assign)] == ["__all__"]
    assert len(body) == 1
    assert not {user for user, found in ALL.items() if name in found}


@pytest.mark.parametrize("name", FILES)
def test_a_module_imports_only_the_packages_the_table_gives_it(name):
    light = set().union(*[packages for pattern, packages in LIGHT.items() if fnmatchcase(name, pattern)])
    assert OTHERS[name] - light == set(DATA["heavy"].get(name, []))


@pytest.mark.parametrize("name", DATA["heavy"])
def test_the_table_names_modules_that_exist(name):
    assert name in FILES


@pytest.mark.parametrize("name", ENTRANCES)
def test_what_starts_first_reaches_no_heavy_module(name):
    assert not {each: DATA["heavy"][each] for each in closure(name) if each in DATA["heavy"]}


@pytest.mark.parametrize("name", FILES)
def test_a_module_opens_with_one_sentence(name):
    text = ast.get_docstring(TREES[name])
    assert text, "it has no docstring"
    first = text.splitlines()[0]
    assert len(first) <= 120
    assert text.splitlines()[1:2] in ([], [""]), "the first sentence is a line of its own"
    assert first[-1] in ".)", first


@pytest.mark.parametrize(
    "name", [name for name, tree in TREES.items() if any(isinstance(n, ast.FunctionDef) for n in ast.walk(tree))]
)
def test_annotations_are_never_evaluated(name):
    """So that types may be named without importing what they are from."""
    assert any(isinstance(n, ast.ImportFrom) and n.module == "__future__" for n in TREES[name].body)


def test_nothing_but_the_manager_loads_a_plugin():
    """plugins.<anything> is the edge: loaded by name, imported by nobody outside plugins."""
    edge = {n for n in FILES if n.startswith("pocketzoo.plugins.")}
    users = {name: ALL[name] & edge for name in FILES if not name.startswith("pocketzoo.plugins.")}
    assert not {name: found for name, found in users.items() if found}


def test_only_the_hub_modules_talk_to_the_hub():
    mentions = {name for name, path in FILES.items() if "huggingface_hub" in path.read_text("utf8")}
    talking = {f"pocketzoo.zoo.hub.{name}" for name in ("repositories", "http", "download")}
    quoting = {"pocketzoo.core.optional", "pocketzoo.zoo.bundles.model_card"}  # what brings it; its YAML of a card
    quoting.add("pocketzoo.core.reading.environment")  # which variable it could not be imported with
    assert mentions == {*talking, *quoting}


def test_only_the_conformance_suite_needs_pytest():
    """Not even in a function's body."""
    users = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Import) and any(a.name.split(".")[0] == "pytest" for a in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pytest")
    }
    assert users
    assert all(name.startswith("pocketzoo.testing.") for name in users)
    inside = {name for name in FILES if name.startswith("pocketzoo.testing")}
    outside = {name: found & inside for name, found in ALL.items() if found & inside and name not in inside}
    assert outside == {"pocketzoo.api": {"pocketzoo.testing.conformance"}}, "which starts a process for it"
