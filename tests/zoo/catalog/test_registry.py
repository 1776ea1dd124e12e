"""Lookup, nearest name, globs, kinds; plugins of all qualities are in tests/zoo/catalog/test_plugin_manager.py."""

from __future__ import annotations

import json
from dataclasses import replace
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st
from specs_of_each_kind import SPECS, declaring, reason

import pocketzoo
from pocketzoo.core.errors import DuplicateNameError, UnknownNameError
from pocketzoo.zoo.catalog import hookspecs
from pocketzoo.zoo.catalog.kinds import KINDS
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Entry, Registry, default_registry, list_plugins, list_specs

BUILT_IN = Registry(create_manager(points=[]))
ALL = [(entry.kind, entry.name) for entry in BUILT_IN.find()]


def test_there_is_a_hook_for_every_kind():
    assert {f"pocketzoo_{kind}s" for kind in KINDS} == {n for n in vars(hookspecs) if n.startswith("pocketzoo_")}


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_a_spec_is_found_under_its_name(kind, name):
    entry = BUILT_IN.entries(kind)[name]
    assert isinstance(entry, Entry)
    assert (entry.kind, entry.name, entry.spec.name) == (kind, name, name)
    assert BUILT_IN.get(kind, name) is entry.spec


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_a_misspelt_name_gets_the_nearest(refused, kind, name):
    misspelt = name[:-1] + "_"
    with refused(UnknownNameError, f"no {kind} is called {misspelt!r}", hint="did you mean"):
        BUILT_IN.get(kind, misspelt)


@pytest.mark.parametrize(
    ("kind", "hint"), [("backbone", "known: mlp, tinynet"), ("head", "known: embedding, language-model, ")]
)
def test_a_name_that_is_near_to_none_gets_them_all(refused, kind, hint):
    with refused(UnknownNameError, "'0'", hint=hint):
        BUILT_IN.get(kind, "0")


@pytest.mark.parametrize("name", ["", " ", "TINYNET", "tinynet ", "tiny*", "../tinynet", "\n"])
def test_names_are_exact(refused, name):
    with refused(UnknownNameError, repr(name)):
        BUILT_IN.get("backbone", name)


