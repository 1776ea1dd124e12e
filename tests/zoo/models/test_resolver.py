"""Names of what is registered and references to the Hub, resolved alike."""

from __future__ import annotations

import pytest

from pocketzoo.core.errors import UnknownNameError
from pocketzoo.zoo.models.resolver import resolve_entry, resolve_spec


@pytest.mark.parametrize(("kind", "name"), [("backbone", "tinynet"), ("head", "linear"), ("target", "cpu")])
def test_a_registered_name_is_what_the_registry_says(kind, name, registry):
    assert resolve_entry(kind, name, registry) is registry.entry(kind, name)
    assert resolve_spec(kind, name, registry) is registry.get(kind, name)


def test_a_name_of_neither_is_refused(registry, refused):
    with refused(UnknownNameError, "'tinynett'", hint="did you mean 'tinynet'?"):
        resolve_spec("backbone", "tinynett", registry)


@pytest.mark.parametrize(("kind", "name"), [("target", "hf://acme/tiny"), ("backbone", "hf://acme/tiny#head")])
def test_a_repository_is_only_a_backbone_or_a_head(kind, name, registry, refused):
    with refused(UnknownNameError, name, hint="hf://org/name is a backbone"):
        resolve_entry(kind, name, registry)
