"""Plugins of all kinds of quality, through fake entry points: what works is used, what is broken is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pluggy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pocketzoo
from pocketzoo.core.errors import DataError, DuplicateNameError, PluginError
from pocketzoo.zoo.catalog import hookspecs
from pocketzoo.zoo.catalog.kinds import KINDS
from pocketzoo.zoo.catalog.plugin_manager import BUILT_IN, Plugin, create_manager, wanted
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import DatasetSpec, HeadSpec

DIST = SimpleNamespace(name="acme-zoo", version="1.2.3")


class Point:
    """What ``importlib.metadata.entry_points`` gives: a name, where it is from, and a plugin to load."""

    def __init__(self, name: str, plugin: Any, dist: Any = DIST) -> None:
        self.name, self.plugin, self.dist = name, plugin, dist
        self.loads: list[str] = []

    def load(self) -> Any:
        self.loads.append(self.name)
        if isinstance(self.plugin, BaseException):
            raise self.plugin
        return self.plugin


def head(name: str) -> HeadSpec:
    return HeadSpec(name=name, summary="a head", takes=("map",), task="*-classification", build=lambda f, n: None)


def dataset(name: str) -> DatasetSpec:
    return DatasetSpec(name=name, summary="a data set", license="MIT", load=lambda: None)


def plugin(**hooks: Any) -> ModuleType:
    """A plugin module; every function becomes a hook implementation."""
    module = ModuleType("acme")
    for name, function in hooks.items():
        setattr(module, name, pocketzoo.hookimpl(function))
    return module


def with_heads(*names: str) -> ModuleType:
    return plugin(pocketzoo_heads=lambda: [head(n) for n in names])


def registry_of(*points: Point) -> Registry:
    return Registry(create_manager(points=points))


def reason_of(registry: Registry, name: str) -> str:
    (reason,) = [p.reason for p in registry.plugins() if p.name == name and p.origin == "acme-zoo 1.2.3"]
    return reason


@pytest.fixture(autouse=True)
def all_plugins_admitted(monkeypatch):
    monkeypatch.delenv("POCKETZOO_PLUGINS", raising=False)


# -- what works


def test_built_in_plugins_come_first_and_work(registry):
    assert registry.plugins() == tuple(Plugin(name, "pocketzoo") for name in BUILT_IN)


def test_a_third_party_plugin_is_used():
    registry = registry_of(Point("acme", with_heads("acme-head")))
    assert registry.get("head", "acme-head").summary == "a head"
    assert registry.entries("head")["acme-head"].plugin == "acme"
    assert registry.plugins()[-1] == Plugin("acme", "acme-zoo 1.2.3")


def test_a_plugin_may_be_any_object_with_hooks():
    class Acme:
        @pocketzoo.hookimpl
        def pocketzoo_heads(self):
            return [head("bound")]

        @staticmethod
        @pocketzoo.hookimpl
        def pocketzoo_datasets():
            return (dataset("given") for _ in range(1))

    registry = registry_of(Point("acme", Acme()))
    assert registry.get("head", "bound")
    assert registry.get("dataset", "given")
    assert reason_of(registry, "acme") == ""


def test_extra_modules_come_between_built_in_and_installed_ones():
    manager = create_manager(points=[Point("last", with_heads("b"))], extra=[with_heads("a")])
    assert [p.name for p in manager.plugins] == [*BUILT_IN, "acme", "last"]
    assert manager.plugins[-2].origin == "given"
    assert {"a", "b"} <= set(Registry(manager).entries("head"))


def test_a_broken_extra_module_is_an_error(refused):
    with refused(PluginError, "implements no hook", hint="@pocketzoo.hookimpl"):
        create_manager(points=[], extra=[ModuleType("empty")])


def test_an_entry_point_without_distribution_has_an_unknown_origin():
    manager = create_manager(points=[Point("acme", with_heads("a"), dist=None)])
    assert manager.plugins[-1] == Plugin("acme", "unknown")


def test_no_hook_is_called_before_its_kind_is_looked_up():
    asked = []
    registry = registry_of(
        Point("acme", plugin(pocketzoo_heads=lambda: asked.append(1) or [], pocketzoo_datasets=lambda: asked.append(2)))
    )
    registry.entries("backbone")
    assert asked == []
    registry.entries("head")
    registry.entries("head")
    assert asked == [1]


# -- what is broken, and takes nothing down


@pytest.mark.parametrize(
    "error",
    [
        ImportError("no module named torchfoo"),
        ModuleNotFoundError("No module named 'acme'"),
        AttributeError("module 'acme' has no attribute 'plugin'"),
        SyntaxError("invalid syntax (acme.py, line 3)"),
        OSError("libacme.so: cannot open shared object file"),
        RuntimeError("broken"),
        KeyError("ACME_HOME"),
        AssertionError("never"),
        RecursionError("too deep"),
        MemoryError("none left"),
        UnicodeDecodeError("utf8", b"\xff", 0, 1, "invalid start byte"),
        SystemExit(3),
    ],
    ids=lambda e: type(e).__name__,
)
def test_a_plugin_that_does_not_load_is_reported(error):
    broken, fine = Point("broken", error), Point("fine", with_heads("fine-head"))
    registry = registry_of(broken, fine)
    reason = reason_of(registry, "broken")
    assert type(error).__name__ in reason
    assert str(error) in reason
    assert reason_of(registry, "fine") == ""
    assert registry.get("head", "fine-head")
    assert registry.get("backbone", "tinynet")


@pytest.mark.parametrize(
    "text", ["first line\nsecond line", "\n\nIMPORTANT: PLEASE READ THIS\n\nnumpy was compiled against 1.x\n"]
)
def test_a_reason_is_one_line(text):
    """It is a cell of a table; numpy's own ImportError has twelve lines."""
    registry = registry_of(Point("broken", ImportError(text)))
    assert "\n" not in reason_of(registry, "broken")


