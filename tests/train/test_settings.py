"""Settings: what cannot be is refused by name, with what could be."""

from __future__ import annotations

from dataclasses import fields

import pytest

from pocketzoo.core.errors import RecipeError
from pocketzoo.train.settings import SAYS, TrainConfig, with_settings


def test_settings_that_go_together_may_come_in_two_ways():
    config = with_settings({"head_epochs": "50"}, epochs=60, unfreeze="last:3", seed=None)
    assert (config.head_epochs, config.epochs, config.unfreeze, config.seed) == (50, 60, "last:3", 0)


def test_every_setting_says_what_it_is():
    assert list(SAYS) == [field.name for field in fields(TrainConfig)]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 0}, "epochs cannot be 0"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"optimizer": "adamax"}, "option 'optimizer' of training cannot be 'adamax'"),
        ({"schedule": "cosin"}, "schedule"),
        ({"precision": "int4"}, "precision"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"backbone_rate": -1.0}, "backbone_rate"),
        ({"layer_decay": float("inf")}, "layer_decay"),
        ({"momentum": 1.0}, "momentum"),
        ({"warm_up": -0.1}, "warm_up"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"clip": 0.0}, "clip"),
        ({"patience": 0}, "patience"),
        ({"head_epochs": 50, "unfreeze": "all"}, "head_epochs cannot be 50"),
        ({"head_epochs": 1}, "head_epochs needs a backbone that is fine-tuned"),
        ({"unfreeze": "last:"}, "unfreeze"),
        ({"unfreeze": "last:0"}, "unfreeze"),
        ({"unfreeze": "last:x"}, "unfreeze"),
        ({"unfreeze": ""}, "unfreeze"),
        ({"epoch": 3}, "training has no option 'epoch'"),
        ({"clip": "much"}, "clip must be float, not 'much'"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(settings, words):
    with pytest.raises(RecipeError, match=words) as refusal:
        with_settings(settings)
    assert refusal.value.hint


def test_single_settings_change_a_config():
    config = TrainConfig(epochs=3, unfreeze="last:2")
    assert with_settings(config, epochs=5, unfreeze=None) == TrainConfig(epochs=5, unfreeze="last:2")
    assert config.epochs == 3
    assert with_settings(None) == with_settings({}) == TrainConfig()


def test_texts_are_read_by_their_type():
    texts = {"epochs": "7", "clip": "0.5", "balanced": "yes", "optimizer": "sgd"}
    assert with_settings(texts) == TrainConfig(epochs=7, clip=0.5, balanced=True, optimizer="sgd")
