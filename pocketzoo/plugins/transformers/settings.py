"""Which settings of a repository's config.json are passed to transformers, for each model family.

The library sets every key of a config as an attribute, and some of those choose what it loads: kernels of another
repository, files, quantizers, code. So it is given what is listed here and nothing else, of the values listed here. A
key that is on neither list is refused by name. No torch, no transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocketzoo.core.errors import UnsupportedModelError
from pocketzoo.core.untrusted.limits import check_layers, check_sizes
from pocketzoo.plugins.transformers.setting_values import HINT, Fits, either, flag, number, one_of, several, whole

# The library's own functions; "xielu" is not among them, which looks for a package with a kernel.
activation = one_of(
    "gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_python_tanh",
    "gelu_pytorch_tanh", "hardswish", "laplace", "leaky_relu", "linear", "mish", "quick_gelu", "relu", "relu2", "relu6",
    "sigmoid", "silu", "swish", "tanh",
)  # fmt: skip
numbers = either(whole, several(whole))

ROPE: dict[str, Fits] = {
    **dict.fromkeys(("rope_type", "type"), one_of("default", "linear", "dynamic", "yarn", "longrope", "llama3")),
    **dict.fromkeys(("short_factor", "long_factor"), several(number)),
    **dict.fromkeys(("rope_theta", "factor", "low_freq_factor", "high_freq_factor", "attention_factor", "beta_fast",
                     "beta_slow", "mscale", "mscale_all_dim", "partial_rotary_factor"), number),
    "original_max_position_embeddings": whole,
    "truncate": flag,
}  # fmt: skip


def gated(value: Any) -> bool:
    return isinstance(value, str) and activation(value.removeprefix("gated-"))


def rope(value: Any) -> bool:
    return isinstance(value, dict) and all(k in ROPE and (v is None or ROPE[k](v)) for k, v in value.items())


_BERT: dict[str, Fits] = {
    **dict.fromkeys(("bos_token_id", "eos_token_id"), numbers),
    **dict.fromkeys(("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                     "max_position_embeddings", "pad_token_id", "type_vocab_size"), whole),
    **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "layer_norm_eps"),
                    number),
    **dict.fromkeys(("is_decoder", "add_cross_attention", "use_cache", "tie_word_embeddings"), flag),
    "hidden_act": activation,
}  # fmt: skip
_LLAMA: dict[str, Fits] = {
    **dict.fromkeys(("bos_token_id", "eos_token_id"), numbers),
    **dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                     "num_key_value_heads", "max_position_embeddings", "pad_token_id", "head_dim"), whole),
    **dict.fromkeys(("initializer_range", "rms_norm_eps", "attention_dropout", "rope_theta"), number),
    **dict.fromkeys(("use_cache", "tie_word_embeddings"), flag),
    **dict.fromkeys(("rope_parameters", "rope_scaling"), rope),
    "hidden_act": activation,
}  # fmt: skip
_VIT: dict[str, Fits] = {
    **dict.fromkeys(("hidden_size", "num_hidden_layers", "num_attention_heads", "num_channels", "head_dim"), whole),
    **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "layer_norm_eps"),
                    number),
    **dict.fromkeys(("image_size", "patch_size"), numbers),
    "qkv_bias": flag,
    "hidden_act": activation,
}  # fmt: skip
_POOLED_VIT: dict[str, Fits] = {
    **_VIT,
    **dict.fromkeys(("intermediate_size", "encoder_stride", "pooler_output_size"), whole),
    "pooler_act": activation,
}
_CONVNEXT: dict[str, Fits] = {
    **dict.fromkeys(("num_channels", "num_stages", "num_hidden_layers"), whole),
    **dict.fromkeys(("hidden_sizes", "depths"), several(whole)),
    **dict.fromkeys(("initializer_range", "layer_norm_eps", "drop_path_rate"), number),
    **dict.fromkeys(("image_size", "patch_size"), numbers),
    "hidden_act": activation,
}
STRUCTURE: dict[str, dict[str, Fits]] = {
    **dict.fromkeys(("bert", "camembert", "roberta", "xlm-roberta"), _BERT),
    "albert": {**_BERT, **dict.fromkeys(("embedding_size", "num_hidden_groups", "inner_group_num"), whole)},
    "electra": {**_BERT, "embedding_size": whole},
    "mpnet": {**_BERT, "relative_attention_num_buckets": whole},
    "distilbert": {
        **dict.fromkeys(("bos_token_id", "eos_token_id"), numbers),
        **dict.fromkeys(("vocab_size", "max_position_embeddings", "n_layers", "n_heads", "dim", "hidden_dim",
                         "pad_token_id", "hidden_size", "num_attention_heads", "num_hidden_layers"), whole),
        **dict.fromkeys(("dropout", "attention_dropout", "initializer_range"), number),
        **dict.fromkeys(("sinusoidal_pos_embds", "tie_word_embeddings"), flag),
        "activation": activation,
    },
    "gpt2": {
        **dict.fromkeys(("bos_token_id", "eos_token_id"), numbers),
        **dict.fromkeys(("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner", "pad_token_id",
                         "hidden_size", "max_position_embeddings", "num_attention_heads", "num_hidden_layers"), whole),
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop", "layer_norm_epsilon", "initializer_range"), number),
        **dict.fromkeys(("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn",
                         "add_cross_attention", "use_cache", "tie_word_embeddings"), flag),
        "activation_function": activation,
    },
    "llama": {
        **_LLAMA,
        **dict.fromkeys(("attention_bias", "mlp_bias"), flag),
        "pretraining_tp": whole,
        "partial_rotary_factor": number,
    },
    "qwen2": {
        **_LLAMA,
        **dict.fromkeys(("sliding_window", "max_window_layers"), whole),
        "use_sliding_window": flag,
        "layer_types": several(one_of("full_attention", "sliding_attention")),
    },
    "t5": {
        "eos_token_id": numbers,
        **dict.fromkeys(("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads",
                         "relative_attention_num_buckets", "relative_attention_max_distance", "pad_token_id",
                         "hidden_size", "num_attention_heads", "num_hidden_layers", "head_dim"), whole),
        **dict.fromkeys(("dropout_rate", "layer_norm_epsilon", "initializer_factor"), number),
        **dict.fromkeys(("use_cache", "tie_word_embeddings", "scale_decoder_outputs", "is_gated_act", "is_decoder"),
                        flag),
        "feed_forward_proj": gated,
        "dense_act_fn": activation,
    },
    "convnext": {**_CONVNEXT, "layer_scale_init_value": number},
    "convnextv2": _CONVNEXT,
    "resnet": {
        **dict.fromkeys(("num_channels", "embedding_size"), whole),
        **dict.fromkeys(("hidden_sizes", "depths"), several(whole)),
        **dict.fromkeys(("downsample_in_first_stage", "downsample_in_bottleneck"), flag),
        "layer_type": one_of("basic", "bottleneck"),
        "hidden_act": activation,
    },
    "deit": _POOLED_VIT,
    "vit": _POOLED_VIT,
    "dinov2": {
        **_VIT,
        **dict.fromkeys(("mlp_ratio", "layerscale_value", "drop_path_rate"), number),
        **dict.fromkeys(("use_swiglu_ffn", "apply_layernorm", "reshape_hidden_states", "use_mask_token"), flag),
    },
}  # fmt: skip

# What the library makes one module of for each.
LAYER_COUNTS = (
    "depths", "inner_group_num", "n_layer", "n_layers", "num_decoder_layers", "num_hidden_groups", "num_hidden_layers",
    "num_layers", "num_stages",
)  # fmt: skip
VISION = {"convnext", "convnextv2", "deit", "dinov2", "resnet", "vit"}
_TEXT_NAMES = {name for kind, names in STRUCTURE.items() if kind not in VISION for name in names}
_VISION_NAMES = {name for kind in VISION for name in STRUCTURE[kind]}

# What the library is not told, since it changes no feature: who made the model and with what, in which type its numbers
# are stored, the heads (which are pocketzoo's own), training, and the search for texts.
DROPPED = {
    "_attn_implementation_autoset", "_commit_hash", "_name_or_path", "_num_labels", "architectures",
    "chunk_size_feed_forward", "classifier_dropout", "classifier_dropout_prob", "cls_token_id",
    "decoder_start_token_id", "dtype", "eos_token_ids", "finetuning_task", "gradient_checkpointing", "id2label",
    "is_encoder_decoder", "keys_to_ignore_at_inference", "label2id", "language", "mask_token_id", "bos_token_id",
    "eos_token_id", "pad_token_id", "model_type", "n_ctx", "name_or_path", "num_labels", "out_features",
    "out_indices", "_out_features", "_out_indices", "output_attentions", "output_hidden_states", "output_past",
    "prefix", "problem_type", "qa_dropout", "return_dict", "sbert_ce_default_activation_function",
    "sentence_transformers", "sep_token_id", "seq_classif_dropout", "stage_names", "summary_activation",
    "summary_first_dropout", "summary_last_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
    "task_specific_params", "tf_legacy_loss", "tie_encoder_decoder", "tie_weights_", "tokenizer_class",
    "torch_dtype", "torchscript", "transformers.js_config", "transformers_version", "unk_token_id", "unsloth_fixed",
    "unsloth_version", "use_bfloat16", "xla_device",
    # of BERT's and ALBERT's first authors, whose code alone read them
    "directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers",
    "pooler_size_per_head", "pooler_type", "down_scale_factor", "gap_size", "net_structure_type",
    "num_memory_blocks",
    # of the search for texts
    "assistant_confidence_threshold", "assistant_lookbehind", "bad_words_ids", "begin_suppress_tokens",
    "diversity_penalty", "do_sample", "early_stopping", "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty", "epsilon_cutoff", "eta_cutoff", "exponential_decay_length_penalty",
    "forced_bos_token_id", "forced_eos_token_id", "guidance_scale", "length_penalty", "max_length",
    "max_new_tokens", "min_length", "min_new_tokens", "no_repeat_ngram_size", "num_assistant_tokens",
    "num_assistant_tokens_schedule", "num_beam_groups", "num_beams", "num_return_sequences", "output_scores",
    "penalty_alpha", "remove_invalid_values", "repetition_penalty", "return_dict_in_generate", "sequence_bias",
    "suppress_tokens", "target_lookbehind", "temperature", "top_k", "top_p", "typical_p",
    # what the Hub adds to a config that it answers a search with
    "additional_chat_templates", "chat_template_jinja", "processor_config", "tokenizer_config",
}  # fmt: skip

# The same, as long as it says what is done here anyway.
_ATTENTION = one_of("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")  # all the same result
AS_HERE: dict[str, Fits] = {
    **dict.fromkeys(("attn_implementation", "_attn_implementation", "_attn_implementation_internal"), _ATTENTION),
    **dict.fromkeys(("rope_interleaved", "trust_remote_code", "use_mrope"), lambda value: value is False),
    "is_llama_config": lambda value: value is True,
    "position_embedding_type": one_of("absolute"),
    "pruned_heads": lambda value: value == {},
}


def refusal(config: Mapping[str, Any]) -> str:
    """Why the library is not given this config, of a known family; "" where nothing speaks against it."""
    structure = STRUCTURE[config["model_type"]]
    others = _VISION_NAMES if config["model_type"] in VISION else _TEXT_NAMES  # which this one's code does not read
    for name, value in config.items():
        fits = structure.get(name) or AS_HERE.get(name)
        if value is None or (fits is None and (name in DROPPED or name in others)):
            continue
        if fits is None:
            return f"its config.json sets {name!r}, which is not a setting of a {config['model_type']}"
        if not fits(value):
            shown = repr(value)
            return f"its config.json sets {name!r} to {shown[:60]}{'...' * (len(shown) > 60)}, which is not passed on"
    return ""


def structure_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the library is given; nothing else of a config may reach it.

    Raises:
        UnsupportedModelError: the config is of no known family, or ``refusal`` says why not.
        TooLargeError: it asks for more layers, or a larger size, than the limit.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in STRUCTURE:
        raise UnsupportedModelError(f"the model type {kind!r} is not known", "choose another repository")
    if reason := refusal(config):
        raise UnsupportedModelError(reason, HINT)
    check_layers(config, LAYER_COUNTS, "its config.json")
    structure = {name: value for name, value in config.items() if name in STRUCTURE[kind]}
    numbers_of_it = {name: value for name, value in structure.items() if STRUCTURE[kind][name] not in (number, rope)}
    check_sizes(numbers_of_it, "its config.json")
    return structure
