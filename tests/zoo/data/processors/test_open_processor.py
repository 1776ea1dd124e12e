"""Which processor a config, a bundle of now and one of before is opened with; what is missing is said."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np
import pytest

import pocketzoo
from pocketzoo.core.errors import (
    MissingDependencyError,
    MissingPluginError,
    PluginError,
    RecipeError,
    TooLargeError,
    UnsupportedModelError,
)
from pocketzoo.core.optional import require
from pocketzoo.core.typed import to_plain
from pocketzoo.zoo.catalog.described import Described
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.processor import ProcessorSpec
from pocketzoo.zoo.catalog.processor_configs import ArraysSpec, MappingSpec, TableSpec
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.signature import TensorSpec
from pocketzoo.zoo.catalog.specs import InputSpec, TextSpec
from pocketzoo.zoo.data.processors.open_processor import (
    describe_config,
    needed_files,
    open_config,
    open_described,
    processor_entries,
    resized_config,
    suffixes,
)

IMAGE = InputSpec(shape=("batch", 1, 8, 8), mean=(0.3,), std=(0.4,), resize=8)
VECTOR = InputSpec(shape=("batch", 4), mean=(0.0,), std=(1.0,), resize=0, name="state", layout="NC")
FOREIGN = InputSpec(shape=("batch", 5, 6), mean=(), std=(), resize=0, name="x", layout="N")
TEXT = TextSpec(vocabulary=9, pad=0, max_length=5)


@dataclass(frozen=True)
class SoundSpec:
    rate: int = 16000


def declaring(*specs: ProcessorSpec) -> Registry:
    plugin = ModuleType("acme")
    plugin.pocketzoo_processors = pocketzoo.hookimpl(lambda: list(specs), specname="pocketzoo_processors")
    return Registry(create_manager(points=[], extra=[plugin]))


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(create_manager(points=[]))


@pytest.mark.parametrize(
    ("config", "name", "kept"),
    [
        (IMAGE, "image", IMAGE),
        (TEXT, "text", TEXT),
        (TableSpec(width=2), "table", TableSpec(width=2)),
        (VECTOR, "table", TableSpec(width=4, name="state")),
        (FOREIGN, "arrays", None),
    ],
)
def test_a_config_says_which_processor_it_is_for(config, name, kept, registry):
    described = describe_config(config, registry)
    assert (described.name, described.provider) == (name, "pocketzoo")
    if kept is not None:
        assert described.config == to_plain(kept)
    a, b = open_config(config, {}, registry), open_described(described, {}, registry)
    assert a.inputs == b.inputs
    assert [t.name for t in a.inputs] == [config.name]


@pytest.mark.parametrize(("config", "name"), [(IMAGE, "image"), (VECTOR, "table"), (FOREIGN, "arrays"), (TEXT, "text")])
def test_what_a_bundle_of_before_calls_its_input_is_read(config, name, registry):
    reads = open_described(Described(name="", config=to_plain(config)), {}, registry)
    assert type(reads) is type(open_config(config, {}, registry))
    assert reads.inputs[0].shape == config.shape
    assert describe_config(Described(name="", config=to_plain(config)), registry).name == name


def test_an_input_that_nobody_reads_is_refused(registry, refused):
    with refused(MissingPluginError, "no processor here reads rate", hint="pip install --upgrade pocketzoo"):
        open_described(Described(name="", config={"rate": 16000}), {}, registry)


def test_a_processor_that_is_not_installed_is_named_with_its_package(registry, refused):
    described = Described(name="log-mel", config={}, provider="pocketzoo-audio 1.2.0")
    with refused(MissingPluginError, "pocketzoo-audio 1.2.0", hint="pip install 'pocketzoo-audio==1.2.0'"):
        open_described(described, {}, registry)


def test_a_config_of_no_processor_is_refused(registry, refused):
    with refused(RecipeError, "no processor takes a SoundSpec", hint="InputSpec"):
        open_config(SoundSpec(), {}, registry)
    with refused(RecipeError, "no processor takes a int"):
        open_config(7, {}, registry)
    with refused(RecipeError, "InputSpec"):
        open_described(Described(name="image", config={"shape": 7}), {}, registry)


def test_two_processors_with_one_config_are_told_apart_by_name(refused):
    made = replace(SOUND, name="other", open=lambda config, files: "other")
    own = declaring(SOUND, made)
    with refused(RecipeError, "the processors other and sound both take a SoundSpec", hint="Described"):
        open_config(SoundSpec(), {}, own)
    assert open_config(Described(name="other", config={"rate": 8000}), {}, own) == "other"


def _fails(config, files):
    raise ZeroDivisionError("division by zero")


ABSENT = "no_such_package"
SOUND = ProcessorSpec(
    name="sound", summary="s", modality="audio", reads="sounds", config=SoundSpec, open=_fails, suffixes=(".wav",)
)


def test_one_that_fails_or_lacks_a_package_says_so(refused):
    with refused(PluginError, "'sound' cannot be opened: ZeroDivisionError: division by zero"):
        open_config(SoundSpec(), {}, declaring(SOUND))
    lacking = replace(SOUND, open=lambda config, files: require(ABSENT))
    with refused(MissingDependencyError, ABSENT, hint=f"pip install {ABSENT}"):
        open_config(SoundSpec(), {}, declaring(lacking))


def test_suffixes_are_those_of_a_model_or_of_all(registry):
    assert suffixes(registry) == {".png", ".jpg", ".jpeg", ".webp"}
    own = declaring(SOUND)
    assert suffixes(own) == {".png", ".jpg", ".jpeg", ".webp", ".wav"}
    assert suffixes(own, SoundSpec()) == {".wav"}


def test_files_that_a_processor_needs(registry):
    assert needed_files(TEXT, registry) == ("tokenizer.json",)
    assert needed_files(IMAGE, registry) == ()


def test_only_images_have_a_size(registry, refused):
    assert resized_config(IMAGE, (16, 16), registry).size == (1, 16, 16)
    for config in (TEXT, VECTOR, FOREIGN):
        with refused(UnsupportedModelError, "which has no size in pixels"):
            resized_config(config, (16, 16), registry)


def test_a_foreign_array_keeps_its_type(registry):
    described = describe_config(FOREIGN, registry)
    reads = open_described(Described(**to_plain(described)), {}, registry)
    assert isinstance(reads.spec, ArraysSpec)
    assert reads([np.zeros((5, 6))])["x"].dtype == np.float32


@pytest.mark.parametrize("shape", [("batch", 1, 10**6, 10**6), ("batch", 3, 40_000, 40_000)])
def test_inputs_that_no_memory_holds_are_refused_when_a_processor_is_opened(shape, refused):
    config = replace(IMAGE, shape=shape, mean=(0.3,) * shape[1], std=(0.4,) * shape[1])
    with refused(TooLargeError, "values to make of one sample", hint="POCKETZOO_MAX_INPUT_VALUES"):
        open_config(config)


@pytest.mark.parametrize("dtype", ["", "nothing", "sequence_type", "float3"])
@pytest.mark.parametrize("config", [IMAGE, TEXT, ArraysSpec(inputs=(TensorSpec(name="x", shape=("batch", 2)),))])
def test_an_input_of_no_type_is_refused_when_a_processor_is_opened(config, dtype, refused):
    with refused(UnsupportedModelError, repr(dtype), hint="another type"):
        if isinstance(config, ArraysSpec):
            open_config(replace(config, inputs=(replace(config.inputs[0], dtype=dtype),)))
        else:
            open_config(replace(config, dtype=dtype))


def test_an_image_is_not_resized_to_what_no_memory_holds(refused):
    processor = open_config(replace(IMAGE, resize=10**6))
    with refused(TooLargeError, "resized as the model's config asks", hint="POCKETZOO_MAX_PIXELS"):
        processor([np.zeros((8, 8), np.uint8)])


def test_a_processor_is_declared_by_all_that_declare_its_parts(registry):
    """As its config, and as a bundle keeps it."""
    config = MappingSpec(fields={"photo": IMAGE, "text": TEXT})
    for given in (config, describe_config(config, registry)):
        assert [(e.kind, e.name) for e in processor_entries(given, registry)] == [
            ("processor", "mapping"), ("processor", "image"), ("processor", "text"),
        ]  # fmt: skip
