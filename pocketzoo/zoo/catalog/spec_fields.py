"""Check the fields of specs by their annotations: strictly, and so cheaply that 10,000 are declared at once."""

from __future__ import annotations

import builtins
import reprlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from operator import attrgetter
from types import UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from pocketzoo.core.errors import PluginError
from pocketzoo.core.names import RULE, SUFFIX_RULE, WORD_RULE, is_name, is_suffix, is_word

# Fields whose text, or whose texts, become part of a file's name or are the name of another spec.
PARTS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "precision": (is_word, WORD_RULE),
    "precisions": (is_word, WORD_RULE),
    "suffix": (is_suffix, SUFFIX_RULE),
    "suffixes": (is_suffix, SUFFIX_RULE),
    "modality": (is_word, WORD_RULE),
    "decoder": (is_name, RULE),
    "default_target": (is_name, RULE),
    "backend": (is_name, RULE),
    "target": (is_name, RULE),
}


def _is_config(value: object) -> bool:
    return is_dataclass(value) and not isinstance(value, type)


# Fields that are a config of any plugin's, whatever their annotation says.
CONFIGS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "input": (_is_config, "give the config of its processor, such as InputSpec(...)"),
}
WORDS: Mapping[Any, str] = {
    str: "a text", int: "a whole number", float: "a number", bool: "True or False", type(None): "None",
}  # fmt: skip


def check_spec(spec: Any, *, deep: bool = True) -> None:
    """Refuse a spec with a field of a wrong type: a text where a tuple belongs, nothing where a function does.

    Without ``deep``, which takes a tenth of the time, not what is in collections and in specs within it.

    Raises:
        PluginError: the first such field, by name; the hint says what it must be.
    """
    if deep:
        _check_both(spec, spec.name)
    else:
        _checker(type(spec)).check(spec, spec.name)


class _Checker:
    """The fields of one class. Specs whose fields have the same types are alike: the first of them is looked at."""

    def __init__(self, cls: type[Any]) -> None:
        self.cls, self.hints = cls, hints(cls)
        self.values = attrgetter(*self.hints, "__class__")  # with two names at least it gives a tuple
        self.seen: set[tuple[type[Any], ...]] = set()
        # What the type of a value does not tell: which text it is, what a collection has in it, what a spec has.
        self.parts = {f.name: f.default for f in fields(cls) if f.name in PARTS or f.name in CONFIGS}
        self.within = [(name, set[Any]()) for name, hint in self.hints.items() if _is_deep(hint)]

    def check(self, spec: Any, owner: str) -> None:
        types = tuple(map(type, self.values(spec)))
        if types not in self.seen:
            for name in self.hints:
                self.check_field(spec, owner, name)
            self.seen.add(types)

    def check_within(self, spec: Any, owner: str) -> None:
        for name, alike in self.within:
            value = getattr(spec, name)
            if _is_spec(value):
                _check_both(value, owner)
            elif value:  # what is empty fits
                items = _items(value)
                if items not in alike:
                    self.check_field(spec, owner, name)
                    for each in _specs(value):
                        _check_both(each, owner)
                    if items is not None:
                        alike.add(items)
        for name, default in self.parts.items():
            is_part, rule = PARTS.get(name) or CONFIGS[name]
            value = getattr(spec, name)
            if value == default:  # "" may mean that there is none
                continue
            for text in value if isinstance(value, tuple) else (value,):
                if not is_part(text):
                    raise self.wrong(spec, owner, name, rule)

    def check_field(self, spec: Any, owner: str, name: str) -> None:
        if not _fits(self.hints[name], getattr(spec, name)):
            raise self.wrong(spec, owner, name, f"{name} must be {_words(self.hints[name])}")

    def wrong(self, spec: Any, owner: str, name: str, rule: str) -> PluginError:
        value = reprlib.repr(getattr(spec, name))
        return PluginError(f"{self.cls.__name__}.{name} of {owner!r} cannot be {value}", rule)


_checkers: dict[type[Any], _Checker] = {}


