"""Settings: what cannot be is refused by name, with what could be."""

from __future__ import annotations

from dataclasses import fields

import pytest
from ranges import check_ranges

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
def test_what_cannot_be_is_refused(settings, words, refused):
    with refused(RecipeError, words) as refusal:
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


def test_numbers_are_held_to_their_ranges():
    table = {
        "epochs": (40, "[1, inf)"),
        "batch_size": (64, "[1, inf)"),
        "seed": (0, "[0, inf)"),
        "learning_rate": (3e-3, "(0, inf)"),
        "momentum": (0.9, "[0, 1)"),
        "weight_decay": (1e-2, "[0, inf)"),
        "warm_up": (0.0, "[0, 1)"),
        "clip": (None, "(0, inf)"),
        "label_smoothing": (0.0, "[0, 1)"),
        "patience": (None, "[1, inf)"),
        "head_epochs": (0, "[0, 40]"),
        "backbone_rate": (0.1, "(0, inf)"),
        "layer_decay": (1.0, "(0, inf)"),
        "lora_rank": (0, "[0, inf)"),
        "lora_alpha": (16.0, "(0, inf)"),
        "lora_dropout": (0.0, "[0, 1)"),
        "window": (128, "[1, inf)"),
    }
    check_ranges(TrainConfig, table, {}, {"head_epochs": {"unfreeze": "all"}})


def test_words_and_switches_are_as_they_are_documented():
    config = TrainConfig()
    words = (config.optimizer, config.schedule, config.unfreeze, config.augment, config.mix, config.precision)
    assert words == ("adamw", "cosine", "none", "", "", "float32")
    assert not config.balanced


def test_the_backbone_learns_by_its_blocks_or_by_adapters():
    assert not TrainConfig().backbone_learns
    assert TrainConfig(unfreeze="last:1").backbone_learns
    assert TrainConfig(lora_rank=1).backbone_learns
