"""How a repository's texts become token ids: every setting of its tokenizer is followed or refused by name.

The tokenizer itself is tokenizer.json, which the library tokenizers reads whole. What tokenizer_config.json says
besides is followed where it is said here, and otherwise has to agree with that file, as the class that it names has to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pocketzoo.plugins.transformers.repository_settings import check, read_table, refuse
from pocketzoo.plugins.transformers.setting_values import Fits, either, flag, number, one_of, several, whole
from pocketzoo.plugins.transformers.tokenizer_classes import (
    NAMED,
    TokenizerClass,
    around,
    class_of,
    differs,
    does,
    id_of,
    usual_tokens,
)
from pocketzoo.zoo.catalog.specs import Repository, TextSpec

FILE, TOKENIZER, SPECIAL = "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json"
ENDLESS = 10**9  # from which maximum length on the library means none
OFFSET = {"camembert", "mpnet", "roberta", "xlm-roberta"}  # count positions from the padding's id onwards
SHORTEST = 512  # tokens, where neither config nor tokenizer say how many

MARKED = re.compile(r"\[\S+\]|<\S+>")  # what special tokens look like, and words do not


def word(value: Any) -> bool:
    """A token: a word, or a table of one and how it is found."""
    return isinstance(value, str) or (isinstance(value, dict) and isinstance(value.get("content"), str))


def words(value: Any) -> bool:
    """Several of them, in a list or by what they are called."""
    return (isinstance(value, dict) and all(map(word, value.values()))) or several(word)(value)


def no(value: Any) -> bool:
    return value is False


FOLLOWED: dict[str, Fits] = {
    **dict.fromkeys(NAMED, either(word, no)),
    **dict.fromkeys(("additional_special_tokens", "extra_special_tokens", "added_tokens_decoder"), words),
    **dict.fromkeys(("model_max_length", "max_len"), number),
    "truncation_side": one_of("right", "left"),
    **dict.fromkeys(
        ("do_lower_case", "add_bos_token", "add_eos_token", "strip_accents", "tokenize_chinese_chars",
         "keep_accents", "add_prefix_space"), flag),
    # As it is done here, or has no effect on a text's tokens unless it is true.
    **dict.fromkeys(("split_special_tokens", "trust_remote_code", "fix_mistral_regex"), no),
    **dict.fromkeys(("do_basic_tokenize", "remove_space", "trim_offsets", "clean_text"), lambda value: value is True),
    "wordpieces_prefix": one_of("##"),
    "tokenizer_class": lambda value: isinstance(value, str) and value != "",
    "never_split": lambda value: value == [],
    "model_input_names": several(one_of("input_ids", "attention_mask", "token_type_ids")),
}  # fmt: skip
HARMLESS = {
    **dict.fromkeys(("padding_side", "pad_to_multiple_of", "padding", "pad_token_type_id"),
                    "the answer to a text is that to the text alone, without padding"),
    **dict.fromkeys(("max_length", "stride", "truncation_strategy", "truncation", "return_token_type_ids"),
                    "of calls: a text that is too long is cut to model_max_length, in one piece"),
    **dict.fromkeys(("clean_up_tokenization_spaces", "spaces_between_special_tokens", "errors"),
                    "of tokens made texts again"),
    **dict.fromkeys(("chat_template", "use_default_system_prompt", "response_schema", "default_prompt"),
                    "of conversations, which nothing here has"),
    **dict.fromkeys(("slow_tokenizer_class", "use_fast", "extra_ids", "backend", "tokenizer_type", "tokenizer_file",
                     "vocab_file", "merges_file", "sp_model_kwargs", "legacy", "from_slow", "legacy_behaviour",
                     "special_tokens_map_file", "vocab_size", "mask_padding", "added_tokens_map"),
                    "which code makes a tokenizer of which files: here it is tokenizer.json as it is"),
    **dict.fromkeys(("name_or_path", "_name_or_path", "is_local", "local_files_only", "transformers_version",
                     "processor_class", "model_type", "full_tokenizer_file", "init_inputs", "verbose", "language",
                     "_commit_hash", "unsloth_version", "cache_dir", "use_auth_token", "token", "revision"),
                    "where it came from"),
}  # fmt: skip


def text_spec(repository: Repository, config: Mapping[str, Any]) -> TextSpec:
    """How texts are read.

    Raises:
        UnsupportedModelError: a setting is not followed here; it is named.
    """
    table = read_table(repository, FILE)
    check(FILE, table, FOLLOWED, HARMLESS)
    special = read_table(repository, SPECIAL)
    check(SPECIAL, special, FOLLOWED, HARMLESS)
    tokenizer = read_table(repository, TOKENIZER)
    named = {**special, **table}
    known = _class(named, config, tokenizer)
    _check_agreement(named, tokenizer)
    truncation = tokenizer.get("truncation") or {}
    side = table.get("truncation_side") or str(truncation.get("direction", "right")).lower()
    vocabulary = int(config["vocab_size"])
    pad, padding = _padding(repository, config, tokenizer, vocabulary)
    return TextSpec(
        vocabulary=vocabulary,
        pad=pad,
        max_length=_longest(table, config),
        padding=padding,
        checked=padding == "anywhere",
        cut="left" if side == "left" else "right",
        special=(
            tuple(dict.fromkeys((*_special(named, tokenizer), *usual_tokens(known, named, tokenizer))))
            if named or known
            else _unnamed(config, tokenizer)
        ),
    )


def positions(config: Mapping[str, Any]) -> int:
    """The most tokens that a model can read."""
    count = int(config.get("max_position_embeddings") or config.get("n_positions") or SHORTEST)
    if config["model_type"] not in OFFSET:
        return count
    pad = config.get("pad_token_id")  # from which these count positions onwards; MPNet's code has a 1
    return count - 1 - (pad if isinstance(pad, int) and pad > 0 and config["model_type"] != "mpnet" else 1)


def _longest(table: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    longest = table.get("model_max_length", table.get("max_len", ENDLESS))
    if longest < 1:
        raise refuse(FILE, "model_max_length", longest)
    return min(positions(config), int(longest)) if longest < ENDLESS else positions(config)


def _padding(
    repository: Repository, config: Mapping[str, Any], tokenizer: Mapping[str, Any], vocabulary: int
) -> tuple[int, Any]:
    """The padding's id, and where in a row it is padding.

    Where an ordinary text can have the config's own, or there is none, it is the first id after the vocabulary, which
    no text has. A decoder that classifies looks for the last token that is not the config's, whatever a text says.
    """
    if isinstance(repository.input, TextSpec):  # its weights and graphs were made for that one
        return repository.input.pad, repository.input.padding
    pad, kind = config.get("pad_token_id"), config["model_type"]
    if pad is None and "pad_token_id" in config and kind in OFFSET - {"mpnet"}:
        raise refuse("config.json", "pad_token_id", None, f"from which a {kind} counts its positions")
    if isinstance(pad, int) and pad >= vocabulary and kind not in ("gpt2", "mpnet"):
        raise refuse("config.json", "pad_token_id", pad, f"which is not one of its {vocabulary} tokens")
    if not isinstance(pad, int) or not 0 <= pad < vocabulary:
        return vocabulary, "anywhere"
    architectures = config.get("architectures")
    first = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    if reads_last(config) and first.endswith("ForSequenceClassification"):
        return pad, "end"
    ordinary = pad in _in_texts(config, tokenizer) or not _is_special(pad, tokenizer)
    return (vocabulary if ordinary else pad), "anywhere"


def reads_last(config: Mapping[str, Any]) -> bool:
    """Whether a family's tokens see those before them alone, so that its classifiers read the last one."""
    return config["model_type"] in ("gpt2", "llama", "qwen2")


