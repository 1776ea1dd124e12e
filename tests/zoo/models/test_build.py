"""Backbone and head put together, cut, and read back from a bundle."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import torch
from feeds import only
from safetensors.torch import load_file, save_file
from torch import nn

import pocketzoo
from pocketzoo.core.errors import BundleError, HeadMismatchError, TooLargeError, UnknownNameError, UnsupportedLayerError
from pocketzoo.plugins.tinynet.module import TinyNet
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.bundles.manifest import ModelRef
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import BackboneSpec, FeatureSpec, HeadSpec, InputSpec
from pocketzoo.zoo.hub.weights import read_weights
from pocketzoo.zoo.models.build import Model, build, cut_after, example, load_module, load_pretrained, resolve


def ref(head: str = "linear", outputs: int = 5, **more: str) -> ModelRef:
    return ModelRef(**{"backbone": "tinynet", "head": head, "outputs": outputs, **more})


@pytest.fixture(scope="module")
def pretrained(registry) -> nn.Module:
    model = build(ref(), registry)
    load_pretrained(model, ref(), registry)
    return model.backbone


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))


# -- resolving


@pytest.mark.parametrize("head", ["linear", "mlp", "tinynet-fashion-mnist"])
@pytest.mark.parametrize(("cut", "shape"), [("", (128, 7, 7)), ("stage1", (64, 14, 14)), ("stem", (32, 28, 28))])
def test_resolving_a_model(registry, head, cut, shape):
    parts = resolve(ref(head, cut=cut), registry)
    assert (parts.backbone.name, parts.head.name) == ("tinynet", head)
    assert parts.features == FeatureSpec("map", ("batch", *shape))


@pytest.mark.parametrize(
    ("wrong", "text", "hint"),
    [
        ({"backbone": "tinynte"}, "no backbone is called 'tinynte'", "did you mean 'tinynet'?"),
        ({"head": "liner"}, "no head is called 'liner'", "did you mean 'linear'?"),
        ({"cut": "stag1"}, "tinynet has no cut 'stag1'", "did you mean 'stage1'?"),
        ({"cut": "stage2"}, "tinynet has no cut 'stage2'", "did you mean 'stage1'?"),
        ({"cut": "9"}, "tinynet has no cut '9'", "known: stage1, stem"),
    ],
)
def test_an_unknown_part_gets_the_nearest(registry, refused, wrong, text, hint):
    with refused(UnknownNameError, text, hint=hint):
        resolve(ref(**wrong), registry)


@pytest.fixture(scope="module")
def acme() -> Registry:
    """Backbones that give a vector and a sequence, and a head that takes vectors only."""

    def backbone(name: str, features: FeatureSpec) -> BackboneSpec:
        given = InputSpec(shape=("batch", 1, 8, 8), mean=(0.0,), std=(1.0,), resize=8)
        return BackboneSpec(name=name, summary="s", license="MIT", input=given, features=features, build=nn.Identity)

    plugin = ModuleType("acme")
    plugin.pocketzoo_backbones = pocketzoo.hookimpl(
        lambda: [
            backbone("gives-vector", FeatureSpec("vector", ("batch", 6))),
            backbone("gives-sequence", FeatureSpec("sequence", ("batch", 4, 6))),
        ]
    )
    plugin.pocketzoo_heads = pocketzoo.hookimpl(
        lambda: [
            HeadSpec(
                name="vectors",
                summary="s",
                takes=("vector",),
                task="*-classification",
                build=lambda f, n: nn.Identity(),
            ),
            HeadSpec(
                name="vm",
                summary="s",
                takes=("vector", "map"),
                task="*-classification",
                build=lambda f, n: nn.Identity(),
            ),
        ]
    )
    return Registry(create_manager(points=[], extra=[plugin]))


SEQUENCE = (
    "embedding, language-model, linear, mlp, multi-label, pooled-classifier, q-values, regression, token-classifier"
)


@pytest.mark.parametrize(
    ("backbone", "head", "texts", "fit"),
    [
        ("tinynet", "vectors", ["head 'vectors' takes a vector", "tinynet outputs a map", "128, 7, 7"],
         "embedding, linear, mlp, multi-label, q-values, regression, tinynet-fashion-mnist, vm"),
        ("gives-sequence", "vectors", ["gives-sequence outputs a sequence"], SEQUENCE),
        ("gives-sequence", "vm", ["takes a vector or map"], SEQUENCE),
        ("gives-vector", "tinynet-fashion-mnist", ["takes the backbone tinynet"],
         "embedding, linear, mlp, multi-label, q-values, regression, vectors, vm"),
    ],
)  # fmt: skip
def test_a_head_that_does_not_fit_lists_those_that_do(acme, refused, backbone, head, texts, fit):
    with refused(HeadMismatchError, *texts, hint=f"heads that fit: {fit}") as caught:
        resolve(ref(head, backbone=backbone), acme)
    assert caught.value.hint == f"heads that fit: {fit}"


@pytest.mark.parametrize(
    ("backbone", "head"),
    [("gives-vector", "vectors"), ("gives-vector", "vm"), ("gives-sequence", "mlp"), ("tinynet", "vm")],
)
def test_a_head_that_fits(acme, backbone, head):
    assert resolve(ref(head, backbone=backbone), acme).head.name == head


# -- building


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("cut", ["", "stem", "stage1"])
@pytest.mark.parametrize("outputs", [2, 11])
def test_a_model_is_built_ready_to_run(registry, x, head, cut, outputs):
    model = build(ref(head, outputs, cut=cut), registry)
    assert not any(m.training for m in model.modules())
    with torch.no_grad():
        assert model(x).shape == (3, outputs)
        assert torch.equal(model(x), model.head(model.backbone(x)))


def test_loading_what_is_pretrained_fills_the_backbone_and_leaves_a_new_head(registry):
    model = build(ref(), registry)
    head = {k: v.clone() for k, v in model.head.state_dict().items()}
    load_pretrained(model, ref(), registry)
    wanted = read_weights(registry.get("backbone", "tinynet").weights)
    own = model.backbone.state_dict()
    assert all(torch.equal(own[k], v) for k, v in wanted.items())
    assert all(torch.equal(v, head[k]) for k, v in model.head.state_dict().items())


def test_a_pretrained_head_is_filled_too(registry):
    name = "tinynet-fashion-mnist"
    model = build(ref(name, 10), registry)
    load_pretrained(model, ref(name, 10), registry)
    wanted = read_weights(registry.get("head", name).weights)
    own = model.head.state_dict()
    assert set(own) == set(wanted)
    assert all(torch.equal(own[k], v) for k, v in wanted.items())


@pytest.mark.parametrize("cut", ["stem", "stage1"])
def test_a_cut_backbone_gets_the_weights_that_are_left(registry, pretrained, x, cut):
    model = build(ref(cut=cut), registry)
    load_pretrained(model, ref(cut=cut), registry)
    whole = pretrained.state_dict()
    assert all(torch.equal(v, whole[k]) for k, v in model.backbone.state_dict().items())
    features = resolve(ref(cut=cut), registry).features
    with torch.no_grad():
        assert tuple(model.backbone(x).shape[1:]) == features.shape[1:]


def test_a_backbone_without_weights_stays_as_built(acme):
    model = Model(nn.Linear(2, 2), nn.Linear(2, 2))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    load_pretrained(model, ref(backbone="gives-vector"), acme)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


# -- cutting

LAYERS = [
    name
    for name, module in TinyNet().named_modules()
    if name and not (isinstance(module, nn.Identity)) and "shortcut" not in name
]


@pytest.mark.parametrize("layer", LAYERS)
def test_a_cut_gives_what_the_layer_gave(pretrained, x, layer):
    seen = []
    handle = pretrained.get_submodule(layer).register_forward_hook(lambda m, i, out: seen.append(out.clone()))
    with torch.no_grad():
        pretrained(x)
        handle.remove()
        cut = cut_after(pretrained, layer)
        assert torch.equal(cut(x), seen[-1])


@pytest.mark.parametrize("layer", ["stem", "stage1", "stage1.0", "stem.0"])
def test_what_comes_after_a_cut_is_gone(pretrained, layer):
    cut, whole = cut_after(pretrained, layer), pretrained.state_dict()
    kept = cut.state_dict()
    assert 0 < len(kept) < len(whole)
    assert all(torch.equal(v, whole[k]) for k, v in kept.items())
    assert not any(k.startswith("stage2") for k in kept)


@pytest.mark.parametrize("layer", ["stem", "stage1"])
def test_cutting_leaves_the_backbone_as_it_was(pretrained, x, layer):
    with torch.no_grad():
        before = pretrained(x)
        state = {k: v.clone() for k, v in pretrained.state_dict().items()}
        cut_after(pretrained, layer)
        assert torch.equal(pretrained(x), before)
    assert all(torch.equal(v, state[k]) for k, v in pretrained.state_dict().items())


@pytest.mark.parametrize("layer", ["stage3", "", "stage", "stage1.", "stage1.7", "tage1", "conv1"])
def test_a_layer_that_is_not_there_is_named(pretrained, refused, layer):
    with refused(UnsupportedLayerError, f"no layer called {layer!r}", hint="cuts"):
        cut_after(pretrained, layer)


def test_a_layer_that_never_runs_is_named(refused):
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    with refused(UnsupportedLayerError, "no layer called 'idle' runs"):
        cut_after(Idle(), "idle")


def test_a_backbone_that_cannot_be_traced_says_why(refused):
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x):
            return self.layer(x) if x.sum() > 0 else x

    with refused(UnsupportedLayerError, "cannot cut this backbone", "control flow", hint="without a cut"):
        cut_after(Branching(), "layer")


# -- from a bundle


def test_a_bundle_is_loaded_bit_for_bit(fitted, registry):
    module = load_module(fitted, registry)
    saved = load_file(fitted.file("model.safetensors"))
    own = module.state_dict()
    assert set(own) == set(saved)
    assert all(torch.equal(own[k], v) for k, v in saved.items())
    assert not any(m.training for m in module.modules())


def test_two_loads_give_equal_outputs(fitted, registry, x):
    one, two = load_module(fitted, registry), load_module(fitted, registry)
    with torch.no_grad():
        assert torch.equal(one(x), two(x))


def test_the_module_and_the_graph_of_a_bundle_agree(fitted, registry, x):
    with torch.no_grad(), OnnxRunner(fitted.graph()) as runner:
        np.testing.assert_allclose(only(runner, x.numpy()), load_module(fitted, registry)(x).numpy(), atol=1e-4)


def test_loading_does_not_depend_on_chance(fitted, registry, x):
    torch.manual_seed(1)
    one = load_module(fitted, registry)
    torch.manual_seed(2)
    with torch.no_grad():
        assert torch.equal(one(x), load_module(fitted, registry)(x))


def test_weights_of_another_structure_are_refused(fitted_copy, registry, refused):
    state = load_file(fitted_copy.path / "model.safetensors")
    state["head.linear.weight"] = state["head.linear.weight"][:, :100].clone()
    save_file(state, fitted_copy.path / "model.safetensors")
    with refused(BundleError, "head.linear.weight", "(10, 100)"):
        load_module(fitted_copy, registry)


# -- examples


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("shape", [("batch", 1, 28, 28), ("batch", 3, 5, 7), ("batch", 6)])
def test_an_example_is_in_range_and_the_same_every_time(batch, shape):
    channels = shape[1]
    spec = InputSpec(shape=shape, mean=(0.5,) * channels, std=(0.25,) * channels, resize=28, value_range=(-1.0, 1.0))
    one = example(spec, batch)
    assert one.shape == (batch, *shape[1:])
    assert one.dtype == torch.float32
    assert torch.equal(one, example(spec, batch))
    raw = one * 0.25 + 0.5
    assert raw.min() >= -1.0 - 1e-6
    assert raw.max() <= 1.0 + 1e-6


def test_an_example_does_not_touch_the_global_generator():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    example(InputSpec(shape=("batch", 1, 4, 4), mean=(0.0,), std=(1.0,), resize=4))
    assert torch.equal(torch.get_rng_state(), before)


# -- sizes


def test_a_model_of_more_parameters_than_the_limit_is_refused_before_it_takes_memory(registry, refused):
    with refused(TooLargeError, "tinynet has 513,000,", "parameters", hint="POCKETZOO_MAX_PARAMETERS"):
        build(ref(outputs=10**9), registry)


def test_a_bundle_describes_no_more_than_its_weights_can_be_meant_for(fitted, registry, refused, monkeypatch):
    manifest = fitted.manifest
    large = replace(manifest, model=replace(manifest.model, outputs=150_000))  # of 77 M parameters, below the limit
    with refused(TooLargeError, "describes 77,", "its weights are", hint="POCKETZOO_MAX_PARAMETERS"):
        load_module(replace(fitted, manifest=large), registry)
    monkeypatch.setenv("POCKETZOO_MAX_PARAMETERS", "3000000000")
    with refused(BundleError, "do not fit its structure"):
        load_module(replace(fitted, manifest=large), registry)
