"""Backbones that give several features: which a head reads, and what is refused by name when a model is built."""

from __future__ import annotations

import pytest
import severalfeatures
import torch
from severalfeatures import COARSE, FINE, MASK, TOKENS, VECTOR

from pocketzoo.core.errors import HeadMismatchError, UnsupportedModelError
from pocketzoo.zoo.bundles.manifest import ModelRef
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.models.build import build, cut_after, example_inputs, resolve
from pocketzoo.zoo.models.heads import channels, feature_choice, heads_that_fit
from pocketzoo.zoo.models.input_size import resized
from pocketzoo.zoo.modules.features import FeatureChoice


@pytest.fixture(scope="module")
def registry() -> Registry:
    return severalfeatures.registry()


@pytest.mark.parametrize(
    ("backbone", "head", "built_on"),
    [
        ("pyramid", "fine-alone", FINE),
        ("pyramid", "coarse-alone", COARSE),
        ("pyramid", "both-levels", {"coarse": COARSE, "fine": FINE}),
        ("pyramid", "all-of-them", {"fine": FINE, "coarse": COARSE}),
        ("encoders", "all-of-them", {"seen": FINE, "told": VECTOR}),
        ("tokens", "all-of-them", {"tokens": TOKENS, "mask": MASK}),
        ("one-named", "linear", FINE),
        ("one-named", "all-of-them", {"fine": FINE}),
        ("tinynet", "all-of-them", None),  # the features of a backbone with one tensor have a name too
    ],
)
def test_a_head_is_built_on_what_it_reads_and_called_with_that(backbone, head, built_on, registry):
    ref = ModelRef(backbone=backbone, head=head, outputs=3)
    parts = resolve(ref, registry)
    if built_on is None:
        built_on = {"features": parts.backbone.features}
    assert parts.features == built_on
    assert not isinstance(built_on, dict) or list(parts.features) == list(built_on)
    torch.manual_seed(0)
    model = build(ref, registry)
    inputs = tuple(example_inputs(parts.processor, 2).values())
    with torch.no_grad():
        features = model.backbone(*inputs)
        if not isinstance(features, dict):
            features = {"features": features}
        (alone,) = features if not isinstance(built_on, dict) and len(features) == 1 else (None,)
        wanted = (
            {name: features[name] for name in built_on}
            if isinstance(built_on, dict)
            else features[alone or parts.head.reads[0]]
        )
        assert torch.equal(model(*inputs), model.head(wanted))


@pytest.mark.parametrize(
    ("backbone", "head", "words"),
    [
        ("pyramid", "linear", ["head 'linear' reads one tensor", "pyramid outputs 'fine', a map ('batch', 16, 8, 8)"]),
        ("encoders", "coarse-alone", ["head 'coarse-alone' reads the features 'coarse'", "encoders outputs 'seen'"]),
        ("encoders", "both-levels", ["reads the features 'coarse'"]),
        ("tinynet", "fine-alone", ["reads the features 'fine'", "tinynet outputs a map"]),
        ("encoders", "vectors-alone", ["head 'vectors-alone' takes a vector", "'told', a vector ('batch', 16)"]),
    ],
)
def test_what_a_head_cannot_read_is_refused_by_name(backbone, head, words, registry, refused):
    with refused(HeadMismatchError, *words, hint="heads that fit: ") as caught:
        resolve(ModelRef(backbone=backbone, head=head, outputs=3), registry)
    spec = registry.get("backbone", backbone)
    assert caught.value.hint == f"heads that fit: {', '.join(heads_that_fit(spec.features, spec, registry))}"
    assert head not in heads_that_fit(spec.features, spec, registry)


def test_heads_that_fit_are_those_that_read_what_there_is(registry):
    spec = registry.get("backbone", "pyramid")
    assert heads_that_fit(spec.features, spec, registry) == [
        "all-of-them",
        "both-levels",
        "coarse-alone",
        "fine-alone",
        "scores-second",
    ]


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        ("lacks-one", "lacks-one returns the features 'fine', and states 'fine' and 'coarse'"),
        ("other-names", "other-names returns the features 'fine' and 'rough', and states 'fine' and 'coarse'"),
        ("one-tensor", "one-tensor returns one tensor, and states 'fine' and 'coarse'"),
        ("other-shape", "returns 'coarse' of shape (2, 32, 4, 4) for 2 samples, and states ('batch', 32, 5, 4)"),
    ],
)
def test_what_a_backbone_returns_is_held_against_what_it_states(backbone, words, registry, refused):
    with refused(UnsupportedModelError, words, hint="forward returns"):
        build(ModelRef(backbone=backbone, head="all-of-them", outputs=2), registry)


def test_a_dict_where_one_tensor_is_stated_is_refused_when_it_runs(registry, refused):
    model = build(ModelRef(backbone="says-one", head="linear", outputs=2), registry)
    with refused(UnsupportedModelError, "returns the features 'fine' and 'coarse', and states one tensor"):
        model(torch.zeros(1, 1, 8, 8))
    choice = FeatureChoice({"a": FINE, "b": FINE}, named=True)
    with refused(UnsupportedModelError, "returns the features 'a', and not 'b'"):
        choice({"a": torch.zeros(1)})
    with refused(UnsupportedModelError, "the backbone returns no features, and not 'a'"):
        choice({})


def test_a_cut_ends_in_one_tensor_which_any_head_reads(registry):
    ref = ModelRef(backbone="pyramid", head="linear", outputs=2, cut="first")
    assert resolve(ref, registry).features == FINE
    assert build(ref, registry)(torch.zeros(2, 1, 8, 8)).shape == (2, 2)
    backbone = registry.get("backbone", "pyramid").build()
    assert cut_after(backbone, "first")(torch.zeros(1, 1, 8, 8)).shape == (1, 16, 8, 8)


def test_at_another_size_every_feature_has_another_shape(registry):
    spec = resized(registry.get("backbone", "pyramid"), (12, 16), registry)
    assert {name: each.shape for name, each in spec.features.items()} == {
        "fine": ("batch", 16, 12, 16),
        "coarse": ("batch", 32, 6, 8),
    }
    assert spec.cuts[0].features.shape == ("batch", 16, 12, 16)
    assert resized(registry.get("backbone", "encoders"), (4, 4), registry).features["told"] == VECTOR


def test_channels_are_those_of_all_features_together(registry):
    assert channels(FINE) == 16
    assert channels({"fine": FINE, "coarse": COARSE}) == 48
    assert channels({"tokens": TOKENS, "mask": MASK}) == 17
    head, spec = registry.get("head", "all-of-them"), registry.get("backbone", "pyramid")
    with pytest.raises(HeadMismatchError, match="pyramid outputs no features"):
        feature_choice(head, spec, {})
