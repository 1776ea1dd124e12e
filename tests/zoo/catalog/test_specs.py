from __future__ import annotations

import dataclasses

import pytest

from pocketzoo.core.renamed import RenamedWarning
from pocketzoo.zoo.catalog import specs
from pocketzoo.zoo.catalog.former_words import METRICS, PER_TOKEN, RETURNS
from pocketzoo.zoo.catalog.specs import FeatureSpec, InputSpec

KINDS = [c for c in vars(specs).values() if isinstance(c, type) and dataclasses.is_dataclass(c)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_spec_is_frozen_and_has_slots(kind):
    assert kind.__dataclass_params__.frozen
    assert "__slots__" in vars(kind)
    assert kind.__doc__


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        (("batch", 3, 224, 224), (3, 224, 224)),
        (("batch", 1, 28, 20), (1, 28, 20)),
        (("n", 16), (16,)),
        (("n",), ()),
    ],
)
def test_the_size_of_one_sample(shape, size):
    assert InputSpec(shape=shape, mean=(0.0,), std=(1.0,), resize=1).size == size


def test_an_input_with_two_free_axes_has_no_size():
    with pytest.raises(ValueError, match="height"):
        _ = InputSpec(shape=("batch", 3, "height", 224), mean=(0.0,), std=(1.0,), resize=1).size


@pytest.mark.parametrize(
    ("kind", "shape", "channels"),
    [
        ("map", ("batch", 128, 7, 9), 128),
        ("vector", ("batch", 64), 64),
        ("sequence", ("batch", 197, 384), 384),
        ("sequence", ("batch", "tokens", 384), 384),
        ("map", ("batch", 12, "height", "width"), 12),
    ],
)
def test_the_channels_of_features(kind, shape, channels):
    assert FeatureSpec(kind, shape).channels == channels


def test_specs_with_equal_facts_are_equal():
    one, two = (FeatureSpec("map", ("batch", 4, 2, 2)) for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    assert one != FeatureSpec("map", ("batch", 5, 2, 2))


# What a plugin that says no more means: it is built and measured tomorrow as it is today.
DEFAULTS: dict[type, dict[str, object]] = {
    specs.InputSpec: {
        "name": "image", "layout": "NCHW", "dtype": "float32", "value_range": (0.0, 1.0), "interpolation": "bilinear",
        "stretch": False, "stretched": (), "longer": "round", "center": "floor",
    },
    specs.TextSpec: {
        "tokenizer": "tokenizer.json", "shape": ("batch", "sequence"), "name": "input_ids", "layout": "NT",
        "dtype": "int64", "mask": "", "types": "", "padding": "anywhere", "checked": False, "cut": "right",
        "prefix": "", "lowercase": False, "special": (),
    },
    specs.FeatureSpec: {},
    specs.GenerationSpec: {"start": (), "positions": 0, "not_followed": ()},
    specs.Cut: {},
    specs.PackageFile: {},
    specs.HubFile: {},
    specs.Weights: {"shards": (), "prefix": "", "read": None, "convert": None},
    specs.BackboneSpec: {
        "weights": None, "source": "", "cuts": (), "head": "", "training": {}, "files": {}, "options": None,
        "configure": None, "generation": None,
    },
    specs.HeadSpec: {
        "task": "", "decoder": "", "decoder_config": None, "returns": "",
        "loss": "cross_entropy", "metric": "", "options": None, "backbone": "", "weights": None,
        "labels": None, "outputs": 0, "generates": False, "reads": (),
    },
    specs.DatasetSpec: {},
    specs.Int8Encoding: {
        "dynamic": False, "splits_norm": False, "required": False,
        "operators": ("Add", "AveragePool", "Concat", "GlobalAveragePool"),
    },
    specs.Fp8Encoding: {},
    specs.KernelCosts: {},
    specs.TargetSpec: {
        "fp8": None, "channel_multiple": 8, "depthwise_multiple": 0, "int8_multiple": 0,
        "int8_depthwise_multiple": 0, "costs": None, "int8_costs": None, "half_multiple": 8, "opset": 20,
        "newest_opset": 0, "domains": ("",), "refuses": {}, "slow": {}, "precisions": ("fp32",), "keeps_fp32": (),
        "sparse": False, "lacks_kernels": {}, "device": "cpu", "backend": "", "facts": None, "timed_here": None,
        "former": {},
    },
    specs.ExporterSpec: {"asks": False, "folder": False, "merges": False},
    specs.Repository: {"sizes": {}, "library": "", "task": "", "license": "", "config": {}, "files": {}, "digests": {},
                       "input": None},
    specs.LoaderSpec: {},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_plugin_leaves_out_means_what_it_did(kind):
    found = {
        f.name: f.default_factory() if f.default is dataclasses.MISSING else f.default
        for f in dataclasses.fields(kind)
        if (f.default, f.default_factory) != (dataclasses.MISSING,) * 2
    }
    assert found == DEFAULTS[kind]


ENCODING = specs.Int8Encoding(activations="int8", symmetric=True, int32_bias=False, fuses_add=False)


@pytest.mark.parametrize(
    ("fields", "timed"),
    [
        ({}, True),
        ({"device": "gpu"}, False),
        ({"backend": "x"}, False),
        ({"backend": "x", "timed_here": True}, True),
        ({"timed_here": False}, False),
    ],
)
def test_times_of_the_cpu_say_something_of_targets_that_run_on_it(fields, timed):
    assert specs.TargetSpec(name="t", summary="s", int8=ENCODING, **fields).timed_here == timed


def test_fields_of_the_release_before_are_kept_for_their_back_end_and_said():
    with pytest.warns(RenamedWarning, match="'engine, versions' was renamed to 'backend and facts'"):
        target = specs.TargetSpec(
            name="t", summary="s", int8=ENCODING, engine="x", versions=(1,), provider="", dla=None
        )
    assert target.former == {"engine": "x", "versions": (1,)}
    assert not target.timed_here
    with pytest.warns(RenamedWarning, match="provider"):
        target = specs.TargetSpec(name="t", summary="s", int8=ENCODING, provider="CPUExecutionProvider")
    assert target.timed_here
    with pytest.warns(RenamedWarning, match="capability"):
        fp8 = specs.Fp8Encoding(conv_channels=1, matmul_channels=1, kernel=1, capability="8.9")
    assert fp8 == specs.Fp8Encoding(conv_channels=1, matmul_channels=1, kernel=1)


def test_weights_of_a_repository_are_pinned_by_their_digests():
    """Shards come along; in a bundle, which knows no digests, there is nothing to fetch."""
    repository = specs.Repository(repo_id="o/m", commit="0" * 40, digests={"index": "1" * 64, "one": "2" * 64})
    assert repository.name == f"hf://o/m@{'0' * 40}"
    file, shard = (
        specs.HubFile(repo_id="o/m", revision="0" * 40, filename=name, sha256=digest * 64)
        for name, digest in (("index", "1"), ("one", "2"))
    )
    read, convert = (lambda path: {}), (lambda state: state)
    assert repository.weights("index", read, convert=convert, shards=("one",)) == specs.Weights(
        file=file, shards=(shard,), read=read, convert=convert
    )
    assert repository.weights("one") == specs.Weights(file=shard)
    assert repository.weights("elsewhere") is None


def test_what_a_model_returns_has_a_shape_and_what_is_trained_a_metric():
    assert set(METRICS) < set(RETURNS)
    assert {name for name, shape in RETURNS.items() if "T" in shape} == PER_TOKEN
    assert METRICS == {"logits": "accuracy", "values": "r2", "next-token-logits": "log_likelihood"}
    assert specs.WINDOW == 128
