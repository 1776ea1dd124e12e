"""Samples of several things: each field is read as its own processor reads it alone."""

from __future__ import annotations

import json
from types import ModuleType

import numpy as np
import pytest
from hubmodels import WORDS
from PIL import Image

import pocketzoo
from pocketzoo.core.errors import DataError, RecipeError
from pocketzoo.core.typed import to_plain
from pocketzoo.zoo.catalog.described import Described
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.processor_configs import MappingSpec, TableSpec
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import InputSpec, TextSpec
from pocketzoo.zoo.data.processors.open_processor import (
    describe_config,
    needed_files,
    open_config,
    open_described,
    resized_config,
)

IMAGE = InputSpec(shape=("batch", 3, 8, 8), mean=(0.5,) * 3, std=(0.25,) * 3, resize=8, name="photo")
ROW = TableSpec(width=2, columns=("a", "b"))
WORDING = TextSpec(vocabulary=len(WORDS), pad=0, max_length=8, mask="mask")
SPEC = MappingSpec(fields={"image": IMAGE, "row": ROW, "caption": WORDING})


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(create_manager(points=[]))


@pytest.fixture
def samples(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 9, 11, 3), dtype=np.uint8)
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for path, values in zip(paths, pixels, strict=True):
        Image.fromarray(values).save(path)
    captions = ["a model", "a small model is fast"]
    return [
        {"image": p, "row": {"b": i, "a": 1}, "caption": c}
        for i, (p, c) in enumerate(zip(paths, captions, strict=True))
    ]


def test_each_field_is_as_its_own_processor_reads_it(registry, files, samples):
    reads = open_config(SPEC, files, registry)
    assert [t.name for t in reads.inputs] == ["photo", "vector", "input_ids", "mask"]
    arrays = reads(samples)
    for field, config in SPEC.fields.items():
        alone = open_config(config, files, registry)([sample[field] for sample in samples])
        assert all(np.array_equal(arrays[name], x) for name, x in alone.items())
    again = reads.batch(samples)
    assert all(np.array_equal(again[name], arrays[name]) for name in arrays)
    one = reads.batch(samples[0])
    assert one["photo"].shape == (1, 3, 8, 8)
    ready = reads.batch(arrays)
    assert ready["photo"] is arrays["photo"]
    assert (reads.image, reads.text, reads.lengths) == (IMAGE, WORDING, (1, 8))
    assert reads.truncated([{**samples[0], "caption": "model " * 20}]) == 1
    assert {n: len(x) for n, x in reads.random(3).items()} == dict.fromkeys(["photo", "vector", "input_ids", "mask"], 3)


def test_it_is_described_with_its_parts_and_opened_again(registry, files, samples):
    described = describe_config(SPEC, registry)
    plain = json.loads(json.dumps(to_plain(described)))
    assert plain["name"] == "mapping"
    assert [part["name"] for part in plain["config"]["fields"].values()] == ["image", "table", "text"]
    again = open_described(Described(**plain), files, registry)
    wanted = open_config(SPEC, files, registry)(samples)
    assert all(np.array_equal(again(samples)[name], x) for name, x in wanted.items())
    spec, config = described.name, described.config
    assert describe_config(described, registry) == described, (spec, config)
    assert needed_files(SPEC, registry) == ("tokenizer.json",)
    assert needed_files(described, registry) == ("tokenizer.json",)
    assert resized_config(SPEC, (16, 16), registry).fields["image"].size == (3, 16, 16)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"image": "gone.png"}, ["image: there is no image gone.png"]),
        ({"row": {"a": 1}}, ["row: a row lacks its 'b'"]),
        ({"captoin": "a model"}, ["reads no field 'captoin'"]),
    ],
)
def test_a_field_that_cannot_be_read_is_named(change, says, registry, files, samples, refused):
    with refused(DataError, *says):
        open_config(SPEC, files, registry)([{**samples[0], **change}])


def test_samples_that_are_no_mappings_or_lack_a_field(registry, files, samples, refused):
    reads = open_config(SPEC, files, registry)
    with refused(DataError, "lacks its 'caption'"):
        reads([{name: samples[0][name] for name in ("image", "row")}])
    with refused(DataError, "cannot be str"):
        reads(["a text"])


def test_two_fields_cannot_make_one_input(registry, refused):
    with refused(RecipeError, "two fields make the input 'photo'"):
        open_config(MappingSpec(fields={"a": IMAGE, "b": IMAGE}), {}, registry)
    with refused(RecipeError, "one field or more"):
        MappingSpec()


def test_a_part_can_be_of_a_plugin(registry, samples):
    """A processor that somebody else declares is a part like those that ship."""
    plugin = ModuleType("acme")

    @pocketzoo.hookimpl
    def pocketzoo_processors():
        from pocketzoo.zoo.catalog.processor import ProcessorSpec
        from pocketzoo.zoo.data.processors.table_processor import TableProcessor

        return [
            ProcessorSpec(
                name="acme-row", summary="s", modality="tabular", reads="rows", config=AcmeSpec,
                open=lambda config, files: TableProcessor(TableSpec(width=config.numbers, name="acme")),
            )
        ]  # fmt: skip

    plugin.pocketzoo_processors = pocketzoo_processors
    own = Registry(create_manager(points=[], extra=[plugin]))
    reads = open_config(MappingSpec(fields={"image": IMAGE, "row": AcmeSpec(numbers=2)}), {}, own)
    assert reads([{"image": samples[0]["image"], "row": [1, 2]}])["acme"].tolist() == [[1, 2]]


from dataclasses import dataclass  # noqa: E402


@dataclass(frozen=True)
class AcmeSpec:
    numbers: int
