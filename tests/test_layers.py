"""Who may import whom at module level, read from the source with ``ast``. Bodies of functions may import anything."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "pocketzoo"


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text("utf8")) for name, path in FILES.items()}

BASE = ("pocketzoo.errors", "pocketzoo.optional", "pocketzoo.progress")

# Module or glob -> what of pocketzoo it may import; the first line that matches a module counts.
LAYERS = {
    "pocketzoo": (),
    "pocketzoo.errors": (),
    "pocketzoo.progress": (),
    "pocketzoo.callable_module": (),
    "pocketzoo.optional": ("pocketzoo.errors",),
    "pocketzoo.__main__": ("pocketzoo.cli.main",),
    "pocketzoo.plugins": ("pocketzoo.callable_module",),
    "pocketzoo.plugins.hookspecs": (),
    "pocketzoo.plugins.manager": ("pocketzoo.errors", "pocketzoo.plugins.hookspecs"),
    "pocketzoo.plugins.scaffold": (*BASE, "pocketzoo.__version__", "pocketzoo.plugins.manager", "pocketzoo.zoo.files"),
    # What ships with pocketzoo sees what any plugin sees: specs, hooks, and no registry.
    "pocketzoo.plugins.compressors": (
        "pocketzoo.plugins.hookspecs",
        "pocketzoo.compress.base",
        "pocketzoo.compress.configs",
        "pocketzoo.compress.plans",
        "pocketzoo.zoo.specs",
    ),
    "pocketzoo.plugins.head_options": ("pocketzoo.errors",),
    "pocketzoo.plugins.transformers.settings": ("pocketzoo.errors",),
    "pocketzoo.plugins.transformers.modules": (
        "pocketzoo.errors",
        "pocketzoo.plugins.transformers.settings",
        "pocketzoo.zoo.weights",
    ),
    "pocketzoo.plugins.timm_settings": ("pocketzoo.errors",),
    "pocketzoo.plugins.timm_modules": (
        "pocketzoo.errors",
        "pocketzoo.plugins.timm_settings",
        "pocketzoo.zoo.specs",
        "pocketzoo.zoo.weights",
    ),
    "pocketzoo.plugins.*": (
        *BASE,
        "pocketzoo.plugins.hookspecs",
        "pocketzoo.plugins.heads",
        "pocketzoo.plugins.head_options",
        "pocketzoo.plugins.tinynet",
        "pocketzoo.plugins.timm_settings",
        "pocketzoo.plugins.transformers.heads",
        "pocketzoo.plugins.transformers.settings",
        "pocketzoo.zoo.engine_options",
        "pocketzoo.zoo.shards",
        "pocketzoo.zoo.specs",
        "pocketzoo.zoo.files",
    ),
    "pocketzoo.zoo.specs": (),
    "pocketzoo.zoo.kinds": (),
    "pocketzoo.zoo.card": (),
    "pocketzoo.zoo.files": ("pocketzoo.errors",),
    "pocketzoo.zoo.typed": ("pocketzoo.errors",),
    "pocketzoo.zoo.registry": (*BASE, "pocketzoo.plugins.manager", "pocketzoo.zoo.*"),
    "pocketzoo.zoo.bundle": (*BASE, "pocketzoo.__version__", "pocketzoo.zoo.*"),
    "pocketzoo.zoo.foreign": (*BASE, "pocketzoo.__version__", "pocketzoo.zoo.*"),
    "pocketzoo.zoo.hub_http": (*BASE, "pocketzoo.__version__", "pocketzoo.zoo.*"),
    "pocketzoo.zoo.pretrained": (*BASE, "pocketzoo.__version__", "pocketzoo.zoo.*"),
    "pocketzoo.zoo*": (*BASE, "pocketzoo.zoo.*"),
    "pocketzoo.train.settings": (
        "pocketzoo.errors",
        "pocketzoo.train.augment_spec",
        "pocketzoo.zoo.specs",
        "pocketzoo.zoo.typed",
    ),
    "pocketzoo.train.agent_settings": ("pocketzoo.errors", "pocketzoo.zoo.typed"),
    "pocketzoo.train*": (*BASE, "pocketzoo.zoo.*", "pocketzoo.train.*"),
    "pocketzoo.compress": ("pocketzoo.callable_module",),
    "pocketzoo.compress.configs": ("pocketzoo.errors",),
    "pocketzoo.compress.plans": (),
    "pocketzoo.compress.base": ("pocketzoo.zoo.specs", "pocketzoo.zoo.typed"),
    "pocketzoo.compress.*": (*BASE, "pocketzoo.zoo.*", "pocketzoo.compress.*"),
    "pocketzoo.deploy.run_recipe": (*BASE, "pocketzoo", "pocketzoo.zoo.*"),
    "pocketzoo.deploy.run": (
        *BASE,
        "pocketzoo.__version__",
        "pocketzoo.zoo.*",
        "pocketzoo.train.*",
        "pocketzoo.compress.*",
        "pocketzoo.deploy.*",
    ),
    "pocketzoo.deploy.demo": (
        *BASE,
        "pocketzoo.__version__",
        "pocketzoo.zoo.*",
        "pocketzoo.train.*",
        "pocketzoo.compress.*",
        "pocketzoo.deploy.*",
    ),
    "pocketzoo.deploy.engine_cache": (*BASE, "pocketzoo.__version__", "pocketzoo.zoo.*", "pocketzoo.deploy.*"),
    "pocketzoo.deploy*": (*BASE, "pocketzoo.zoo.*", "pocketzoo.compress.*", "pocketzoo.deploy.*"),
    "pocketzoo.testing": (),
    "pocketzoo.testing*": (
        *BASE,
        "pocketzoo.plugins.manager",
        "pocketzoo.zoo.*",
        "pocketzoo.compress.*",
        "pocketzoo.deploy.check",
        "pocketzoo.testing.*",
    ),
    "pocketzoo.cli.main": ("pocketzoo.errors", "pocketzoo.optional", "pocketzoo.__version__", "pocketzoo.cli.*"),
    "pocketzoo.cli.training": (
        "pocketzoo.cli.options",
        "pocketzoo.train.settings",
    ),
    "pocketzoo.cli.agent": ("pocketzoo.cli.*", "pocketzoo.train.agent_settings"),
    "pocketzoo.cli*": ("pocketzoo.errors", "pocketzoo.cli.*", "pocketzoo.zoo.kinds"),
}

# Module -> the packages it imports at the top. All others import none but the light ones below.
HEAVY = {
    "pocketzoo.compress.budget": {"numpy"},
    "pocketzoo.compress.calibrate": {"numpy", "onnx", "onnxruntime"},
    "pocketzoo.compress.dynamic": {"numpy", "onnx"},
    "pocketzoo.compress.effects": {"torch"},
    "pocketzoo.compress.eligible": {"torch"},
    "pocketzoo.compress.embeddings": {"numpy", "onnx"},
    "pocketzoo.compress.encode": {"numpy", "onnx"},
    "pocketzoo.compress.factors": {"torch"},
    "pocketzoo.compress.fake_int8": {"torch"},
    "pocketzoo.compress.float_layers": {"numpy", "onnx"},
    "pocketzoo.compress.forecast": {"torch"},
    "pocketzoo.compress.fp8": {"ml_dtypes", "numpy", "onnx"},
    "pocketzoo.compress.graph_index": {"onnx"},
    "pocketzoo.compress.groups": {"numpy", "torch"},
    "pocketzoo.compress.heal": {"torch"},
    "pocketzoo.compress.histogram": {"numpy"},
    "pocketzoo.compress.int8": {"numpy", "onnx"},
    "pocketzoo.compress.writing": {"numpy", "onnx", "safetensors"},
    "pocketzoo.compress.acceptance": {"numpy", "onnx"},
    "pocketzoo.compress.latency": {"torch"},
    "pocketzoo.compress.layers": {"torch"},
    "pocketzoo.compress.lockstep": {"torch"},
    "pocketzoo.compress.lowrank": {"torch"},
    "pocketzoo.compress.moments": {"torch"},
    "pocketzoo.compress.operands": {"numpy", "onnx"},
    "pocketzoo.compress.patches": {"numpy", "onnx"},
    "pocketzoo.compress.pipeline": {"onnx", "safetensors"},
    "pocketzoo.compress.prune": {"torch"},
    "pocketzoo.compress.refit": {"torch"},
    "pocketzoo.compress.regress": {"torch"},
    "pocketzoo.compress.rounding": {"numpy"},
    "pocketzoo.compress.saliency": {"torch"},
    "pocketzoo.compress.sensitivity": {"torch"},
    "pocketzoo.compress.smooth": {"numpy", "onnx"},
    "pocketzoo.compress.sparse": {"numpy", "torch"},
    "pocketzoo.compress.steps": {"onnx", "safetensors"},
    "pocketzoo.compress.stopwatch": {"numpy", "onnx", "onnxruntime", "torch"},
    "pocketzoo.deploy.answers": {"numpy"},
    "pocketzoo.deploy.check_dla": {"onnx"},
    "pocketzoo.deploy.check_rules": {"onnx"},
    "pocketzoo.deploy.fp8": {"onnx"},
    "pocketzoo.deploy.halve": {"numpy", "onnx"},
    "pocketzoo.deploy.precision": {"ml_dtypes", "numpy", "onnx"},
    "pocketzoo.deploy.reading": {"onnx"},
    "pocketzoo.deploy.triton": {"onnx"},
    "pocketzoo.deploy.triton_pictures": {"numpy", "onnx"},
    "pocketzoo.deploy.trtexec": {"onnx"},
    "pocketzoo.deploy.choose": {"numpy"},
    "pocketzoo.deploy.classes": {"numpy"},
    "pocketzoo.deploy.evaluate": {"numpy"},
    "pocketzoo.deploy.inputs": {"numpy"},
    "pocketzoo.deploy.play": {"numpy"},
    "pocketzoo.deploy.profile": {"numpy", "onnx", "onnxruntime"},
    "pocketzoo.deploy.profile_layers": {"onnx"},
    "pocketzoo.deploy.report_answers": {"numpy"},
    "pocketzoo.deploy.runtime": {"numpy"},
    "pocketzoo.plugins.head_modules": {"torch"},
    "pocketzoo.plugins.timm_modules": {"timm", "torch"},
    "pocketzoo.plugins.tinynet.module": {"torch"},
    "pocketzoo.plugins.transformers.modules": {"torch", "transformers"},
    "pocketzoo.testing.checks": {"pytest"},
    "pocketzoo.testing.conftest": {"pytest"},
    "pocketzoo.testing.options": {"pytest"},
    "pocketzoo.testing.subjects": {"numpy", "onnx", "onnxruntime", "pytest", "torch"},
    "pocketzoo.testing.test_backbones": {"numpy", "onnx", "pytest", "torch"},
    "pocketzoo.testing.test_compressors": {"numpy", "onnx", "pytest", "safetensors", "torch"},
    "pocketzoo.testing.test_datasets": {"numpy", "pytest"},
    "pocketzoo.testing.test_exporters": {"onnx", "pytest"},
    "pocketzoo.testing.test_heads": {"pytest", "torch"},
    "pocketzoo.testing.test_plugins": {"pytest"},
    "pocketzoo.testing.test_specs": {"packaging"},
    "pocketzoo.testing.test_targets": {"onnx"},
    "pocketzoo.train.augment": {"torch"},
    "pocketzoo.train.blocks": {"torch"},
    "pocketzoo.train.features": {"numpy", "torch"},
    "pocketzoo.train.fit": {"torch"},
    "pocketzoo.train.learning": {"torch"},
    "pocketzoo.train.lora": {"torch"},
    "pocketzoo.train.loop": {"numpy", "torch"},
    "pocketzoo.train.optimise": {"torch"},
    "pocketzoo.train.preview": {"numpy", "torch"},
    "pocketzoo.train.qlearning": {"numpy", "torch"},
    "pocketzoo.train.replay": {"numpy", "torch"},
    "pocketzoo.train.scores": {"torch"},
    "pocketzoo.train.shard": {"torch"},
    "pocketzoo.train.step": {"torch"},
    "pocketzoo.train.task": {"numpy", "torch"},
    "pocketzoo.train.transfer": {"torch"},
    "pocketzoo.train.world": {"torch"},
    "pocketzoo.zoo.agreement": {"numpy"},
    "pocketzoo.zoo.arrays": {"numpy"},
    "pocketzoo.zoo.cost": {"numpy", "onnx"},
    "pocketzoo.zoo.cuda": {"numpy"},
    "pocketzoo.zoo.data": {"numpy"},
    "pocketzoo.zoo.decoding": {"numpy"},
    "pocketzoo.zoo.engine_runner": {"numpy"},
    "pocketzoo.zoo.environments": {"numpy"},
    "pocketzoo.zoo.findings": {"numpy"},
    "pocketzoo.zoo.folders": {"numpy"},
    "pocketzoo.zoo.foreign": {"numpy", "onnx", "onnxruntime"},
    "pocketzoo.zoo.hooks": {"torch"},
    "pocketzoo.zoo.graph": {"numpy", "onnxruntime", "torch"},
    "pocketzoo.zoo.graph_names": {"onnx"},
    "pocketzoo.zoo.hub": {"httpx2", "huggingface_hub"},
    "pocketzoo.zoo.hub_http": {"httpx2", "huggingface_hub"},
    "pocketzoo.zoo.library": {"numpy"},
    "pocketzoo.zoo.measure": {"numpy"},
    "pocketzoo.zoo.memory": {"numpy"},
    "pocketzoo.zoo.model": {"safetensors", "torch"},
    "pocketzoo.zoo.parts": {"torch"},
    "pocketzoo.zoo.preprocess": {"numpy"},
    "pocketzoo.zoo.resize": {"torch"},
    "pocketzoo.zoo.runner": {"numpy"},
    "pocketzoo.zoo.samples": {"numpy"},
    "pocketzoo.zoo.save": {"safetensors", "torch"},
    "pocketzoo.zoo.snapshot": {"safetensors", "torch"},
    "pocketzoo.zoo.tables": {"numpy"},
    "pocketzoo.zoo.text": {"numpy"},
    "pocketzoo.zoo.timing": {"numpy"},
    "pocketzoo.zoo.torch_runner": {"numpy", "torch"},
    "pocketzoo.zoo.transfer": {"httpx2", "huggingface_hub"},
    "pocketzoo.zoo.windows": {"numpy"},
    "pocketzoo.zoo.writer": {"numpy"},
    "pocketzoo.zoo.weights": {"safetensors", "torch"},
}
# Glob -> packages that cost nothing.
LIGHT = {
    "pocketzoo.cli.*": {"click"},
    "pocketzoo.plugins.hookspecs": {"pluggy"},
    "pocketzoo.plugins.manager": {"pluggy"},
    "pocketzoo.compress.recipe": {"tomli"},
    "pocketzoo.deploy.run_recipe": {"tomli"},
    "pocketzoo.zoo.lockfile": {"tomli"},
}
ENTRANCES = [
    "pocketzoo",
    "pocketzoo.cli.main",
    *[f"pocketzoo.plugins.{n}" for n in ("tinynet", "heads", "compressors", "exporters", "targets", "datasets")],
    "pocketzoo.zoo.registry",
    "pocketzoo.zoo.info",
]


def at_the_top(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
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


def imported(tree: ast.Module) -> set[str]:
    """What a module imports at the top: a module's full name, or module.attribute for what is no module of ours."""
    found = set()
    for node in at_the_top(tree.body):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        else:
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in FILES or node.module == "pocketzoo" else node.module)
    return found


