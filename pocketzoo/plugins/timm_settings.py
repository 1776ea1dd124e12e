"""Which settings of a repository's config.json are passed to timm: architecture name and safe arguments.

timm's ``create_model`` takes names that make it fetch another repository, read a local folder or unpickle a file. So it
is given a plain name, and of ``model_args`` those that are listed here, with values that can name no file. All others
are refused by name. What else a config.json says is read here and not by timm. No torch, no timm.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
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

LAYER_COUNTS = ("depth", "depths", "layers", "num_blocks")  # what timm makes one module of for each


def refusal(config: Mapping[str, Any]) -> str:
    """Why timm is not given this config; "" where nothing speaks against it."""
    name, arguments = config.get("architecture"), config.get("model_args")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return f"its config.json sets 'architecture' to {_shown(name)}, which is not a timm model name"
    if not _whole(config.get("num_classes", 1000)):
        return f"its config.json sets 'num_classes' to {_shown(config['num_classes'])}, which is not a number"
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
    return ""


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
    arguments["num_classes"] = config.get("num_classes", 1000)
    check_sizes(arguments, "its config.json")
    return str(config["architecture"]), arguments


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _numbers(value: Any, depth: int = 3) -> bool:
    """A number or a truth, or lists of them in lists."""
    if isinstance(value, list | tuple):
        return depth > 0 and all(_numbers(each, depth - 1) for each in value)
    return isinstance(value, int | float) and math.isfinite(value)


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown[:60] + "..." * (len(shown) > 60)
