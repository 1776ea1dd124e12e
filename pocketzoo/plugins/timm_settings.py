"""Which settings of a repository's config.json are passed to timm: architecture name and safe arguments.

timm's ``create_model`` takes names that make it fetch another repository, read a local folder or unpickle a file. So it
is given a plain name, and of ``model_args`` those that are listed here, with values that can name no file. All others
are refused by name. What else a config.json says is read here and not by timm. No torch, no timm.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from pocketzoo.core.errors import UnsupportedModelError
from pocketzoo.core.untrusted.limits import check_layers, check_sizes

HINT = "choose another repository, or a copy of this one without it"
NAME = re.compile(r"[A-Za-z0-9_]+")  # no scheme, no path, no tag
WORD = re.compile(r"[A-Za-z0-9_]{0,32}")  # timm looks these up in tables of its own
WORDS = {
    "aa_layer", "act_layer", "attn_type", "global_pool", "norm_layer", "pad_type", "pos_embed", "rel_pos_type",
    "rope_type", "stem_type", "weight_init",
}  # fmt: skip
NUMBERS = {
    "attn_drop_rate", "attn_pool_mlp_ratio", "attn_pool_num_heads", "attn_ratio", "avg_down", "base_width",
    "block_reduce_first", "bn_eps", "bn_momentum", "bottle_ratio", "cardinality", "channels", "class_token",
    "conv_bias", "conv_mlp", "conv_ratio", "depth", "depths", "dim", "dims", "distillation", "down_kernel_size",
    "drop_block_rate", "drop_path_rate", "drop_rate", "dynamic_img_pad", "dynamic_img_size", "embed_dim",
    "embed_dims", "expand_ratio", "fc_norm", "final_norm", "fix_init", "fix_stem", "growth_rate", "head_bias",
    "head_dim", "head_hidden_size", "head_init_scale", "head_norm", "head_norm_first", "heads", "hidden_sizes",
    "img_size", "in_chans", "init_values", "kernel_size", "kernel_sizes", "key_dim", "layer_scale_init_value",
    "layers", "ls_init_value", "mlp_bias", "mlp_ratio", "mlp_ratios", "no_embed_class", "norm_eps", "num_blocks",
    "num_classes", "num_features", "num_heads", "num_kv_heads", "num_reg_tokens", "output_stride",
    "patch_drop_rate", "patch_norm", "patch_size", "patch_sizes", "pool_include_prefix", "pool_size",
    "pos_drop_rate", "preact", "pre_norm", "proj_bias", "proj_drop_rate", "qk_norm", "qkv_bias", "qkv_fused",
    "ref_feat_shape", "reg_tokens", "replace_stem_pool", "rope_temperature", "scale_attn_inner", "scale_attn_norm",
    "scale_mlp", "scale_mlp_norm", "se_ratio", "shared_rel_pos", "sr_ratios", "stem_chs", "stem_size", "stem_width",
    "stride", "strides", "strict_img_size", "swiglu_mlp", "use_abs_pos", "use_abs_pos_emb", "use_fc_norm",
    "use_grn", "use_layer_scale", "use_pos_embed", "use_rel_pos", "use_rel_pos_bias", "use_rope", "use_rot_pos_emb",
    "use_shared_rel_pos_bias", "width", "widths", "width_factor", "window_ratio", "window_size", "window_sizes",
    "zero_init_last",
}  # fmt: skip


def _list(value: Any, length: int | None = None) -> bool:
    return isinstance(value, list | tuple) and bool(value) and length in (None, len(value))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


# What pretrained_cfg says of images and classes, and what its values have to be.
FILTERS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")  # as InputSpec.interpolation
USUAL: dict[str, Any] = {
    "input_size": (3, 224, 224), "interpolation": "bicubic", "crop_pct": 0.875, "crop_mode": "center",
    "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225),
}  # fmt: skip
SIDE = 16_384  # pixels of an image's side, and its channels, at most
OF_PRETRAINED: dict[str, Callable[[Any], bool]] = {
    "input_size": lambda v: _list(v, 3) and all(_whole(n) and 0 < n <= SIDE for n in v),
    "interpolation": lambda v: isinstance(v, str) and (v == "" or v in FILTERS),
    "crop_pct": lambda v: _number(v) and 0 <= v <= 1,  # above 1, timm would put borders around images; 0 is as unsaid
    "crop_mode": lambda v: isinstance(v, str) and v in ("", "center", "squash"),  # "border" puts borders around them
    "mean": lambda v: _list(v) and all(map(_number, v)),
    "std": lambda v: _list(v) and all(_number(n) and n > 0 for n in v),
    "num_classes": _whole,
    "label_names": lambda v: _list(v) and all(isinstance(name, str) for name in v),
    "fixed_input_size": lambda v: isinstance(v, bool),
    "label_offset": lambda v: v == 0,  # more would leave the first classes of the weights out
}
SHAPES: dict[str, Callable[[Any], bool]] = {
    "in_chans": lambda v: _whole(v) and 0 < v <= SIDE,
    "img_size": lambda v: all(_whole(n) and 0 < n <= SIDE for n in (v if _list(v, 2) else [v])),
}
HARMLESS = {
    **dict.fromkeys(("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "tag", "architecture",
                     "custom_load"),
                    "where weights lie, and in which kind of file: here they are the repository's own safetensors"),
    **dict.fromkeys(("test_input_size", "min_input_size", "test_crop_pct", "pool_size", "test_pool_size"),
                    "of images of other sizes"),
    **dict.fromkeys(("first_conv", "classifier"), "which layers to change for other channels and classes"),
    **dict.fromkeys(("label_descriptions", "license", "description", "origin_url", "paper_name", "paper_ids", "notes"),
                    "for readers"),
}  # fmt: skip

LAYER_COUNTS = ("depth", "depths", "layers", "num_blocks")  # what timm makes one module of for each


def refusal(config: Mapping[str, Any]) -> str:
    """Why timm is not given this config; "" where nothing speaks against it."""
    name, arguments = config.get("architecture"), config.get("model_args")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return f"its config.json sets 'architecture' to {_shown(name)}, which is not a timm model name"
    if not _whole(config.get("num_classes", 1000)):
        return f"its config.json sets 'num_classes' to {_shown(config['num_classes'])}, which is not a number"
    if (names := config.get("label_names")) is not None and not OF_PRETRAINED["label_names"](names):
        return f"its config.json sets 'label_names' to {_shown(names)}, which are not names"
    if reason := _refused_pretrained(config.get("pretrained_cfg")):
        return reason
    if not isinstance(arguments, Mapping | None):
        return f"its config.json sets 'model_args' to {_shown(arguments)}, which is not a table"
    for key, value in (arguments or {}).items():
        if value is None:
            continue
        if key not in WORDS | NUMBERS:
            return f"its config.json sets {_shown(key)} in 'model_args', which is not passed on to timm"
        word = key in WORDS and isinstance(value, str) and WORD.fullmatch(value)
        if not word and (key not in NUMBERS or not _numbers(value)):
            return f"its config.json sets {key!r} in 'model_args' to {_shown(value)}, which is not passed on to timm"
        if key in SHAPES and not SHAPES[key](value):
            return f"its config.json sets {key!r} in 'model_args' to {_shown(value)}, which no image has"
    return _refused_images(config)


def _refused_pretrained(said: Any) -> str:
    """Why what ``pretrained_cfg`` says is not followed; "" where all of it is."""
    where = "in 'pretrained_cfg'"
    if not isinstance(said, Mapping):
        return f"its config.json sets 'pretrained_cfg' to {_shown(said)}, which is not a table"
    for key, value in said.items():
        if value is None or key in HARMLESS:
            continue
        if key not in OF_PRETRAINED or not OF_PRETRAINED[key](value):
            return f"its config.json sets {_shown(key)} {where} to {_shown(value)}, which is not followed here"
    return ""


def _refused_images(config: Mapping[str, Any]) -> str:
    """Why images are not read as a config says, whose settings are fine one by one."""
    said, where = config["pretrained_cfg"], "in 'pretrained_cfg'"
    channels, height, width = _input_size(config)
    for key in ("mean", "std"):
        if len(values := said.get(key) or USUAL[key]) != channels:
            return f"its config.json sets {key!r} {where} to {_shown(values)}, and images have {channels} channels"
    if height != width and said.get("crop_mode") != "squash":
        size = [channels, height, width]
        return f"its config.json sets 'input_size' {where} to {size}, for which timm resizes images in another way"
    return ""


def _input_size(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """(channels, height, width), as timm puts them together."""
    arguments = config.get("model_args") or {}
    channels, *sides = config["pretrained_cfg"].get("input_size") or USUAL["input_size"]
    inside = arguments.get("img_size")
    if inside is not None and _is_fixed(config):
        sides = [inside, inside] if _whole(inside) else inside
    return arguments.get("in_chans") or channels, sides[0], sides[1]


def _is_fixed(config: Mapping[str, Any]) -> bool:
    arguments = config.get("model_args") or {}
    free = arguments.get("dynamic_img_size") or arguments.get("strict_img_size") is False
    return bool(config["pretrained_cfg"].get("fixed_input_size")) and not free


def image_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What ``pretrained_cfg`` says of images, and of what it does not say what timm takes.

    Raises:
        UnsupportedModelError: ``refusal`` says why it is not followed.
    """
    if reason := refusal(config):
        raise UnsupportedModelError(reason, HINT)
    said = config["pretrained_cfg"]
    return {**{key: said.get(key) or usual for key, usual in USUAL.items()}, "input_size": _input_size(config)}


