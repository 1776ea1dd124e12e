"""What differs between tasks, processors, back ends, decoders and compressors is asked of them, never of their names.

No module of the core compares with, or keys on, the name or type of one that ships: a third party's would be left out.
The names are those that the registry lists; the types are their configs, plans and answers, and what they open. What
breaks the rule today is listed in ``rule.json``, file -> how often; the numbers may only become less.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.tasks.decoders import answers

ROOT = Path(__file__).parent.parent / "pocketzoo"
LISTED: dict[str, int] = json.loads((Path(__file__).parent / "rule.json").read_text("utf8"))
KINDS = ("task", "decoder", "processor", "backend", "compressor")
# Glob of files -> why the rule is not for them.
EXCEPTED = {
    "plugins/*": "they are what ships",
    "testing/*": "the conformance suite tries a compressor that it knows with a config that does something",
    "zoo/backends/*/*": "a back end's own room, which knows its facts",
    "core/moved.py": "old names -> new ones, of modules",
    "core/renamed.py": "old names -> new ones",
    "zoo/catalog/former_words.py": "lists the words of the previous release, for who imports them",
    "zoo/bundles/format_1.py": "reads what the previous release wrote, where nothing else could be meant",
}
# Names that are words of something else too -> what. They count where the other side of the comparison is called so.
WORDS = {
    "int8": "a number format",
    "torch": "a package",
    "onnxruntime": "a package",
    "tensorrt": "a package, a target and an exporter",
    "tensorrt-rtx": "a target and an exporter",
    "openvino": "a target",
    "onnx": "an exporter",
    "image": "the name of an input",
    "text": "the name of an input",
    "table": "a form of data",
    "arrays": "a form of data",
    "logits": "the name of an output",
    "values": "a method of mappings",
    "embedding": "a head",
}
SAID_BY = ("task", "decoder", "processor", "backend", "compressor", "modality", "returns", "gives", "step")
METHODS = ("startswith", "endswith", "removeprefix", "removesuffix", "partition", "index", "count", "find")
LOOKUPS = ("get", "entry", "pop", "setdefault")
Places = Iterator[tuple[int, str]]


@cache
def names() -> frozenset[str]:
    """What is registered, and the words of previous releases that stand for it."""
    registry = Registry(create_manager(points=[]))
    found = set()
    for kind in KINDS:
        for entry in registry.entries(kind).values():
            found |= {entry.name, *getattr(entry.spec, "former", ())}
            if kind == "processor":
                found.add(entry.spec.modality)
    return frozenset(found | {"logits", "token-logits", "next-token-logits", "values", "q-values", "embedding"})


@cache
def types() -> frozenset[str]:
    """The classes that belong to one that ships: configs, plans, answers, and those whose objects it opens."""
    registry = Registry(create_manager(points=[]))
    found = {"InputSpec", "TextSpec"}
    for kind in KINDS:
        for entry in registry.entries(kind).values():
            for field in ("config", "plan_type", "facts", "answers"):
                cls = getattr(entry.spec, field, None)
                found |= {cls.__name__} if isinstance(cls, type) else set()
    classes = [c for c in vars(answers).values() if inspect.isclass(c) and c.__module__ == answers.__name__]
    found |= {c.__name__ for c in classes if is_dataclass(c)}
    return frozenset(found)


@cache
def parsed() -> Mapping[str, ast.Module]:
    """The files that the rule is for."""
    paths = {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.rglob("*.py"))}
    return {
        name: ast.parse(path.read_text("utf8"))
        for name, path in paths.items()
        if not any(fnmatchcase(name, glob) for glob in EXCEPTED)
    }


def called_so(node: ast.AST) -> set[str]:
    """The words by which an expression says what it is: ``step.kind`` both, ``steps[0].precision`` that alone."""
    if isinstance(node, (ast.Name, ast.Attribute)):
        name = node.id if isinstance(node, ast.Name) else node.attr
        more = called_so(node.value) if isinstance(node, ast.Attribute) and name in ("kind", "name", "get") else set()
        return {*name.lower().split("_"), *more}
    if isinstance(node, ast.Subscript):
        return called_so(node.value) | {word for text in constants(node.slice) for word in text.split("_")}
    if isinstance(node, ast.Call):
        return called_so(node.func)
    return set().union(*map(called_so, ast.iter_child_nodes(node)))


def constants(node: ast.AST) -> set[str]:
    """Texts in an expression, those in collections included, but no part of a call or of an f-string."""
    if isinstance(node, ast.Constant):
        return {node.value} if isinstance(node.value, str) else set()
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        return set().union(*map(constants, node.elts))
    if isinstance(node, ast.Dict):
        return set().union(*(constants(key) for key in node.keys if key))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("frozenset", "set", "tuple"):
        return set().union(*map(constants, node.args))
    if isinstance(node, ast.BinOp):
        return constants(node.left) | constants(node.right)
    return set()


def classes(node: ast.AST, known: frozenset[str] | set[str]) -> set[str]:
    """Classes of ``known`` that an expression is made of: one, a union or a tuple of them."""
    if isinstance(node, ast.Name):
        return {node.id} & known
    if isinstance(node, ast.Attribute):
        return {node.attr} & known
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        return set().union(*(classes(each, known) for each in node.elts))
    if isinstance(node, ast.BinOp):
        return classes(node.left, known) | classes(node.right, known)
    if isinstance(node, ast.Subscript):
        return classes(node.value, known)
    return set()


def assigned(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """What a module gives a name at its top."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            yield node.target.id, node.value


