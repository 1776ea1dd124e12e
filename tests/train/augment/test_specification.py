"""What a user writes of augmentation, and what is refused."""

from __future__ import annotations

import pytest

from pocketzoo.core.errors import RecipeError
from pocketzoo.train.augment.specification import AugmentSpec, MixSpec, read_augment, read_mix
from pocketzoo.train.settings import TrainConfig


def test_each_part_is_read():
    text = "flip, rotate:15,shift:0.1,shear:10,zoom:0.2,color:0.3,hue:0.05,fill:reflect"
    wanted = AugmentSpec(
        flip=0.5, rotate=15, shift=0.1, shear=10, zoom=0.2, color=0.3, hue=0.05, fill="reflect"
    )  # fmt: skip
    assert read_augment(text) == wanted
    assert read_augment("flip:1") == AugmentSpec(flip=1.0)
    assert not read_augment("")
    assert not read_augment("rotate:0,fill:black")
    assert read_mix("mixup:0.2") == MixSpec("mixup", 0.2)
    assert read_mix("") is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"augment": "rotat:5"}, "augment has no 'rotat'"),
        ({"augment": "rotate"}, "'rotate' has no number"),
        ({"augment": "rotate:much"}, "'rotate:much' has no number"),
        ({"augment": "rotate:181"}, "augment cannot have rotate:181"),
        ({"augment": "zoom:nan"}, "augment cannot have zoom:nan"),
        ({"augment": "shift:-0.1"}, "augment cannot have shift:-0.1"),
        ({"augment": "flip,flip"}, "augment has flip more than once"),
        ({"augment": "fill:red"}, "augment cannot have fill:red"),
        ({"mix": "mixup"}, "'mixup' has no number"),
        ({"mix": "mixup:0"}, "alpha of 0"),
        ({"mix": "mixup:inf"}, "alpha of inf"),
        ({"mix": "mixdown:1"}, "mix cannot be 'mixdown:1'"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_with_the_settings(settings, words, refused):
    with refused(RecipeError, words) as refusal:
        TrainConfig(**settings)
    assert refusal.value.hint


@pytest.mark.parametrize(
    ("name", "limit"),
    [("flip", 1.0), ("rotate", 180.0), ("shift", 0.9), ("shear", 60.0), ("zoom", 0.9), ("color", 0.9), ("hue", 0.5)],
)
def test_each_change_has_a_limit(name, limit, refused):
    assert getattr(AugmentSpec(), name) == 0.0
    assert getattr(read_augment(f"{name}:{limit}"), name) == limit
    assert AugmentSpec(**{name: limit})
    for beyond in (limit * 1.01, -0.01):
        with refused(RecipeError, f"augment cannot have {name}:{beyond:g}", hint=f"give 0 to {limit:g}"):
            AugmentSpec(**{name: beyond})
    assert AugmentSpec(**{name: 0.1}).moves is (name in ("rotate", "shift", "shear", "zoom"))


def test_the_hint_is_what_to_write(refused):
    assert AugmentSpec().fill == "border"
    for text, hint in [
        ("rotate:much", "write NAME:NUMBER, such as rotate:15 or mixup:0.2"),
        ("flip,flip", "give it once"),
        ("rotat:5", "did you mean 'rotate'?"),
        ("fill:blak", "did you mean 'black'?"),
    ]:
        with refused(RecipeError, hint=hint):
            read_augment(text)
    for text, hint in [("mixu:1", "did you mean 'mixup'?"), ("mixup:-1", "it must be above 0: mixup:0.2, cutmix:1")]:
        with refused(RecipeError, hint=hint):
            read_mix(text)
    assert read_mix("cutmix:1") == MixSpec("cutmix", 1.0)
    assert read_augment(" flip , , zoom:0.1") == AugmentSpec(flip=0.5, zoom=0.1)