@pytest.mark.parametrize("error", [PluginError, DataError])
@pytest.mark.parametrize(("hint", "reason"), [("buy one", "acme needs a GPU; buy one"), ("", "acme needs a GPU")])
def test_an_error_that_is_ours_says_what_and_what_next(error, hint, reason):
    registry = registry_of(Point("broken", error("acme needs a GPU", hint)))
    assert reason_of(registry, "broken") == reason


NAMES = ["a/b", "../b", "b ", "-b", ".b", "b..c", "b\nc", "größe", "con", "b.", "x" * 81, ""]


@pytest.mark.parametrize("name", NAMES)
def test_a_plugin_whose_name_is_outside_the_grammar_is_reported(name):
    registry = registry_of(Point(name, with_heads("a")), Point("fine", with_heads("fine-head")))
    assert reason_of(registry, name).startswith(f"a plugin cannot be called {name!r}; use letters, digits")
    assert registry.get("head", "fine-head")
    assert "a" not in registry.entries("head")


@pytest.mark.parametrize("name", NAMES)
def test_a_spec_whose_name_is_outside_the_grammar_is_reported(name):
    registry = registry_of(Point("odd", with_heads(name)), Point("fine", with_heads("fine-head")))
    expected = f"pocketzoo_heads: a head cannot be called {name!r}; use letters, digits"
    assert reason_of(registry, "odd").startswith(expected)
    assert registry.get("head", "fine-head")
    assert name not in registry.entries("head")


@pytest.mark.parametrize(
    "name", ["pocketzoo_backbonez", "pocketzoo_head", "pocketzoo_Heads", "pocketzoo_", "heads", "pocketzoo_models"]
)
def test_a_misspelt_hook_is_reported_by_its_name(name):
    registry = registry_of(
        Point("misspelt", plugin(**{name: lambda: [], "pocketzoo_heads": lambda: [head("never")]})),
        Point("fine", with_heads("fine-head")),
    )
    assert repr(name) in reason_of(registry, "misspelt")
    assert "never" not in registry.entries("head")
    assert registry.get("head", "fine-head")


@pytest.mark.parametrize("name", [name for name in vars(hookspecs) if name.startswith("pocketzoo_")])
def test_a_hook_that_wants_arguments_is_reported(name):
    registry = registry_of(Point("greedy", plugin(**{name: lambda registry: []})))
    reason = reason_of(registry, "greedy")
    assert name in reason
    assert "registry" in reason
    assert "\n" not in reason


@pytest.mark.parametrize(
    "nothing",
    [ModuleType("empty"), object(), 42, "text", None, SimpleNamespace(pocketzoo_heads=list)],
    ids=["module", "object", "number", "text", "None", "namespace"],
)
def test_a_plugin_without_hooks_is_reported(nothing):
    registry = registry_of(Point("empty", nothing), Point("fine", with_heads("fine-head")))
    assert reason_of(registry, "empty")
    assert registry.get("head", "fine-head")


