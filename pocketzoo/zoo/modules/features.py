"""The features of a backbone by name: which of them a head reads, and how it is called with them. Without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pocketzoo.core.errors import UnsupportedModelError
from pocketzoo.zoo.catalog.specs import FEATURES, FeatureSpec, FeatureSpecs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class FeatureChoice:
    """What a head reads of a backbone's features."""

    specs: Mapping[str, FeatureSpec]  # of those that it reads, by name
    named: bool = False  # the backbone returns them by name; else one tensor, which is called ``FEATURES``
    together: bool = False  # the head takes a mapping, and not one tensor

    @property
    def built_on(self) -> FeatureSpecs:
        """What the head is built on: the features of its name, or the mapping."""
        return dict(self.specs) if self.together else next(iter(self.specs.values()))

    def by_name(self, out: Any) -> dict[str, Tensor]:
        """The features that the head reads, of what the backbone returns.

        Raises:
            UnsupportedModelError: it returns one tensor where it states names, or names where it states none, or not
                all of those that it states.
        """
        if isinstance(out, Mapping) is not self.named:
            raise UnsupportedModelError(
                f"the backbone returns {_said(out)}, and states {_words(self.specs) if self.named else 'one tensor'}",
                "let forward return what features of its BackboneSpec say",
            )
        if not self.named:
            return {FEATURES: out}
        if lacking := [name for name in self.specs if name not in out]:
            raise UnsupportedModelError(
                f"the backbone returns {_said(out)}, and not {lacking[0]!r}, which its BackboneSpec states",
                "let forward return a tensor for each name in features",
            )
        return {name: out[name] for name in self.specs}

    def given(self, features: Mapping[str, Tensor]) -> Tensor | dict[str, Tensor]:
        """What the head is called with."""
        return dict(features) if self.together else next(iter(features.values()))

    def __call__(self, out: Any) -> Tensor | dict[str, Tensor]:
        """The same, of what the backbone returns."""
        return self.given(self.by_name(out))


def check_features(out: Any, stated: FeatureSpecs, owner: str, batch: int) -> None:
    """Refuse what a backbone returned for ``batch`` samples, where that is not what it states.

    Raises:
        UnsupportedModelError: other names, or other shapes; axes with a name may be of any length.
    """
    if not isinstance(stated, Mapping):
        return
    if not isinstance(out, Mapping) or set(out) != set(stated):
        raise UnsupportedModelError(
            f"{owner} returns {_said(out)}, and states {_words(stated)}", "correct features, or what forward returns"
        )
    for name, spec in stated.items():
        shape = tuple(getattr(out[name], "shape", ()))
        wanted = (batch, *spec.shape[1:])
        if len(shape) != len(wanted) or any(isinstance(w, int) and w != h for w, h in zip(wanted, shape, strict=True)):
            raise UnsupportedModelError(
                f"{owner} returns {name!r} of shape {shape} for {batch} samples, and states {spec.shape}",
                "correct its FeatureSpec, or what forward returns",
            )


def _words(names: Mapping[str, Any]) -> str:
    return " and ".join(map(repr, names))


def _said(out: Any) -> str:
    if isinstance(out, Mapping):
        return f"the features {_words(out)}" if out else "no features"
    return "one tensor" if hasattr(out, "shape") else f"a {type(out).__name__}"
