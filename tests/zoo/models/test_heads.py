"""Options of heads: read from texts as from values, checked, kept whole, and refused by name."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pytest
import torch
from torch import nn

from pocketzoo.core.errors import HeadMismatchError, RecipeError
from pocketzoo.plugins.head_options import EmbeddingOptions, LinearOptions, MlpOptions, QValuesOptions
from pocketzoo.zoo.catalog.specs import FeatureSpec, GenerationSpec, HeadSpec
from pocketzoo.zoo.models.heads import build_head, heads_that_fit, plain_options, read_options

MAP = FeatureSpec("map", ("batch", 6, 4, 4))
TEXT = FeatureSpec("sequence", ("batch", "sequence", 6))


@dataclasses.dataclass(frozen=True)
class Own:
    width: int | None = None
    names: tuple[str, ...] = ("a",)
    kind: Literal["x", "y"] = "x"


OWN = HeadSpec(name="own", summary="s", takes=("map",), task="*-classification", build=lambda f, n, o: nn.Identity(),
               options=Own)  # fmt: skip


@pytest.mark.parametrize(
    ("head", "given", "wanted"),
    [
        ("linear", {}, LinearOptions()),
        ("mlp", {"hidden": "1024"}, MlpOptions(hidden=(1024,))),
        ("mlp", {"hidden": 1024}, MlpOptions(hidden=(1024,))),
        ("mlp", {"hidden": "512, 128"}, MlpOptions(hidden=(512, 128))),
        ("mlp", {"hidden": [512, 128]}, MlpOptions(hidden=(512, 128))),
        ("mlp", {"hidden": ""}, MlpOptions(hidden=())),
        ("mlp", {"activation": "gelu", "dropout": "0"}, MlpOptions(activation="gelu", dropout=0.0)),
        ("mlp", {"pool": "flatten", "dropout": 0}, MlpOptions(pool="flatten", dropout=0.0)),
        ("q-values", {"dueling": "yes"}, QValuesOptions(dueling=True)),
        ("q-values", {"dueling": False}, QValuesOptions()),
        ("embedding", {"normalize": "False", "pool": "cls"}, EmbeddingOptions(normalize=False, pool="cls")),
    ],
)
def test_options_are_read_by_their_type(registry, head, given, wanted):
    options = read_options(registry.get("head", head), given)
    assert options == wanted
    assert type(options) is type(wanted)


def test_a_plugin_may_have_options_of_its_own():
    assert read_options(OWN, {"width": "7", "names": "b,c", "kind": "y"}) == Own(7, ("b", "c"), "y")
    assert read_options(OWN, {"width": None}) == Own()


@pytest.mark.parametrize(
    ("head", "given", "text", "hint"),
    [
        ("mlp", {"hiden": 3}, "head 'mlp' has no option 'hiden'", "did you mean 'hidden'?"),
        ("mlp", {"activation": "rleu"}, "option 'activation' of head 'mlp' cannot be 'rleu'", "one of: relu, gelu"),
        ("mlp", {"hidden": "many"}, "option 'hidden' of head 'mlp' cannot be 'many'", "a whole number, or several"),
        ("mlp", {"hidden": 0.5}, "cannot be 0.5", "a whole number"),
        ("mlp", {"hidden": True}, "cannot be True", "a whole number"),
        ("mlp", {"hidden": 0}, "hidden cannot be (0,)", "1 or more"),
        ("mlp", {"dropout": "half"}, "cannot be 'half'", "a number"),
        ("mlp", {"dropout": 1}, "dropout cannot be 1.0", "below 1"),
        ("mlp", {"dropout": "nan"}, "dropout cannot be nan", "below 1"),
        ("linear", {"grid": 0}, "grid cannot be 0", "1 or more"),
        ("q-values", {"dueling": "perhaps"}, "cannot be 'perhaps'", "true or false"),
        ("tinynet-fashion-mnist", {"hidden": 3}, "takes no options, but 'hidden' was given", "leave it out"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_what_does(registry, refused, head, given, text, hint):
    with refused(RecipeError, text, hint=hint):
        read_options(registry.get("head", head), given)


def test_a_bundle_keeps_the_defaults_too(registry):
    """So that a later version may choose others."""
    assert plain_options(registry.get("head", "mlp"), {"hidden": "8"}) == {
        "pool": "grid", "grid": 2, "hidden": [8], "activation": "relu", "dropout": 0.2,
    }  # fmt: skip
    assert plain_options(registry.get("head", "tinynet-fashion-mnist"), {}) == {}


@pytest.mark.parametrize(("hidden", "last"), [((1024,), nn.ReLU), ((256,), nn.Softmax)])
def test_the_classic_classifiers_can_be_said(registry, hidden, last):
    """Flatten, 1024, ReLU, 1, and Flatten, 256, softmax over classes: against torch's own layers."""
    options = {"pool": "flatten", "hidden": hidden, "dropout": 0.0}
    head = build_head(registry.get("head", "mlp"), MAP, 3, options).eval()
    classic = nn.Sequential(nn.Flatten(), nn.Linear(96, hidden[0]), nn.ReLU(), nn.Linear(hidden[0], 3))
    classic.load_state_dict(dict(zip(classic.state_dict(), head.state_dict().values(), strict=True)))
    x = torch.rand(2, 6, 4, 4)
    torch.testing.assert_close(head(x), classic(x))


def test_what_an_option_cannot_read_is_refused(registry, refused):
    with refused(HeadMismatchError, "dynamic length cannot be flattened", hint="pool: mean"):
        build_head(registry.get("head", "mlp"), TEXT, 2, {"pool": "flatten"})
    with refused(HeadMismatchError, "pool=cls selects a token, and a feature map has none", hint="pool: grid"):
        build_head(registry.get("head", "linear"), MAP, 2, {"pool": "cls"})


def test_heads_that_fit_and_that_fit_can_train(registry):
    tinynet = registry.get("backbone", "tinynet")
    assert heads_that_fit(MAP, tinynet, registry) == [
        "embedding", "linear", "mlp", "multi-label", "q-values", "regression", "tinynet-fashion-mnist",
    ]  # fmt: skip
    assert heads_that_fit(MAP, tinynet, registry, trained=True) == ["linear", "mlp", "multi-label", "regression"]
    both = ["linear", "mlp", "multi-label", "pooled-classifier", "regression", "token-classifier"]
    assert heads_that_fit(TEXT, tinynet, registry, trained=True) == both
    for generation, more in (GenerationSpec(end=(1,)), ["language-model"]), (GenerationSpec(end=(1,), start=(0,)), []):
        writes = dataclasses.replace(tinynet, generation=generation)
        assert heads_that_fit(TEXT, writes, registry, trained=True) == sorted([*both, *more])
