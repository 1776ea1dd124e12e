"""Names of the previous release: each still works, warns with its new name, and is refused beside it."""

from __future__ import annotations

import inspect
import pickle
from dataclasses import replace

import pytest

from pocketzoo.compress.configs import DistillConfig, HealConfig, LowRankConfig
from pocketzoo.core.errors import RecipeError
from pocketzoo.core.renamed import RenamedWarning
from pocketzoo.core.typed import from_plain, from_texts, to_plain
from pocketzoo.plugins.mlp import PerceptronOptions
from pocketzoo.train.augment.specification import AugmentSpec, read_augment
from pocketzoo.train.settings import TrainConfig, with_settings
from pocketzoo.zoo.catalog.compressor import Distillation, Lesson, ModuleCompressor

FIELDS = [
    (DistillConfig, "quantised", "quantized", True),
    (LowRankConfig, "rank_share", "rank_fraction", 0.25),
    (TrainConfig, "optimiser", "optimizer", "sgd"),
    (PerceptronOptions, "standardise", "standardize", False),
    (AugmentSpec, "colour", "color", 0.25),
]


@pytest.mark.parametrize(("cls", "old", "new", "value"), FIELDS)
def test_an_old_field_is_the_new_one(cls, old, new, value):
    expected = cls(**{new: value})
    with pytest.warns(RenamedWarning, match=f"'{old}' was renamed to '{new}'"):
        assert cls(**{old: value}) == expected
    with pytest.warns(RenamedWarning, match=f"'{old}' was renamed to '{new}'"):
        assert from_plain(cls, {old: value}) == expected
    with pytest.warns(RenamedWarning, match=f"'{old}' was renamed to '{new}'"):
        assert from_texts(cls, {old: str(value)}, "a test") == expected
    with pytest.warns(RenamedWarning, match=f"'{old}' was renamed to '{new}'"):
        assert getattr(expected, old) == value


@pytest.mark.parametrize(("cls", "old", "new", "value"), FIELDS)
def test_the_new_field_warns_of_nothing_and_is_all_that_is_written(cls, old, new, value):
    made = cls(**{new: value})
    assert to_plain(made)[new] == value
    assert old not in to_plain(made)
    assert replace(made) == made
    assert pickle.loads(pickle.dumps(made)) == made
    assert new in inspect.signature(cls).parameters
    assert old not in inspect.signature(cls).parameters


@pytest.mark.parametrize(("cls", "old", "new", "value"), FIELDS)
def test_both_names_at_once_are_refused(cls, old, new, value, refused):
    for build in (lambda d: cls(**d), lambda d: from_plain(cls, d)):
        with refused(RecipeError, f"'{old}' and '{new}' are the same field", hint=f"leave out '{old}'"):
            build({old: value, new: value})


def test_settings_take_the_old_name_as_the_command_line_gives_it():
    with pytest.warns(RenamedWarning, match="'optimiser' was renamed to 'optimizer'"):
        assert with_settings({"optimiser": "sgd"}, epochs=3) == TrainConfig(optimizer="sgd", epochs=3)


def test_a_wrong_value_of_an_old_name_is_refused_under_the_new_one(refused):
    with pytest.warns(RenamedWarning), refused(RecipeError, "option 'optimizer' of training cannot be 'adamax'"):
        with_settings({"optimiser": "adamax"})


def test_augment_takes_the_old_spelling():
    with pytest.warns(RenamedWarning, match="'colour' was renamed to 'color'"):
        assert read_augment("flip,colour:0.2") == AugmentSpec(flip=0.5, color=0.2)
    with pytest.warns(RenamedWarning), pytest.raises(RecipeError, match="augment has color more than once"):
        read_augment("color:0.1,colour:0.2")


def test_classes_have_their_old_names_too():
    assert HealConfig is DistillConfig
    assert Lesson is Distillation


def test_a_compressor_may_say_teach():
    def made(**changes):
        return ModuleCompressor(
            name="x", summary="x", config=DistillConfig, plan_type=DistillConfig, plan=print, apply=print, **changes
        )

    with pytest.warns(RenamedWarning, match="'teach' was renamed to 'distill'"):
        assert made(teach=repr).distill is repr
    with pytest.warns(RenamedWarning, match="'teach' was renamed to 'distill'"):
        assert made(distill=repr).teach is repr
    assert made().distill is None
