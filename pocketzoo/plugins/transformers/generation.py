"""How a repository's model writes: every setting of generation_config.json is followed, harmless, or named as ignored.

Searches are greedy or by beams, as whoever calls ``generate`` says; what of a repository would change their tokens is
said by name when it writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocketzoo.core.errors import UnsupportedModelError
from pocketzoo.plugins.transformers.repository_settings import read_json, refuse
from pocketzoo.plugins.transformers.setting_values import Fits, either, several, whole
from pocketzoo.zoo.catalog.specs import GenerationSpec, Repository

FILE = "generation_config.json"
ids = either(whole, several(whole))
FOLLOWED: dict[str, Fits] = {"eos_token_id": ids, "decoder_start_token_id": whole, "bos_token_id": ids}
# What would change the tokens of a greedy or beam search, and the values that do not.
CHANGES: dict[str, tuple[object, ...]] = {
    "repetition_penalty": (None, 1.0), "no_repeat_ngram_size": (None, 0), "encoder_no_repeat_ngram_size": (None, 0),
    "encoder_repetition_penalty": (None, 1.0), "bad_words_ids": (None,), "min_length": (None, 0),
    "min_new_tokens": (None, 0), "forced_bos_token_id": (None,), "forced_eos_token_id": (None,),
    "suppress_tokens": (None, []), "begin_suppress_tokens": (None, []), "num_beam_groups": (None, 1),
    "penalty_alpha": (None,), "guidance_scale": (None, 1.0), "sequence_bias": (None,),
    "exponential_decay_length_penalty": (None,), "do_sample": (None, False), "num_beams": (None, 1),
    "num_return_sequences": (None, 1), "stop_strings": (None,), "force_words_ids": (None,), "constraints": (None,),
    "watermarking_config": (None,), "renormalize_logits": (None, False), "dola_layers": (None,),
    "token_healing": (None, False), "forced_decoder_ids": (None,), "max_time": (None,), "use_mtp": (None, False),
}  # fmt: skip
HARMLESS = {
    **dict.fromkeys(("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"),
                    "of samples, which are drawn where do_sample says so"),
    **dict.fromkeys(("max_length", "max_new_tokens", "length_penalty", "early_stopping"), "as the caller says"),
    **dict.fromkeys(("pad_token_id",), "each prompt is written on by itself, without padding"),
    **dict.fromkeys(("assistant_confidence_threshold", "assistant_early_exit", "assistant_ensemble_weight",
                     "assistant_lookbehind", "cache_config", "cache_implementation", "compile_config",
                     "continuous_batching_config", "disable_compile", "is_assistant", "low_memory", "max_cache_len",
                     "max_matching_ngram_size", "num_assistant_tokens", "num_assistant_tokens_schedule",
                     "prefill_chunk_size", "prompt_lookup_num_tokens", "speculation_type", "target_lookbehind",
                     "use_cache"), "how the same tokens are found sooner, or in less memory"),
    **dict.fromkeys(("output_attentions", "output_hidden_states", "output_logits", "output_scores",
                     "return_dict_in_generate", "remove_invalid_values"), "what else the library hands out"),
    **dict.fromkeys(("diversity_penalty",), "of num_beam_groups"),
    **dict.fromkeys(("transformers_version", "_from_model_config", "generation_kwargs", "chat_format"),
                    "where it came from"),
}  # fmt: skip


def generation_spec(
    repository: Repository, config: Mapping[str, Any], *, answers: bool, learned: bool
) -> GenerationSpec:
    """How a model writes; ``answers``: from a start of its own; ``learned``: positions have an end in ``n_positions``.

    Settings are those of generation_config.json, and of config.json where there is no such file, as in the library.

    Raises:
        UnsupportedModelError: which tokens begin or end a text is not said in whole numbers.
    """
    said = read_json(repository, FILE)
    if not isinstance(said, dict | None):
        raise UnsupportedModelError(f"{FILE} of {repository.repo_id} is not a table", "choose another")
    path, settings = ("config.json", config) if said is None else (FILE, said)
    for name, fits in FOLLOWED.items():
        if settings.get(name) is not None and not fits(settings[name]):
            raise refuse(path, name, settings[name])
    ends = settings.get("eos_token_id")
    start: tuple[int, ...] = ()
    if answers:
        first = settings.get("decoder_start_token_id")
        first = settings.get("bos_token_id") if first is None else first
        if not isinstance(first, int):
            raise refuse(path, "decoder_start_token_id", first, "and its answers have to begin with a token")
        start = (first,)
    most = config.get("n_positions") if learned else None  # relative positions have no end
    known = {**FOLLOWED, **CHANGES, **HARMLESS}
    others = (name for name, value in (said or {}).items() if value is not None and name not in known)
    return GenerationSpec(
        end=tuple(ends if isinstance(ends, list) else [] if ends is None else [ends]),
        start=start,
        positions=int(most or (0 if start else config.get("max_position_embeddings") or 0)),
        not_followed=(
            *(name for name, fine in CHANGES.items() if settings.get(name) not in fine),
            *others,
        ),
    )
