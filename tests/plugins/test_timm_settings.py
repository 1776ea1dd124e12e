"""What timm is given of a config: a plain name, and arguments that shape a model. None of these needs timm."""

from __future__ import annotations

import pytest
from hostileconfigs import TIMM_HARM as HARM
from hostileconfigs import TIMM_PLACES as PLACES

from pocketzoo.core.errors import UnsupportedModelError
from pocketzoo.plugins import timm as plugin
from pocketzoo.plugins.timm_settings import NUMBERS, WORDS, labels_of, refusal, structure_of
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
        {"depths": [2, 2, 6, 2], "in_chans": 3, "drop_rate": 0.1, "norm_layer": "layernorm2d"},
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


def of_images(**said) -> dict[str, object]:
    return {**SOUND, "pretrained_cfg": {**SOUND["pretrained_cfg"], **said}}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("interpolation", "evil"),
        ("interpolation", "random"),
        ("std", [0.5, 0.0, 0.5]),
        ("std", 0.5),
        ("mean", [0.5]),
        ("mean", ["0.5"] * 3),
        ("input_size", [3, 32]),
        ("input_size", [3, 32, 48]),
        ("input_size", [3, 0, 0]),
        ("input_size", [4, 32, 32]),
        ("crop_pct", 1.5),
        ("crop_pct", -0.5),
        ("crop_pct", "0.9"),
        ("crop_mode", "border"),
        ("num_classes", -1),
        ("label_names", "cats"),
        ("label_offset", 1),
        ("fixed_input_size", "yes"),
        ("global_pool", "avg"),
        ("unheard_of", 1),
    ],
)  # fmt: skip
def test_a_setting_of_images_that_is_not_followed_is_refused_by_name(key, value):
    reason = held_to_it(of_images(**{key: value}))
    assert repr(key) in reason or (key == "input_size" and "'mean'" in reason)


@pytest.mark.parametrize("said", ["evil", None, ["input_size"]], ids=repr)
def test_settings_of_images_that_are_no_table_are_refused(said):
    assert "'pretrained_cfg'" in held_to_it({**SOUND, "pretrained_cfg": said})


def test_what_is_not_said_of_images_is_as_timm_has_it():
    spec = plugin._input({"architecture": "resnet10t", "pretrained_cfg": {}})
    assert (spec.size, spec.resize, spec.interpolation) == ((3, 224, 224), 256, "bicubic")
    assert (spec.mean, spec.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (spec.longer, spec.center) == ("floor", "even")
    empty = {"interpolation": "", "crop_pct": 0, "crop_mode": "", "mean": None}
    assert plugin._input({"architecture": "resnet10t", "pretrained_cfg": empty}) == spec


def test_images_are_squashed_to_more_than_their_size_before_the_center_is_cut_out():
    spec = plugin._input(of_images(crop_mode="squash", crop_pct=0.8, input_size=[3, 32, 48]))
    assert (spec.stretch, spec.stretched, spec.size) == (True, (40, 60), (3, 32, 48))
    assert plugin._input(of_images(crop_mode="squash", crop_pct=1.0)).stretched == ()


def test_what_timm_takes_of_the_size_of_images_it_is_given():
    fixed = of_images(fixed_input_size=True)
    assert structure_of(fixed)[1] == {"num_classes": 10, "img_size": (32, 32)}
    sized = {**fixed, "model_args": {"img_size": 48}}
    assert structure_of(sized)[1] == {"num_classes": 10, "img_size": 48}
    assert plugin._input(sized).size == (3, 48, 48)
    free = {**fixed, "model_args": {"img_size": 48, "dynamic_img_size": True}}
    assert plugin._input(free).size == (3, 32, 32)
    gray = of_images(input_size=[1, 32, 32], mean=[0.5], std=[0.5])
    assert structure_of(gray)[1] == {"num_classes": 10, "in_chans": 1}
    assert "'mean'" in held_to_it({**SOUND, "model_args": {"in_chans": 1}})


def test_classes_and_their_names_are_the_outer_ones():
    names = ["cat", "dog"]
    inner = {k: v for k, v in of_images(num_classes=2, label_names=names).items() if k != "num_classes"}
    assert structure_of(inner)[1] == {"num_classes": 2}
    assert labels_of(inner) == ("cat", "dog")
    assert structure_of({**inner, "num_classes": 3})[1] == {"num_classes": 3}
    assert labels_of({**inner, "num_classes": 3}) == ()
    assert labels_of({**inner, "label_names": ["a", "b"]}) == ("a", "b")
    assert "'label_names'" in held_to_it({**SOUND, "label_names": [1, 2]})
