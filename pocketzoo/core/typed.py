"""Convert frozen dataclasses to plain data and back, strictly: how recipes and manifests are read."""

from __future__ import annotations

import types
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from functools import lru_cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pocketzoo.core.errors import RecipeError, nearest
from pocketzoo.core.renamed import with_new_names

T = TypeVar("T")

SEPARATE = {"separate": True}  # metadata of a field that is not plain data: whoever saves the object keeps it in a file


def to_plain(value: Any) -> Any:
    """Dataclasses become dicts without their ``SEPARATE`` fields, tuples become lists; what is plain already stays."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in fields(value) if not _is_separate(f)}
    if isinstance(value, Mapping):
        return {k: to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    return value


def _is_separate(field: Field[Any]) -> bool:
    return bool(field.metadata.get("separate", field.metadata.get("beside")))  # "beside": in the previous release


def from_plain(cls: type[T], data: Mapping[str, Any]) -> T:
    """Build ``cls`` from a mapping; nested dataclasses, tuples, dicts, unions and literals follow its annotations.

    Raises:
        RecipeError: an unknown, missing or wrongly typed field, named with its class.
    """
    return _build(cls, data, cls.__name__)


def with_changes(cls: type[T], base: Mapping[str, Any] | T | None, owner: str, **changes: Any) -> T:
    """``base``, built from options if it is not built yet, with ``changes``; of those, None changes nothing.

    Raises:
        RecipeError: a setting that is unknown, or cannot be what it is.
    """
    known = {name: value for name, value in changes.items() if value is not None}
    if base is not None and not isinstance(base, Mapping):
        return replace(base, **known)  # type: ignore[type-var]
    return from_texts(cls, {**(base or {}), **known}, owner)  # together: one by one they might not go


def from_texts(cls: type[T], texts: Mapping[str, Any], owner: str) -> T:
    """Build ``cls``, flat, from options as a command line gives them: texts are read by the type of their field.

    A list may be one value or values with commas between: ``{"hidden": "512,128"}`` is ``(512, 128)``. ``owner`` is
    whose options they are, for errors.

    Raises:
        RecipeError: there is no such option, or the value does not fit; the hint says what does.
    """
    texts, hints = with_new_names(cls, texts), get_type_hints(cls)
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    if unknown := [name for name in texts if name not in known]:
        raise RecipeError(f"{owner} has no option {unknown[0]!r}", nearest(unknown[0], known))
    read = {}
    for name, value in texts.items():
        try:
            read[name] = _read(hints[name], value)
        except ValueError:
            raise RecipeError(
                f"option {name!r} of {owner} cannot be {value!r}", f"give {_words(hints[name])}"
            ) from None
    return from_plain(cls, read)


def _build(cls: type[T], data: Any, where: str) -> T:
    if not isinstance(data, Mapping):
        raise RecipeError(f"{where} must be a table of fields, not {data!r}", "see docs/recipes.md")
    data = with_new_names(cls, data)
    known, hints = _fields_of(cls)  # type: ignore[arg-type]
    here = "" if where == cls.__name__ else f" ({where})"
    for name in data:
        if name not in known:
            raise RecipeError(f"no field of {cls.__name__} is called {name!r}{here}", nearest(name, known))
    for name, f in known.items():
        if name not in data and f.default is MISSING and f.default_factory is MISSING:
            raise RecipeError(f"{cls.__name__} needs a field {name!r}{here}", f"its fields: {', '.join(known)}")
    return cls(**{name: _convert(hints[name], value, f"{where}.{name}") for name, value in data.items()})


@lru_cache(maxsize=512)  # a manifest has a record for each layer, and reading annotations takes longer than the record
def _fields_of(cls: type) -> tuple[Mapping[str, Field[Any]], Mapping[str, Any]]:
    """The fields of a dataclass that plain data has, and the types of all."""
    return {f.name: f for f in fields(cls) if not _is_separate(f)}, get_type_hints(cls)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if is_dataclass(hint):
        return _build(hint, value, where)  # type: ignore[arg-type]
    if origin in (Union, types.UnionType):
        return _first_that_fits(args, value, where)
    if origin is Literal:
        if value not in args:
            raise RecipeError(f"{where} cannot be {value!r}", "one of: " + ", ".join(map(repr, args)))
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        if args[-1] is Ellipsis:
            return tuple(_convert(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
        if len(args) == len(value):
            return tuple(_convert(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(args, value, strict=True)))
    elif origin is not None and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {_convert(args[0], k, where): _convert(args[1], v, f"{where}[{k!r}]") for k, v in value.items()}
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        with suppress(OverflowError):  # an integer beyond 1.8e308
            return float(value)
    elif isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    type_name = getattr(hint, "__name__", str(hint)) if origin is None else str(hint)
    raise RecipeError(f"{where} must be {type_name}, not {value!r}", "correct the value")


def _first_that_fits(options: tuple[Any, ...], value: Any, where: str) -> Any:
    problem: RecipeError | None = None
    for option in options:
        if option is type(None):
            if value is None:
                return None
            continue
        try:
            return _convert(option, value, where)
        except RecipeError as error:
            # The most telling complaint is the one about a table's field, not about its type.
            problem = error if problem is None or "field" in error.message else problem
    raise problem or RecipeError(f"{where} cannot be {value!r}", "correct the value")


def _read(hint: Any, value: Any) -> Any:
    """A value as an option's type wants it.

    Raises:
        ValueError: it is none.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for each in args:
            try:
                return _read(each, value)
            except ValueError:
                continue
        raise ValueError
    if origin is Literal:
        if value not in args:
            raise ValueError
        return value
    if origin is tuple:
        parts = [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            parts = [parts]
        return tuple(_read(args[0], part) for part in parts)
    if hint is bool:
        words = {
            "true": True,
            "yes": True,
            "on": True,
            "1": True,
            "false": False,
            "no": False,
            "off": False,
            "0": False,
        }
        if isinstance(value, str) and value.lower() in words:
            return words[value.lower()]
        if not isinstance(value, bool):
            raise ValueError
        return value
    if hint in (int, float):
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError
        if isinstance(value, float) and hint is int and not value.is_integer():
            raise ValueError
        return hint(value)
    return value


def _words(hint: Any) -> str:
    """What fits a type, in words."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(each) for each in args)
    if origin is Literal:
        return "one of: " + ", ".join(map(str, args))
    if origin is tuple:
        return f"{_words(args[0])}, or several separated by commas"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", type(None): "nothing"}
    return names.get(hint, str(hint))