def _in_texts(config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> set[int]:
    """Ids that ordinary texts have: what stands for unknown words, what is put around a text, what ends one."""
    ids = {i for name in ("bos_token_id", "eos_token_id") for i in _several(config.get(name))}
    ids |= {i for part in around(tokenizer) for i in part}
    model = tokenizer.get("model") or {}
    vocabulary, unknown = model.get("vocab"), model.get("unk_token")
    if isinstance(vocabulary, dict) and unknown in vocabulary:
        ids.add(vocabulary[unknown])
    return ids | {*_several(model.get("unk_id"))}


def _is_special(number_: int, tokenizer: Mapping[str, Any]) -> bool:
    """Whether a token is none that an ordinary text has; also where the tokenizer has none of this number."""
    for token in tokenizer.get("added_tokens") or ():
        if token["id"] == number_:
            return bool(token.get("special")) or MARKED.fullmatch(token["content"]) is not None
    vocabulary = (tokenizer.get("model") or {}).get("vocab")
    if isinstance(vocabulary, dict):
        word_ = next((content for content, i in vocabulary.items() if i == number_), None)
    else:
        word_ = vocabulary[number_][0] if isinstance(vocabulary, list) and number_ < len(vocabulary) else None
    return word_ is None or MARKED.fullmatch(word_) is not None


def _several(value: Any) -> list[int]:
    return [each for each in (value if isinstance(value, list) else [value]) if whole(each)]


def _special(table: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> tuple[str, ...]:
    """Tokens that the settings name and tokenizer.json does not list, which are found in texts as the library does.

    Raises:
        UnsupportedModelError: a token is found in another way, or has another id, than tokenizer.json says.
    """
    former, today = table.get("additional_special_tokens"), table.get("extra_special_tokens")
    if former and today and former != today:  # one of them wins, by the release of the library
        raise refuse(FILE, "additional_special_tokens", former, f"and 'extra_special_tokens' to {str(today)[:60]}")
    listed = {token["content"]: token for token in tokenizer.get("added_tokens") or ()}
    found: dict[str, None] = {}
    for name in (*NAMED, "additional_special_tokens", "extra_special_tokens", "added_tokens_decoder"):
        value = table.get(name)
        several_words = name not in NAMED
        each = (
            list(value.values()) if isinstance(value, dict) and several_words else value if several_words else [value]
        )
        for token in each or ():
            if not token:
                continue
            content = token["content"] if isinstance(token, dict) else token
            how = {k: token.get(k) for k in ("lstrip", "rstrip", "single_word")} if isinstance(token, dict) else {}
            own = listed.get(content, {})
            if any(bool(v) != bool(own.get(k)) for k, v in how.items()):
                raise refuse(FILE, name, token, f"unlike {TOKENIZER}")
            if content not in listed:
                found[content] = None
    for number_, token in (table.get("added_tokens_decoder") or {}).items():
        content = token["content"] if isinstance(token, dict) else token
        if content in listed and str(listed[content]["id"]) != str(number_):
            raise refuse(FILE, "added_tokens_decoder", {number_: content}, f"unlike {TOKENIZER}")
    return tuple(found)


def _unnamed(config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> tuple[str, ...]:
    """Where no file names special tokens: those that config.json, or tokenizer.json's own parts, have the ids of.

    A word that ordinary texts may have stays one, such as the second of several that end a text.
    """
    vocabulary = (tokenizer.get("model") or {}).get("vocab")
    if tokenizer.get("added_tokens") or not isinstance(vocabulary, dict):
        return ()
    ids = {i for name in NAMED for i in _several(config.get(f"{name}_id"))} | _in_texts(config, tokenizer)
    return tuple(content for content, i in vocabulary.items() if i in ids and MARKED.fullmatch(content))


def _check_agreement(table: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> None:
    """Settings by which the library would make another tokenizer have to say what tokenizer.json does.

    Raises:
        UnsupportedModelError: one says something else.
    """
    for name, says in does(tokenizer).items():
        if name in table and table[name] != says:
            raise refuse(FILE, name, table[name], f"unlike {TOKENIZER}")
    if "add_bos_token" in table or "add_eos_token" in table:
        for flag_, name, ids in zip(
            ("add_bos_token", "add_eos_token"), ("bos_token", "eos_token"), around(tokenizer), strict=True
        ):
            adds = table.get(flag_, False)
            wanted = [id_of(table[name], tokenizer)] if adds and table.get(name) else []
            if ids != wanted:
                raise refuse(FILE, flag_, adds, f"unlike {TOKENIZER}")


def _class(table: Mapping[str, Any], config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> TokenizerClass | None:
    """The class that a repository names; None where that takes tokenizer.json as it is.

    Raises:
        UnsupportedModelError: the library would make another tokenizer of it, or it is not known here.
    """
    path = FILE if table.get("tokenizer_class") else "config.json"
    name = table.get("tokenizer_class") or config.get("tokenizer_class")
    try:
        known = class_of(name)
    except (KeyError, AttributeError):
        raise refuse(path, "tokenizer_class", name, "whose texts are not known here") from None
    if known and (why := differs(known, table, tokenizer)):
        raise refuse(path, "tokenizer_class", name, f"unlike {TOKENIZER}: {why}")
    return known