IMPORTS = {name: imported(tree) for name, tree in TREES.items()}
OWN = {name: {i for i in found if i.split(".")[0] == "pocketzoo"} for name, found in IMPORTS.items()}
OTHERS = {
    name: {i.split(".")[0] for i in found} - {"pocketzoo", *sys.stdlib_module_names} for name, found in IMPORTS.items()
}


def executed(name: str) -> set[str]:
    """Modules of ours that run when ``name`` is imported: its imports and all the packages above them."""
    found = set()
    for each in [*OWN[name], name]:
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


def rule(name: str) -> tuple[str, ...]:
    return next(allowed for pattern, allowed in LAYERS.items() if fnmatchcase(name, pattern))


@pytest.mark.parametrize("name", FILES)
def test_a_module_imports_only_what_its_layer_allows(name):
    allowed = rule(name)
    forbidden = {i for i in OWN[name] if not any(fnmatchcase(i, pattern) for pattern in allowed)}
    assert not forbidden, f"{name} may not import {sorted(forbidden)} at the top"


@pytest.mark.parametrize("name", FILES)
def test_a_module_imports_only_the_packages_the_table_gives_it(name):
    light = set().union(*[packages for pattern, packages in LIGHT.items() if fnmatchcase(name, pattern)])
    assert OTHERS[name] - light == HEAVY.get(name, set())