def test_a_plain_function_is_no_hook_and_the_reason_says_how_to_make_it_one():
    module = ModuleType("acme")
    module.pocketzoo_heads = lambda: [head("unmarked")]
    registry = registry_of(Point("unmarked", module))
    assert "implements no hook" in reason_of(registry, "unmarked")
    assert "unmarked" not in registry.entries("head")


def raises(error):
    def hook():
        raise error

    return hook


def yields_then_raises():
    yield head("half")
    raise RuntimeError("after one")


@pytest.mark.parametrize(
    ("hook", "text"),
    [
        (raises(RuntimeError("no license found")), "RuntimeError: no license found"),
        (raises(ImportError("no torch")), "ImportError: no torch"),
        (lambda: None, "TypeError"),
        (lambda: 3, "TypeError"),
        (lambda: [None], "None"),
        (lambda: ["resnet18"], "'resnet18' is not a HeadSpec; return instances of HeadSpec"),
        (lambda: [{"name": "resnet18"}], "{'name': 'resnet18'} is not a HeadSpec"),
        (yields_then_raises, "after one"),
    ],
    ids=["raises", "import error", "None", "number", "[None]", "text", "dict", "generator"],
)
def test_a_hook_that_fails_when_asked_is_reported(hook, text):
    registry = registry_of(
        Point("failing", plugin(pocketzoo_heads=hook, pocketzoo_datasets=lambda: [dataset("still-here")])),
        Point("fine", with_heads("fine-head")),
    )
    assert {"fine-head", "linear"} <= set(registry.entries("head"))
    assert "half" not in registry.entries("head")
    reason = reason_of(registry, "failing")
    assert "pocketzoo_heads" in reason
    assert text in reason
    assert reason_of(registry, "fine") == ""
    assert registry.get("dataset", "still-here")


@pytest.mark.parametrize(
    "declared",
    [
        SimpleNamespace(name="thing"),
        dataset("thing"),
        HeadSpec,
        head(3),  # type: ignore[arg-type]
    ],
    ids=["namespace", "spec of another kind", "class", "name that is not a text"],
)
def test_what_is_no_spec_of_the_kind_is_reported_and_not_registered(declared):
    registry = registry_of(Point("odd", plugin(pocketzoo_heads=lambda: [declared])))
    assert "pocketzoo_heads" in reason_of(registry, "odd")
    assert set(registry.entries("head")) == set(Registry(create_manager(points=[])).entries("head"))


def test_a_property_that_raises_is_not_touched_or_its_plugin_is_out():
    class Acme:
        @property
        def broken(self):
            raise RuntimeError("touched")

        @pocketzoo.hookimpl
        def pocketzoo_heads(self):
            return [head("acme-head")]

    registry = registry_of(Point("acme", Acme()))
    used = "acme-head" in registry.entries("head")
    assert used == (reason_of(registry, "acme") == "")


# -- names


def test_one_name_in_two_plugins_names_both(refused):
    registry = registry_of(Point("one", with_heads("same")), Point("two", with_heads("same")))
    with refused(DuplicateNameError, "head 'same'", "one", "two", hint="POCKETZOO_PLUGINS"):
        registry.entries("head")
    assert registry.get("backbone", "tinynet")  # other kinds are not concerned


def test_a_name_that_ships_with_pocketzoo_cannot_be_taken(refused):
    registry = registry_of(Point("acme", with_heads("linear")))
    with refused(DuplicateNameError, "head 'linear'", "heads", "acme"):
        registry.get("head", "linear")


def test_one_name_twice_in_one_plugin_is_an_error(refused):
    registry = registry_of(Point("acme", with_heads("same", "same")))
    with refused(DuplicateNameError, "head 'same'", "acme"):
        registry.entries("head")


def test_one_name_may_be_of_two_kinds():
    registry = registry_of(
        Point("acme", plugin(pocketzoo_heads=lambda: [head("same")], pocketzoo_datasets=lambda: [dataset("same")]))
    )
    assert registry.get("head", "same") is not registry.get("dataset", "same")
    assert reason_of(registry, "acme") == ""


