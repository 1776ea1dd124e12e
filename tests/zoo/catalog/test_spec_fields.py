"""Fields of specs are held against their annotations, whatever kind of spec it is, and right ones pass."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

import pytest
from specs_of_each_kind import SPECS, declaring, reason

from pocketzoo.core.errors import PluginError, UnknownNameError
from pocketzoo.zoo.catalog import registry as registry_module
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.spec_fields import _fits, check_spec, hints
from pocketzoo.zoo.catalog.specs import Cut, FeatureSpec, Int8Encoding, PackageFile, Weights

BUILT_IN = Registry(create_manager(points=[]))


class Odd:
    """A value that no field takes."""

    def __repr__(self) -> str:
        return "ODD"


FIELDS = [(kind, f.name) for kind, spec in SPECS.items() for f in fields(spec) if f.name != "name"]


@pytest.mark.parametrize("entry", [*BUILT_IN.find()], ids=lambda e: f"{e.kind} {e.name}")
def test_what_ships_passes(entry):
    check_spec(entry.spec)


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_a_value_that_no_field_takes_is_refused_by_the_name_of_the_field(kind, field, refused):
    spec = replace(SPECS[kind], **{field: Odd()})
    if _fits(hints(type(spec))[field], Odd()):
        pytest.skip("any value fits")
    with refused(PluginError, f"{type(spec).__name__}.{field} of 'acme-thing' cannot be ODD", hint=f"{field} must be "):
        check_spec(spec)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("head", {"takes": "map"}, "HeadSpec.takes of 'acme-thing' cannot be 'map'; takes must be a tuple, of each item"),
    ("head", {"takes": ["map"]}, "takes must be a tuple"),
    ("head", {"takes": ("maps",)}, "cannot be ('maps',)"),
    ("head", {"build": None}, "HeadSpec.build of 'acme-thing' cannot be None; build must be a function"),
    ("head", {"build": "build"}, "build must be a function"),
    ("head", {"outputs": "3"}, "outputs must be a whole number"),
    ("head", {"outputs": True}, "outputs must be a whole number"),
    ("head", {"options": 3}, "options must be a class or None"),
    ("head", {"summary": None}, "summary must be a text"),
    ("backbone", {"input": "image"}, "BackboneSpec.input of 'acme-thing' cannot be 'image'; give the config of"),
    ("backbone", {"input": FeatureSpec}, "give the config of its processor"),
    ("backbone", {"features": ("map", (1, 2))}, "features must be a FeatureSpec"),
    ("backbone", {"features": FeatureSpec("map", ["batch", 1, 2, 3])}, "FeatureSpec.shape of 'acme-thing' cannot be"),
    ("backbone", {"features": FeatureSpec("maps", ("batch", 1))}, "FeatureSpec.kind of 'acme-thing' cannot be 'maps'"),
    ("backbone", {"cuts": (Cut("stem", "map"),)}, "Cut.features of 'acme-thing' cannot be 'map'"),
    ("backbone", {"cuts": Cut("stem", FeatureSpec("map", ("b",)))}, "cuts must be a tuple"),
    ("backbone", {"weights": "w.safetensors"}, "weights must be a Weights or None"),
    ("backbone", {"weights": Weights(file=PackageFile(package="a", path=3, sha256=""))}, "PackageFile.path of"),
    ("backbone", {"files": {"a": "b"}}, "files must be a mapping of a text to a Path"),
    ("target", {"int8": "uint8"}, "int8 must be a Int8Encoding"),
    ("target", {"device": "tpu"}, "device must be one of 'cpu', 'gpu'"),
    ("target", {"precisions": ("fp/16",)}, "cannot be ('fp/16',); use lower-case letters"),
    ("target", {"opset": "17"}, "TargetSpec.opset of 'acme-thing' cannot be '17'; opset must be a whole number"),
    ("exporter", {"suffix": "bin"}, "ExporterSpec.suffix of 'acme-thing' cannot be 'bin'; give a dot"),
    ("exporter", {"suffix": "/../x"}, "give a dot"),
    ("exporter", {"export": None}, "export must be a function"),
    ("task", {"open": None}, "open must be a function"),
    ("task", {"decoder": ""}, "TaskSpec.decoder of 'acme-thing' cannot be ''; use letters"),
    ("task", {"decoder": None}, "TaskSpec.decoder of 'acme-thing' cannot be None"),
    ("decoder", {"tasks": "acme"}, "tasks must be a tuple"),
    ("decoder", {"config": {}}, "config must be a class or None"),
    ("processor", {"suffixes": (".wav", "flac")}, "cannot be ('.wav', 'flac'); give a dot"),
    ("processor", {"suffixes": ".wav"}, "suffixes must be a tuple"),
    ("processor", {"modality": "my images"}, "cannot be 'my images'; use lower-case"),
    ("backend", {"open": 3}, "open must be a function"),
    ("compressor", {"config": None}, "config must be a class"),
    ("compressor", {"plan": None}, "plan must be a function"),
    ("dataset", {"load": []}, "load must be a function"),
    ("loader", {"refuses": ""}, "refuses must be a function"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "change", "text"), WRONG)
def test_a_plugin_with_a_wrong_field_says_so_and_what_else_it_declares_is_used(kind, change, text):
    registry = declaring(kind, replace(SPECS[kind], **change), replace(SPECS[kind], name="acme-right"))
    assert text in reason(registry)
    assert reason(registry).startswith(f"pocketzoo_{kind}s: ")
    assert "acme-thing" not in registry.entries(kind)
    assert registry.get(kind, "acme-right").name == "acme-right"


def test_a_frozen_mapping_and_a_number_without_point_fit():
    check_spec(replace(SPECS["backbone"], training=MappingProxyType({"a": object()})))
    check_spec(replace(SPECS["backbone"], input=replace(SPECS["backbone"].input, mean=(0,), std=(1,))))


def test_the_config_of_a_plugin_checks_itself():
    @dataclass(frozen=True)
    class Sound:
        rate: int = "8000"  # type: ignore[assignment]
        shape: tuple[str, ...] = ()

    @dataclass(frozen=True)
    class Gone:
        at: NotThere = 3  # type: ignore[name-defined]  # noqa: F821

    for config in (Sound, Gone):
        check_spec(replace(SPECS["decoder"], config=config))
    check_spec(replace(SPECS["backbone"], input=Sound()))


def test_of_many_specs_each_is_looked_into_when_it_is_asked_for(monkeypatch, refused):
    monkeypatch.setattr(registry_module, "MANY", 2)
    odd = replace(SPECS["backbone"], features=FeatureSpec("maps", ("batch", 1)))
    registry = declaring("backbone", odd, *(replace(odd, name=f"acme-{i}", features="map") for i in range(2)))
    assert "acme-thing" in registry.entries("backbone")
    assert "acme-0" not in registry.entries("backbone")
    assert "BackboneSpec.features of 'acme-0' cannot be 'map'" in reason(registry)
    assert "'acme-1' cannot be 'map'" in reason(registry)
    with refused(UnknownNameError, "no backbone is called 'acme-0'", hint="| and 1 more) (see pocketzoo plugins)"):
        registry.get("backbone", "acme-0")
    with refused(PluginError, "FeatureSpec.kind of 'acme-thing' cannot be 'maps'"):
        registry.get("backbone", "acme-thing")


def test_two_alike_are_told_apart_by_what_is_in_them(refused):
    """The types of the fields are those of the first, which was right."""
    right = replace(SPECS["target"], precisions=("fp32", "int8"))
    check_spec(right)
    for wrong in ({"precisions": ("fp32", 8)}, {"domains": (10,)}, {"refuses": {"Conv": 3}}):
        with refused(PluginError, "of 'acme-thing' cannot be"):
            check_spec(replace(right, **wrong))
    encoding = Int8Encoding(activations="int4", symmetric=True, int32_bias=False, fuses_add=False)  # type: ignore
    with refused(PluginError, "Int8Encoding.activations of 'acme-thing' cannot be 'int4'"):
        check_spec(replace(right, int8=encoding))
