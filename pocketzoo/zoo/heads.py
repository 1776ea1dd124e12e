"""A head as it was asked for: its options read and checked, its module built, and which others would fit."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from pocketzoo.errors import RecipeError, nearest
from pocketzoo.zoo.registry import Registry
from pocketzoo.zoo.specs import METRICS, FeatureSpec, HeadSpec
from pocketzoo.zoo.typed import from_plain, to_plain

if TYPE_CHECKING:
    from torch import nn


def read_options(head: HeadSpec, given: Mapping[str, Any]) -> Any:
    """The options of a head, None where it takes none; texts, as a command line gives them, are read by their type.

    A list may be one value or values with commas between: ``{"hidden": "512,128"}`` is ``(512, 128)``.

    Raises:
        RecipeError: it has no such option, or the value does not fit; the hint says what does.
    """
    if head.options is None:
        if given:
            raise RecipeError(f"head {head.name!r} takes no options, and {min(given)!r} was given", "leave it out")
        return None
    hints = get_type_hints(head.options)
    known = [f.name for f in fields(head.options)]
    if unknown := [name for name in given if name not in known]:
        raise RecipeError(f"head {head.name!r} has no option {unknown[0]!r}", nearest(unknown[0], known))
    read = {}
    for name, value in given.items():
        try:
            read[name] = _read(hints[name], value)
        except ValueError:
            raise RecipeError(
                f"option {name!r} of head {head.name!r} cannot be {value!r}", f"give {_words(hints[name])}"
            ) from None
    return from_plain(head.options, read)


def plain_options(head: HeadSpec, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a head as plain data, defaults included: what a bundle keeps, so that it outlives them.

    Raises:
        RecipeError: as ``read_options``.
    """
    options = read_options(head, given)
    plain: dict[str, Any] = {} if options is None else to_plain(options)
    return plain


def build_head(
    head: HeadSpec, features: FeatureSpec, outputs: int, given: Mapping[str, Any] | None = None
) -> nn.Module:
    """The module of a head, untrained.

    Raises:
        RecipeError: as ``read_options``.
        HeadMismatchError: with these options the head cannot read such features.
    """
    options = read_options(head, given or {})
    return head.build(features, outputs) if options is None else head.build(features, outputs, options)


def heads_that_fit(features: FeatureSpec, backbone: str, registry: Registry, *, trained: bool = False) -> list[str]:
    """Names of the registered heads that read ``features``; with ``trained`` those that ``fit`` can fit."""
    return [
        entry.name
        for entry in registry.find(kind="head")
        if features.kind in entry.spec.takes
        and entry.spec.backbone in ("", backbone)
        and not (trained and (entry.spec.returns not in METRICS or entry.spec.weights is not None))
    ]


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
        return f"{_words(args[0])}, or several with commas between"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", type(None): "nothing"}
    return names.get(hint, str(hint))