@pytest.mark.parametrize("name", HEAVY)
def test_the_table_names_modules_that_exist(name):
    assert name in FILES


@pytest.mark.parametrize("name", ENTRANCES)
def test_what_starts_first_reaches_no_heavy_module(name):
    heavy = {each: HEAVY[each] for each in closure(name) if each in HEAVY}
    assert not heavy


@pytest.mark.parametrize("name", FILES)
def test_no_module_imports_itself_in_a_circle(name):
    # A package that runs before its own modules is no circle; only what imports back is.
    circle = {each for each in OWN[name] & set(FILES) if name in closure_of_imports(each)}
    assert not circle, f"{name} <-> {sorted(circle)}"


def closure_of_imports(name: str) -> set[str]:
    seen, waiting = set(), [name]
    while waiting:
        if (each := waiting.pop()) in FILES and each not in seen:
            seen.add(each)
            waiting += OWN[each]
    return seen


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
    edge = {n for n in FILES if n.startswith("pocketzoo.plugins.")} - {
        "pocketzoo.plugins.hookspecs",
        "pocketzoo.plugins.manager",
    }
    users = {name: OWN[name] & edge for name in FILES if not name.startswith("pocketzoo.plugins.")}
    assert not {name: found for name, found in users.items() if found}


def test_only_the_hub_module_talks_to_the_hub():
    mentions = {name for name, path in FILES.items() if "huggingface_hub" in path.read_text("utf8")}
    talking = {f"pocketzoo.zoo.{name}" for name in ("hub", "hub_http", "transfer")}
    assert mentions == {*talking, "pocketzoo.optional"}  # which says what brings it


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
    assert not {name: found & inside for name, found in OWN.items() if found & inside and name not in inside}