@pytest.mark.parametrize("other", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_spec_of_another_kind_is_not_registered(kind, other):
    """All have a name, so nothing but their type tells them apart. The plugin is left out and says why."""
    spec = SPECS[other]
    registry = declaring(kind, spec)
    if kind == other:
        assert registry.get(kind, "acme-thing") == spec
        assert reason(registry) == ""
    else:
        assert "acme-thing" not in registry.entries(kind)
        assert reason(registry).startswith(f"pocketzoo_{kind}s: {type(spec).__name__} 'acme-thing' is not a ")
        assert "acme-thing" not in [e.name for e in registry.find()]


@pytest.mark.parametrize("name", ["", None, 3, ("a",)])
def test_a_spec_that_cannot_be_called_by_a_name_is_not_registered(name):
    registry = declaring("head", replace(BUILT_IN.get("head", "linear"), name=name))
    assert name not in registry.entries("head")
    assert reason(registry).startswith(f"pocketzoo_heads: a head cannot be called {name!r}; use letters, digits")


def test_a_name_that_is_missing_may_be_of_a_plugin_that_is_not_in_use(refused):
    registry = declaring("head", replace(BUILT_IN.get("head", "linear"), name="acme/head"))
    with refused(
        UnknownNameError,
        "no head is called 'acme-head'",
        hint="not in use: acme (pocketzoo_heads: a head cannot be called 'acme/head'; use letters",
    ):
        registry.get("head", "acme-head")
    with refused(UnknownNameError, "no target is called 'acme'", hint="known: "):
        registry.get("target", "acme")


@pytest.mark.parametrize(
    ("name", "text"),
    [("Linear", "head 'Linear', but for its case 'linear', is declared by two plugins: heads and acme"),
     ("linear", "head 'linear' is declared by two plugins: heads and acme")],
)  # fmt: skip
def test_names_differ_by_more_than_their_case(name, text, refused):
    """Both would be one file where the file system does not tell them apart."""
    with refused(DuplicateNameError, text, hint="uninstall acme, or leave it out with POCKETZOO_PLUGINS"):
        declaring("head", replace(BUILT_IN.get("head", "linear"), name=name)).get("head", "linear")


def test_one_name_twice_in_one_plugin_names_it_once(refused):
    with refused(DuplicateNameError, "head 'acme-thing' is declared twice by acme", hint="rename one of them"):
        declaring("head", SPECS["head"], SPECS["head"]).entries("head")


def test_an_unknown_name_is_a_key_error():
    with pytest.raises(KeyError):
        BUILT_IN.get("backbone", "resnet18")


@pytest.mark.parametrize("kind", ["backbone", "head"])
def test_a_reference_to_the_hub_is_not_looked_up(kind, refused):
    with refused(UnknownNameError, "hf://acme/tiny"):
        BUILT_IN.get(kind, "hf://acme/tiny")


@pytest.mark.parametrize(("kind", "hint"), [("backbones", "did you mean 'backbone'?"), ("model", "known: backbone, ")])
@pytest.mark.parametrize("ask", ["entries", "get", "find", "list"])
def test_an_unknown_kind_is_refused(refused, kind, hint, ask):
    calls = {
        "entries": lambda: BUILT_IN.entries(kind),
        "get": lambda: BUILT_IN.get(kind, "tinynet"),
        "find": lambda: list(BUILT_IN.find("*", kind)),
        "list": lambda: list_specs("*", kind, BUILT_IN),
    }
    with refused(UnknownNameError, f"there is no kind {kind!r}", hint=hint):
        calls[ask]()


@pytest.mark.parametrize("kind", KINDS)
def test_entries_are_sorted_by_name(kind):
    names = list(BUILT_IN.entries(kind))
    assert names == sorted(names)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_collected_once(kind):
    assert BUILT_IN.entries(kind) is BUILT_IN.entries(kind)


@pytest.mark.parametrize(
    ("pattern", "kind", "names"),
    [
        ("tinynet", None, ["tinynet"]),
        ("tinynet*", None, ["tinynet", "tinynet-fashion-mnist"]),
        ("tinynet*", "head", ["tinynet-fashion-mnist"]),
        ("*-mnist", None, ["tinynet-fashion-mnist", "fashion-mnist"]),
        ("tensorrt-1?", "target", ["tensorrt-10", "tensorrt-11"]),
        ("tensorrt", None, ["tensorrt", "tensorrt"]),
        ("[lm]*", "head", ["language-model", "linear", "mlp", "multi-label"]),
        ("???", None, ["mlp", "mlp", "cpu"]),
        ("TINYNET", None, []),
        ("", None, []),
        ("nothing*", None, []),
    ],
)
def test_globs(pattern, kind, names):
    assert [e.name for e in BUILT_IN.find(pattern, kind)] == names


@given(st.text("*?[]abcdefilmnrty-!", max_size=8))
def test_a_glob_finds_what_it_matches_and_nothing_else(pattern):
    assert [(e.kind, e.name) for e in BUILT_IN.find(pattern)] == [(k, n) for k, n in ALL if fnmatchcase(n, pattern)]


def test_listing_everything_goes_kind_by_kind():
    assert [e.kind for e in list_specs(registry=BUILT_IN)] == sorted([k for k, _ in ALL], key=KINDS.index)


def test_the_public_list_is_of_this_environment():
    assert pocketzoo.list() == list_specs(registry=default_registry())
    assert default_registry() is default_registry()
    assert pocketzoo.list("linear", "head")[0].spec is default_registry().get("head", "linear")


def test_plugins_are_listed_in_the_order_they_were_loaded():
    assert list_plugins(BUILT_IN) == BUILT_IN.plugins()
    assert [p.name for p in BUILT_IN.plugins()] == [p.name for p in BUILT_IN.manager.plugins]


def test_list_as_json_has_every_entry(run):
    listed = json.loads(run("list", "--json").stdout)
    wanted = [{"kind": e.kind, "name": e.name, "summary": e.spec.summary, "plugin": e.plugin} for e in list_specs()]
    assert listed == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_list_of_one_kind_as_json(run, kind):
    listed = json.loads(run("list", "--kind", kind, "--json").stdout)
    assert [row["name"] for row in listed] == [e.name for e in list_specs(kind=kind)]
    assert {row["kind"] for row in listed} <= {kind}


def test_list_of_nothing_as_json_is_empty(run):
    done = run("list", "nothing*", "--json")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "[]\n", "")


def test_who_looks_for_the_reason_is_told_of_a_name_declared_twice():
    """By the list of plugins, which stands though the kind does not; all other kinds go on."""
    registry = declaring("head", replace(BUILT_IN.get("head", "linear"), name="Linear"))
    plugins = {plugin.name: plugin for plugin in registry.plugins()}
    assert "head 'Linear', but for its case 'linear', is declared by two plugins" in plugins["acme"].reason
    assert not plugins["heads"].reason
    assert "tinynet" in registry.entries("backbone")
