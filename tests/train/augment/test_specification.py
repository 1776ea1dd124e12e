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