@cache
def aliases() -> tuple[Mapping[str, frozenset[str]], Mapping[str, str]]:
    """Constants that hold names of ours, NAME -> names, and those that stand for types, anywhere in the core."""
    held: dict[str, frozenset[str]] = {}
    stands: dict[str, str] = {}
    for tree in parsed().values():
        for name, value in assigned(tree):
            if found := constants(value) & names():
                held[name] = held.get(name, frozenset()) | found
            if found := classes(value, types()):
                stands[name] = min(found)
        for node in ast.walk(tree):  # import InputSpec as Picture
            for alias in node.names if isinstance(node, ast.ImportFrom) else ():
                if alias.asname and alias.name in types():
                    stands[alias.asname] = alias.name
    return held, stands


def meant(found: set[str], other: ast.AST) -> set[str]:
    """Of the names, those that mean one of ours next to what they are held against."""
    said = called_so(other)
    ours = any(word in said or f"{word}s" in said for word in SAID_BY)
    return {name for name in found if name not in WORDS or ours}


def of(node: ast.AST) -> set[str]:
    """Names of ours in an expression, written there or held by a constant."""
    held, _ = aliases()
    found = constants(node) & names()
    for name in [node.id] if isinstance(node, ast.Name) else [node.attr] if isinstance(node, ast.Attribute) else []:
        found |= held.get(name, frozenset()) if name.isupper() else set()
    return found


def compared(node: ast.Compare) -> Iterator[str]:
    """What a comparison has of ours."""
    _, stands = aliases()
    known = types() | set(stands)
    sides = [node.left, *node.comparators]
    for i, side in enumerate(sides):
        others = ast.Tuple([other for j, other in enumerate(sides) if j != i])
        yield from meant(of(side), others)
        yield from classes(side, known)


def called(node: ast.Call) -> Iterator[str]:
    """What a call asks by a name or type of ours."""
    _, stands = aliases()
    known = types() | set(stands)
    function = node.func
    if isinstance(function, ast.Name) and function.id in ("isinstance", "issubclass") and len(node.args) == 2:
        yield from classes(node.args[1], known)
    if isinstance(function, ast.Attribute):
        texts = set().union(*map(constants, node.args)) if node.args else set()
        if function.attr in METHODS:
            near = {t for t in texts for name in names() if len(t) > 3 and (name.startswith(t) or name.endswith(t))}
            yield from meant(near | (texts & names()), function.value)
        if function.attr in LOOKUPS and node.args:
            asks = isinstance(node.args[0], ast.Constant) and node.args[0].value in KINDS
            if asks:  # registry.get("compressor", name), no mapping's get(key, default)
                yield from set().union(*(of(each) for each in node.args[1:]))
            else:
                yield from meant(of(node.args[0]), function.value)
    if isinstance(function, ast.Name) and function.id == "singledispatch":
        yield "singledispatch"


def _quoted(node: ast.AST) -> set[str]:
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()


def matched(node: ast.match_case, subject: ast.expr) -> Iterator[str]:
    """What a case of a match statement has of ours."""
    _, stands = aliases()
    for each in ast.walk(node.pattern):
        if isinstance(each, ast.MatchValue):
            yield from meant(of(each.value), subject)
        if isinstance(each, ast.MatchClass):
            yield from classes(each.cls, types() | set(stands))
        if isinstance(each, ast.MatchMapping):
            for key in each.keys:
                yield from meant(of(key), subject)


