"""A head as it was asked for: its options read and checked, its module built, and which others would fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pocketzoo.errors import RecipeError
from pocketzoo.zoo.registry import Registry
from pocketzoo.zoo.specs import METRICS, FeatureSpec, HeadSpec
from pocketzoo.zoo.typed import from_texts, to_plain

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
    return from_texts(head.options, given, f"head {head.name!r}")


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