def _checker(cls: type[Any]) -> _Checker:
    if cls not in _checkers:
        _checkers[cls] = _Checker(cls)
    return _checkers[cls]


def _check_both(spec: Any, owner: str) -> None:
    checker = _checker(type(spec))
    checker.check(spec, owner)
    checker.check_within(spec, owner)


class _Heavy(type):
    """What an annotation names and nobody imported, as ``nn.Module``: whatever is asked of it is that again."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __getitem__(cls, item: Any) -> Any:
        return cls


class _Unknown(metaclass=_Heavy):
    """A type that nothing is held against."""


class _Missing(Mapping[str, Any]):
    """The names that neither a module nor Python has."""

    def __init__(self, module: Mapping[str, Any]) -> None:
        self.module = module

    def __getitem__(self, name: str) -> Any:
        if name in self.module or hasattr(builtins, name):
            raise KeyError(name)
        return _Unknown

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def hints(cls: type[Any]) -> dict[str, Any]:
    """Field -> its annotation, without importing what is imported for type checkers alone."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        own = vars(base).get("__annotations__", {})
        if is_dataclass(base) and own:
            single = type(base.__name__, (), {"__annotations__": own, "__module__": base.__module__})
            found |= get_type_hints(single, localns=_Missing(vars(sys.modules[base.__module__])))
    found |= dict.fromkeys(CONFIGS.keys() & found.keys(), Any)
    return {f.name: found[f.name] for f in fields(cls) if get_origin(found[f.name]) is not ClassVar}


def _is_spec(value: Any) -> bool:
    """Whether it is an object of one of our own dataclasses; a plugin's config checks itself."""
    return type(value).__module__.startswith("pocketzoo.zoo.catalog.") and is_dataclass(value)


def _specs(value: Any) -> Iterator[Any]:
    """The specs in a collection."""
    for each in value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else ():
        if _is_spec(each):
            yield each


def _items(value: Any) -> Any:
    """What tells whether the items of a collection, or a text, fit: a text itself, numbers by their types.

    None where that is not all: of mappings, of tuples of specs.
    """
    if isinstance(value, tuple):
        types = tuple(map(type, value))
        if numbers.issuperset(types):
            return types
        return value if texts.issuperset(types) else None
    return value if isinstance(value, str) else None


numbers, texts = frozenset({int, float}), frozenset({str, int})


def _is_deep(hint: Any) -> bool:
    """Whether a value's own type does not tell if it fits."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(map(_is_deep, args))
    return origin in (Literal, tuple) or is_dataclass(hint) or (_is_mapping(origin) and args[1] is not Any)


def _is_mapping(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _fits(hint: Any, value: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(each, value) for each in args)
    if origin is Literal:
        return isinstance(value, str) and value in args
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if args[-1] is Ellipsis:
            return all(_fits(args[0], each) for each in value)
        return len(value) == len(args) and all(map(_fits, args, value))
    if _is_mapping(origin):
        return isinstance(value, Mapping) and all(
            _fits(args[0], key) and _fits(args[1], each) for key, each in value.items()
        )
    if origin is type or hint is type:
        return isinstance(value, type)
    if origin is not None or hint is Callable:
        return callable(value)  # Callable[..., nn.Module]
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if not isinstance(hint, type) or hint in (_Unknown, Any):  # Any is a class from Python 3.11 on
        return True  # Any, a type variable, or what nobody imported
    return isinstance(value, hint)


def _words(hint: Any) -> str:
    """What fits, in words."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(_words, args)))
    if origin is Literal:
        return "one of " + ", ".join(map(repr, args))
    if origin is tuple and args[-1] is Ellipsis:
        return f"a tuple, of each item {_words(args[0])}"
    if origin is tuple:
        return f"a tuple of {len(args)}: {', '.join(map(_words, args))}"
    if _is_mapping(origin):
        return f"a mapping of {_words(args[0])} to {_words(args[1])}"
    if origin is type or hint is type:
        return "a class"
    if origin is not None or hint is Callable:
        return "a function"
    return WORDS.get(hint) or ("anything" if hint in (Any, _Unknown) else f"a {getattr(hint, '__name__', hint)}")
