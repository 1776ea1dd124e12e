"""What timm is given of a config: a plain name, and arguments that shape a model. None of these needs timm."""

from __future__ import annotations

import pytest
from hostileconfigs import TIMM_HARM as HARM
from hostileconfigs import TIMM_PLACES as PLACES

from pocketzoo.core.errors import UnsupportedModelError
from pocketzoo.plugins import timm as plugin
from pocketzoo.plugins.timm_settings import NUMBERS, WORDS, refusal, structure_of
from pocketzoo.zoo.catalog.specs import Repository

SOUND = {"architecture": "resnet10t", "num_classes": 10,
         "pretrained_cfg": {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3}}  # fmt: skip
ARCHITECTURES = (*PLACES, None, 3, True, ["resnet10t"], {"": "resnet10t"})


def held_to_it(config) -> str:
    """The reason that every way in gives: a repository's, and that of a bundle, which has its own copy of a config."""
    facts = Repository(repo_id="a/b", commit="0" * 40, config=config, sizes={"model.safetensors": 1})
    for act in (lambda: plugin.backbone(facts), lambda: plugin.head_of(facts), lambda: structure_of(config)):
        with pytest.raises(UnsupportedModelError) as caught:
            act()
        assert caught.value.message == refusal(config)
        assert "without" in caught.value.hint
        assert "\n" not in caught.value.message
    return plugin.refuses(facts)


@pytest.mark.parametrize("name", ARCHITECTURES, ids=repr)
def test_an_architecture_that_is_no_plain_name_is_refused(name):
    reason = held_to_it({**SOUND, "architecture": name})
    if isinstance(name, str):
        assert reason == refusal({**SOUND, "architecture": name})
    else:
        assert reason == "its config.json is not a timm config"
    assert repr(name) in refusal({**SOUND, "architecture": name})


@pytest.mark.parametrize("name", HARM, ids=repr)
def test_an_argument_that_is_none_of_a_models_shape_is_refused_by_name(name):
    for value in HARM[name]:
        for arguments in ({name: value}, {"drop_rate": 0.1, name: value, "in_chans": 3}):
            assert repr(name) in held_to_it({**SOUND, "model_args": arguments}), value


@pytest.mark.parametrize("arguments", ["evil", ["checkpoint_path"], 3, True], ids=repr)
def test_arguments_that_are_no_table_are_refused(arguments):
    assert "'model_args'" in held_to_it({**SOUND, "model_args": arguments})


@pytest.mark.parametrize("count", ["10", -1, 1.5, True, [10], None], ids=repr)
def test_a_number_of_classes_that_is_none_is_refused(count):
    assert "'num_classes'" in held_to_it({**SOUND, "num_classes": count})


def test_what_else_a_config_says_is_not_passed_on():
    """It is read here, or by nobody."""
    more = dict.fromkeys(HARM, "evil") | {"pretrained_cfg": {"file": "/tmp/evil", "hf_hub_id": "other/evil"}}
    config = {**more, **{k: v for k, v in SOUND.items() if k != "pretrained_cfg"}}
    assert structure_of(config) == ("resnet10t", {"num_classes": 10})


def test_arguments_of_published_models_are_passed_on():
    for arguments in (
        {"img_size": 224, "init_values": 1e-05, "num_classes": 0, "dynamic_img_size": True},
        {"img_size": [224, 224], "patch_size": 14, "depth": 24, "num_heads": 24, "embed_dim": 1536, "mlp_ratio": 5.3},
        {"reg_tokens": 4, "global_pool": "", "class_token": True, "pos_embed": "learn", "no_embed_class": True},
        {"act_layer": "gelu_tanh", "window_size": [16, 16], "drop_path_rate": None},
        {"depths": [2, 2, 6, 2], "in_chans": 1, "drop_rate": 0.1, "norm_layer": "layernorm2d"},
    ):  # fmt: skip
        given = {name: value for name, value in arguments.items() if value is not None}
        assert structure_of({**SOUND, "model_args": arguments}) == ("resnet10t", {**given, "num_classes": 10})


def test_no_name_is_both_harm_and_shape():
    of_a_model = {
        "act_layer",
        "depths",
        "global_pool",
        "img_size",
        "norm_layer",
        "num_classes",
    }  # by their values alone
    assert not (NUMBERS | WORDS) & (HARM.keys() - of_a_model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"interpolation": "evil"}, "its config.json resizes images by 'evil'"),
        ({"std": [0.5, 0.0, 0.5]}, "its config.json divides by std [0.5, 0.0, 0.5]"),
    ],
)
def test_images_are_read_by_what_is_known(change, message, refused):
    with refused(UnsupportedModelError, message, hint="choose"):
        plugin._input({**SOUND["pretrained_cfg"], **change})
    assert plugin._input(SOUND["pretrained_cfg"]).interpolation == "bicubic"