def test_a_plugin_name_declared_twice_keeps_the_first():
    first, second = Point("acme", with_heads("a")), Point("acme", with_heads("b"))
    registry = registry_of(first, second)
    reasons = [p.reason for p in registry.plugins() if p.name == "acme"]
    assert reasons[0] == ""
    assert "'acme' is already loaded" in reasons[1]
    assert "a" in registry.entries("head")
    assert "b" not in registry.entries("head")


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_name_of_a_built_in_plugin_cannot_be_taken(name):
    registry = registry_of(Point(name, with_heads("b")))
    assert f"{name!r} is already loaded" in reason_of(registry, name)
    assert "b" not in registry.entries("head")


def test_one_module_under_two_names_is_used_once():
    module = with_heads("a")
    registry = registry_of(Point("one", module), Point("two", module))
    assert registry.entries("head")["a"].plugin == "one"
    assert reason_of(registry, "one") == ""
    assert reason_of(registry, "two")


# -- POCKETZOO_PLUGINS


@pytest.mark.parametrize(
    ("value", "admitted"),
    [
        (None, {"a", "b", "c"}),
        ("", set()),
        (" ", set()),
        (",", set()),
        ("a,b", {"a", "b"}),
        (" a , b ", {"a", "b"}),
        ("a,,b,", {"a", "b"}),
        ("c", {"c"}),
        ("nothing", set()),
        ("A", set()),
    ],
)
def test_the_environment_admits_plugins(monkeypatch, value, admitted):
    if value is not None:
        monkeypatch.setenv("POCKETZOO_PLUGINS", value)
    points = [Point(n, with_heads(f"{n}-head")) for n in "abc"]
    registry = registry_of(*points)
    heads = set(registry.entries("head"))
    for point in points:
        inside = point.name in admitted
        assert (f"{point.name}-head" in heads) == inside
        assert bool(point.loads) == inside, "one that is turned off is not even imported"
        assert reason_of(registry, point.name) == ("" if inside else "turned off by POCKETZOO_PLUGINS")
    assert registry.get("backbone", "tinynet"), "what ships with pocketzoo is always there"


@given(st.lists(st.text("ab-_ .", min_size=1, max_size=5)))
def test_wanted_reads_a_list_separated_by_commas(names):
    assert wanted(",".join(names)) == frozenset(n.strip() for n in names if n.strip())


def test_unset_admits_all():
    assert wanted(None) is None
    assert wanted("") == frozenset()


# -- installed for real


def test_an_installed_plugin_is_found_and_a_broken_one_does_not_stop_the_command_line(tmp_path):
    """Real entry points: two distributions in a folder on the path, as pip would leave them."""
    for name, body in {
        "acme_good": "import pocketzoo\nfrom pocketzoo.zoo.catalog.specs import HeadSpec\n"
        "@pocketzoo.hookimpl\ndef pocketzoo_heads():\n"
        "    return [HeadSpec(name='acme', summary='s', takes=('map',), returns='logits', build=print)]\n",
        "acme_bad": "import surely_not_installed\n",
    }.items():
        (tmp_path / f"{name}.py").write_text(body)
        info = tmp_path / f"{name}-0.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.5\n")
        (info / "entry_points.txt").write_text(f"[pocketzoo]\n{name} = {name}\n")

    path = os.pathsep.join([str(tmp_path), *sys.path])

    def command(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "pocketzoo", *arguments]
        environment = {**os.environ, "PYTHONPATH": path, **more}
        return subprocess.run(line, capture_output=True, text=True, timeout=600, check=False, env=environment)

    found = {p["name"]: p for p in json.loads(command("plugins", "--json").stdout)}
    assert found["acme_good"] == {"name": "acme_good", "origin": "acme_good 0.5", "reason": "", "partly": False}
    assert "surely_not_installed" in found["acme_bad"]["reason"]
    listed = command("list", "acme")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "acme_good" in listed.stdout
    off = command("list", "acme", POCKETZOO_PLUGINS="")
    assert off.returncode == 1
    assert "nothing is registered that matches 'acme'" in off.stderr
    shown = command("plugins").stdout
    assert "acme_bad" in shown
    assert "not in use: ModuleNotFoundError" in shown


def test_hookspecs_are_all_hooks_and_take_no_arguments():
    hooks = pluggy.PluginManager(hookspecs.PROJECT)
    hooks.add_hookspecs(hookspecs)
    specs = [n for n in vars(hookspecs) if n.startswith("pocketzoo_")]
    assert len(specs) == len(KINDS)
    for name in specs:
        assert getattr(hooks.hook, name).spec.argnames == ()
        assert getattr(hookspecs, name).__doc__