def labels_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The repository's own names of its classes; none where it has none, or not as many."""
    names = config.get("label_names") or config["pretrained_cfg"].get("label_names") or ()
    return tuple(names) if len(names) == _classes(config) else ()


def _classes(config: Mapping[str, Any]) -> int:
    inside = config["pretrained_cfg"].get("num_classes")
    return int(config.get("num_classes", 1000 if inside is None else inside))


def structure_of(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The architecture and the arguments that timm is given; nothing else of a config may reach it.

    Raises:
        UnsupportedModelError: ``refusal`` says why not.
        TooLargeError: it asks for more layers, or a larger size, than the limit.
    """
    if reason := refusal(config):
        raise UnsupportedModelError(reason, HINT)
    arguments = {key: value for key, value in (config.get("model_args") or {}).items() if value is not None}
    check_layers(arguments, LAYER_COUNTS, "its config.json")
    given: dict[str, Any] = {"num_classes": _classes(config)}
    if config["pretrained_cfg"].get("input_size"):  # what timm takes of it where no argument says it
        channels, *sides = _input_size(config)
        given |= {"in_chans": channels} if channels != USUAL["input_size"][0] else {}
        given |= {"img_size": tuple(sides)} if _is_fixed(config) and "img_size" not in arguments else {}
    arguments |= given
    check_sizes(arguments, "its config.json")
    return str(config["architecture"]), arguments


def _numbers(value: Any, depth: int = 3) -> bool:
    """A number or a truth, or lists of them in lists."""
    if isinstance(value, list | tuple):
        return depth > 0 and all(_numbers(each, depth - 1) for each in value)
    return isinstance(value, int | float) and math.isfinite(value)


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown[:60] + "..." * (len(shown) > 60)
