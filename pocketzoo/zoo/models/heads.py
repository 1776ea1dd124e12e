"""Options of heads and backbones: read and check them, build the head, list the heads that fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pocketzoo.core.errors import HeadMismatchError, RecipeError, UnknownNameError
from pocketzoo.core.renamed import keywords_renamed
from pocketzoo.core.typed import from_texts, to_plain
from pocketzoo.zoo.catalog.head_task import head_task
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import FEATURES, BackboneSpec, FeatureSpecs, HeadSpec
from pocketzoo.zoo.modules.features import FeatureChoice

if TYPE_CHECKING:
    from torch import nn

ALL = "*"  # in what a head reads: every feature of the backbone


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
    head: HeadSpec, features: FeatureSpecs, outputs: int, values: Mapping[str, Any] | None = None
) -> nn.Module:
    """The module of a head, untrained.

    Raises:
        RecipeError: as ``read_options``.
        HeadMismatchError: with these options the head cannot read such features.
    """
    options = read_options(head, values or {})
    return head.build(features, outputs) if options is None else head.build(features, outputs, options)


def feature_choice(head: HeadSpec, backbone: BackboneSpec, features: FeatureSpecs) -> FeatureChoice:
    """Which of a backbone's features a head reads; ``features`` are all of it, or those after a cut.

    Raises:
        HeadMismatchError: it has none of such a name or kind, or several where the head reads one.
    """
    named = features if isinstance(features, Mapping) else {FEATURES: features}
    if head.backbone not in ("", backbone.name):
        raise _mismatch(f"head {head.name!r} takes the backbone {head.backbone}", backbone, features)
    every = head.reads == (ALL,)
    if not head.reads and len(named) != 1:
        raise _mismatch(f"head {head.name!r} reads one tensor", backbone, features)
    names = tuple(named) if every or not head.reads else head.reads
    if lacking := [name for name in names if name not in named]:
        raise _mismatch(f"head {head.name!r} reads the features {lacking[0]!r}", backbone, features)
    if not names or any(named[name].kind not in head.takes for name in names):
        raise _mismatch(f"head {head.name!r} takes a {' or '.join(head.takes)}", backbone, features)
    return FeatureChoice(
        {name: named[name] for name in names}, isinstance(features, Mapping), together=every or len(names) > 1
    )


def _mismatch(what: str, backbone: BackboneSpec, features: FeatureSpecs) -> HeadMismatchError:
    return HeadMismatchError(f"{what}; {backbone.name} outputs {_words(features)}", "choose another head")


def _words(features: FeatureSpecs) -> str:
    if not isinstance(features, Mapping):
        return f"a {features.kind} {features.shape}"
    return " and ".join(f"{name!r}, a {spec.kind} {spec.shape}" for name, spec in features.items()) or "no features"


def channels(features: FeatureSpecs) -> int:
    """How many channels there are, of all features together."""
    every = features.values() if isinstance(features, Mapping) else [features]
    return sum(each.channels for each in every)


def heads_that_fit(
    features: FeatureSpecs, backbone: BackboneSpec, registry: Registry, *, trained: bool = False
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
        if _fits(entry.spec, backbone, features) and (not trained or can_be_trained(entry.spec))
    ]


def _fits(head: HeadSpec, backbone: BackboneSpec, features: FeatureSpecs) -> bool:
    try:
        feature_choice(head, backbone, features)
    except HeadMismatchError:
        return False
    return True
