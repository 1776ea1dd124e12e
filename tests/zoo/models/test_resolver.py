"""Names of what is registered and references to the Hub, resolved alike, and nothing remembered by the registry."""

from __future__ import annotations

import ast
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

import pocketzoo
from pocketzoo.core.errors import LockError, UnknownNameError, UnsupportedModelError
from pocketzoo.zoo.bundles.manifest import GRAPH_ONLY
from pocketzoo.zoo.catalog.registry import default_registry
from pocketzoo.zoo.hub.lock_file import Lock, Locked
from pocketzoo.zoo.hub.reference import parse
from pocketzoo.zoo.models.build import load_module, module_of
from pocketzoo.zoo.models.resolver import Resolver

PACKAGE = Path(pocketzoo.__file__).parent
OLD, NEW = "1" * 40, "2" * 40


@pytest.mark.parametrize(("kind", "name"), [("backbone", "tinynet"), ("head", "linear"), ("target", "cpu")])
def test_a_registered_name_is_what_the_registry_says(kind, name, registry):
    assert Resolver(registry).entry(kind, name) is registry.entry(kind, name)
    assert Resolver(registry).spec(kind, name) is registry.get(kind, name)


def test_a_name_of_neither_is_refused(registry, refused):
    with refused(UnknownNameError, "'tinynett'", hint="did you mean 'tinynet'?"):
        Resolver(registry).spec("backbone", "tinynett")


@pytest.mark.parametrize(("kind", "name"), [("target", "hf://acme/tiny"), ("backbone", "hf://acme/tiny#head")])
def test_a_repository_is_only_a_backbone_or_a_head(kind, name, registry, refused):
    with refused(UnknownNameError, name, hint="hf://org/name is a backbone"):
        Resolver(registry).entry(kind, name)


def test_a_caller_gives_a_resolver_a_registry_or_nothing(registry):
    resolver = Resolver(registry)
    assert Resolver.of(resolver) is resolver
    assert Resolver.of(registry).registry is registry
    assert Resolver.of(None).registry is default_registry()


def test_neither_registry_nor_resolver_can_be_given_another_value(registry):
    for thing, name in ((registry, "manager"), (registry, "remote"), (Resolver(registry), "lock")):
        with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
            setattr(thing, name, None)
    for kind in ("backbone", "loader"):
        with pytest.raises(TypeError):
            registry.entries(kind)["another"] = None


@pytest.mark.parametrize(
    ("ref", "commit"),
    [
        ("hf://acme/tiny", OLD), ("hf://acme/tiny#head", OLD), (f"hf://acme/tiny@{NEW}", NEW),
        ("hf://acme/tiny@v2", "v2"), ("hf://acme/other", "main"),
    ],
)  # fmt: skip
def test_a_lock_pins_the_references_that_it_has_and_no_other(ref, commit):
    lock = Lock({"hf://acme/tiny": Locked(ref="hf://acme/tiny", commit=OLD)})
    pinned = lock.pin(parse(ref))
    assert pinned == replace(parse(ref), revision=commit)
    assert Lock().pin(parse(ref)) == parse(ref)


def test_a_lock_that_could_not_be_read_says_so_where_it_is_needed():
    lock = Lock(damage=LockError("zoo.lock is damaged"))
    assert lock.pin(parse(f"hf://acme/tiny@{NEW}")).revision == NEW
    with pytest.raises(LockError, match="damaged"):
        lock.pin(parse("hf://acme/tiny"))


def test_a_structure_builds_the_module_with_nothing_looked_up(small, small_registry):
    structure = Resolver(small_registry).structure(small)
    one, two = load_module(small, small_registry), module_of(small, structure)
    assert list(one.state_dict()) == list(two.state_dict())
    assert set(structure.compressors) == {step.compressor for step in small.manifest.steps}


def test_a_graph_from_elsewhere_has_no_structure(small, small_registry, refused):
    model = replace(small.manifest.model, backbone=f"{GRAPH_ONLY}some")
    foreign = replace(small, manifest=replace(small.manifest, model=model))
    with refused(UnsupportedModelError, "has no module", hint="steps on the graph"):
        Resolver(small_registry).structure(foreign)


def test_the_lock_file_of_the_working_directory_is_named_by_the_command_line_alone():
    """``NAME`` is also the default of the functions whose matter the file is: lock, update, outdated, pull(locked)."""
    users = {}
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text("utf8"))
        named = [
            node
            for node in ast.walk(tree)
            if (
                (isinstance(node, ast.ImportFrom) and str(node.module).endswith("lock_file"))
                and any(alias.name == "NAME" for alias in node.names)
            )
            or (isinstance(node, ast.Constant) and node.value == "zoo.lock")
        ]
        if named:
            users[path.relative_to(PACKAGE).as_posix()] = tree
    assert set(users) == {"cli/hub.py", "cli/options.py", "zoo/hub/lock_file.py", "zoo/models/pull.py"}
    defaults = [
        default.id
        for node in ast.walk(users["zoo/models/pull.py"])
        if isinstance(node, ast.FunctionDef)
        for default in node.args.kw_defaults
        if isinstance(default, ast.Name) and default.id == "NAME"
    ]
    used = [n for n in ast.walk(users["zoo/models/pull.py"]) if isinstance(n, ast.Name) and n.id == "NAME"]
    assert len(used) == len(defaults) == 4
