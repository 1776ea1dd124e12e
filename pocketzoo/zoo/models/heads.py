"""Options of heads and backbones: read and check them, build the head, list the heads that fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pocketzoo.core.errors import RecipeError, UnknownNameError
from pocketzoo.core.renamed import keywords_renamed
from pocketzoo.core.typed import from_texts, to_plain
from pocketzoo.zoo.catalog.head_task import head_task
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import BackboneSpec, FeatureSpec, HeadSpec

if TYPE_CHECKING:
    from torch import nn


@keywords_renamed(given="values")
def read_options(spec: HeadSpec | BackboneSpec, values: Mapping[str, Any]) -> Any:
    """The options of a head or backbone, None where it takes none; texts are read by their type.

    A list may be one value or values with commas between: ``{"hidden": "512,128"}`` is ``(512, 128)``.

    Raises:
        RecipeError: it has no such option, or the value does not fit; the hint says what does.
    """
    owner = f"{'head' if isinstance(spec, HeadSpec) else 'backbone'} {spec.name!r}"
    if spec.options is None:
        if values:
            raise RecipeError(f"{owner} takes no options, but {min(values)!r} was given", "leave it out")
        return None
    return from_texts(spec.options, values, owner)


@keywords_renamed(given="values")
def plain_options(spec: HeadSpec | BackboneSpec, values: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a head or backbone as plain data, defaults included: a bundle keeps them, and outlives them.

    Raises:
        RecipeError: as ``read_options``.
    """
    options = read_options(spec, values)
    plain: dict[str, Any] = {} if options is None else to_plain(options)
    return plain


@keywords_renamed(given="values")
def configured(backbone: BackboneSpec, values: Mapping[str, Any]) -> BackboneSpec:
    """The spec of a backbone with these options; itself where it has none.

    Raises:
        RecipeError: as ``read_options``.
    """
    options = read_options(backbone, values)
    return backbone if backbone.configure is None else backbone.configure(options)


@keywords_renamed(given="values")
def build_head(
    head: HeadSpec, features: FeatureSpec, outputs: int, values: Mapping[str, Any] | None = None
) -> nn.Module:
    """The module of a head, untrained.

    Raises:
        RecipeError: as ``read_options``.
        HeadMismatchError: with these options the head cannot read such features.
    """
    options = read_options(head, values or {})
    return head.build(features, outputs) if options is None else head.build(features, outputs, options)


def heads_that_fit(
    features: FeatureSpec, backbone: BackboneSpec, registry: Registry, *, trained: bool = False
) -> list[str]:
    """Names of the registered heads that read ``features``; with ``trained`` those that ``fit`` can fit."""

    def can_be_trained(head: HeadSpec) -> bool:
        try:
            task = head_task(head, backbone.input, registry)
        except UnknownNameError:  # of a plugin that is not installed, or for what this does not read
            return False
        if task.training is None or (task.refuses is not None and task.refuses(backbone)[0]):
            return False
        return task.trained or head.weights is None

    return [
        entry.name
        for entry in registry.find(kind="head")
        if features.kind in entry.spec.takes
        and entry.spec.backbone in ("", backbone.name)
        and (not trained or can_be_trained(entry.spec))
    ]