def broken(tree: ast.Module) -> Places:
    """Where a file breaks the rule, and on what."""
    _, stands = aliases()
    known = types() | set(stands)
    annotations = {id(each) for node in ast.walk(tree) for part in annotated(node) for each in ast.walk(part)}
    owner = {id(child): node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if id(node) in annotations:
            continue
        found: set[str] = set()
        if isinstance(node, ast.Compare):
            found = set(compared(node))
        elif isinstance(node, ast.Call):
            found = set(called(node))
        elif isinstance(node, ast.Match):
            found = set().union(*(matched(case, node.subject) for case in node.cases))
        elif isinstance(node, ast.Dict):
            target = owner[id(node)]
            where = target.targets[0] if isinstance(target, ast.Assign) else target
            where = target.target if isinstance(target, ast.AnnAssign) else where
            where = where if isinstance(where, (ast.Name, ast.Attribute)) else ast.Tuple([])
            found = set().union(
                *(meant(_quoted(key) & names(), where) | classes(key, known) for key in node.keys if key)
            )
        elif isinstance(node, ast.Subscript):
            found = meant(of(node.slice), node.value) | classes(node.slice, known)
            if classes(node.value, {"Literal", "Mapping", "dict", "tuple", "list", "Callable", "type", "cast"}):
                found = set()  # an annotation outside of its place: Input = Mapping[str, InputSpec]
        if found:
            yield node.lineno, ", ".join(sorted(found))


def annotated(node: ast.AST) -> Iterator[ast.expr]:
    """The annotations of a node, which are never evaluated."""
    for field in ("annotation", "returns"):
        part = getattr(node, field, None)
        if isinstance(part, ast.expr):
            yield part


@cache
def violations() -> Mapping[str, list[tuple[int, str]]]:
    found = {name: sorted(set(broken(tree))) for name, tree in parsed().items()}
    return {name: places for name, places in found.items() if places}


def test_the_core_asks_no_name_and_no_type():
    worse = {name: places for name, places in violations().items() if len(places) > LISTED.get(name, 0)}
    assert not worse, "ask the spec or the object, so that a plugin can say it too:\n" + "\n".join(
        f"pocketzoo/{name}:{line}: {what}" for name, places in worse.items() for line, what in places
    )


def test_the_list_has_no_file_that_is_mended():
    assert not {name for name in LISTED if name not in violations()}, "take them out of rule.json"


@pytest.mark.parametrize("glob", EXCEPTED)
def test_what_is_excepted_exists(glob):
    assert [path for path in ROOT.rglob("*.py") if fnmatchcase(path.relative_to(ROOT).as_posix(), glob)]


def test_there_are_names_and_types():
    assert {"prune", "low-rank", "int8", "distill"} <= names()
    assert {"PruneConfig", "Int8Config", "Int8Plan", "InputSpec", "TextSpec"} <= types()
    assert len(parsed()) > 200


BREAKS = [
    'x = step.kind == "prune"',
    'x = "prune" != step.kind',
    'x = step.kind in ("prune", "other")',
    'x = "prune" in kinds',
    'x = step.kind == "int8"',
    'x = config_of[step] == {"prune": 1}',
    'PRUNING = "prune"\nx = step.kind == PRUNING',
    'KNOWN = frozenset({"low-rank"})\nx = word in KNOWN',
    'x = {"low-rank": 1}[word]',
    "TABLE = {PruneConfig: 1}",
    'x = table["low-rank"]',
    "x = table[Int8Config]",
    'x = table.get("low-rank", 1)',
    'x = registry.get("compressor", "int8")',
    'x = word.startswith("low-")',
    "x = isinstance(config, Int8Config)",
    "x = isinstance(config, (Int8Config, PruneConfig))",
    "x = isinstance(config, Int8Config | None)",
    "x = issubclass(cls, configs.Int8Config)",
    "Input = InputSpec | TextSpec\nx = isinstance(spec, Input)",
    "from pocketzoo.api import InputSpec as Image\nx = isinstance(spec, Image)",
    "x = type(config) is Int8Config",
    "x = config.__class__ == Int8Config",
    'match step.kind:\n    case "prune" | "low-rank":\n        x = 1',
    "match config:\n    case PruneConfig(ratio=r):\n        x = 1",
    'match row:\n    case {"low-rank": r}:\n        x = 1',
]
KEEPS = [
    'x = precision == "int8"',
    'x = steps[0].precision == "int8"',
    'x = {"int8": 8, "fp16": 16}[precision]',
    'x = "torch" in sys.modules',
    'x = outputs["logits"]',
    "x = Int8Config(ranges='minmax')",
    "x = isinstance(config, type(other))",
    "def f(config: Int8Config | None) -> dict[str, PruneConfig]: ...",
    "x: Mapping[str, Int8Config] = {}",
    "Table = Mapping[str, PruneConfig]",
    'Word = Literal["prune", "low-rank"]',
    'x = f"prune {ratio}"',
    'x = spec.form == "module"',
]


@pytest.mark.parametrize("code", BREAKS)
def test_a_breach_is_seen(code, monkeypatch):
    assert [*seen(code, monkeypatch)]


@pytest.mark.parametrize("code", KEEPS)
def test_what_is_no_breach_passes(code, monkeypatch):
    assert [*seen(code, monkeypatch)] == []


def seen(code: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    tree = ast.parse(code)
    monkeypatch.setitem(globals(), "parsed", lambda: {"some/file.py": tree})
    monkeypatch.setitem(globals(), "aliases", cache(aliases.__wrapped__))
    return list(broken(tree))
