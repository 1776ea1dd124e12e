"""Tokenizer classes of the library: what each makes a tokenizer of, whatever tokenizer.json says.

The library builds the tokenizer of such a class anew from the vocabulary, so that its tokenizer.json has to say the
same, else texts would become other ids than they do there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
AS_IT_IS = {"PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend"}  # which load tokenizer.json


@dataclass(frozen=True, slots=True)
class TokenizerClass:
    """A class by its parts, as tokenizer.json calls them, and the special tokens that it has unless they are named."""

    model: str
    normalizers: tuple[str, ...]
    cutters: tuple[str, ...]  # its pre-tokenizers, in order
    tokens: Mapping[str, str]
    around: tuple[str, str] | None = None  # which of them it puts in front of a text and after it; None: as the file
    done: Mapping[str, bool] = field(default_factory=dict)  # settings, and what they are unless they are said
    fields: Mapping[str, Any] = field(default_factory=dict)  # of the model
    pattern: str = ""  # by which it cuts texts before bytes become letters; "": its own
    pieces: bool = False  # of sentencepiece: a space is a letter of the next word


def _tokens(bos: str, eos: str, unk: str, pad: str = "", mask: str = "", *, both: bool = True) -> dict[str, str]:
    found = {"bos_token": bos, "eos_token": eos, "unk_token": unk, "pad_token": pad, "mask_token": mask}
    return {**found, **({"cls_token": bos, "sep_token": eos} if both else {})}


_ROBERTA = _tokens("<s>", "</s>", "<unk>", "<pad>", "<mask>")
_END = "<|endoftext|>"
_BPE = {"dropout": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
        "byte_fallback": False, "ignore_merges": False}  # fmt: skip
_QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
         r"|\s+(?!\S)|\s+")  # fmt: skip
_BERT = TokenizerClass(
    model="WordPiece",
    normalizers=("BertNormalizer",),
    cutters=("BertPreTokenizer",),
    tokens={"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]",
            "mask_token": "[MASK]"},
    around=("cls_token", "sep_token"),
    done={"do_lower_case": True, "tokenize_chinese_chars": True},
    fields={"continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
)  # fmt: skip
_BYTES = TokenizerClass(
    model="BPE",
    normalizers=(),
    cutters=("ByteLevel",),
    tokens=_tokens(_END, _END, _END, both=False),
    done={"add_prefix_space": False},
    fields=_BPE,
)
_UNIGRAM = TokenizerClass(
    model="Unigram",
    normalizers=("Precompiled",),
    cutters=("WhitespaceSplit", "Metaspace"),
    tokens=_ROBERTA,
    around=("bos_token", "eos_token"),
    done={"add_prefix_space": True},
    fields={"byte_fallback": False},
    pieces=True,
)
CLASSES = {
    **dict.fromkeys(("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer"), _BERT),
    "MPNetTokenizer": replace(_BERT, tokens={**_ROBERTA, "unk_token": "[UNK]"}),
    "RobertaTokenizer": replace(_BYTES, tokens=_ROBERTA, around=("cls_token", "sep_token")),
    "GPT2Tokenizer": _BYTES,
    "Qwen2Tokenizer": replace(
        _BYTES,
        normalizers=("NFC",),
        cutters=("Split", "ByteLevel"),
        tokens=_tokens("", _END, _END, _END, both=False),
        pattern=_QWEN,
    ),
    "LlamaTokenizer": TokenizerClass(
        model="BPE",
        normalizers=(),
        cutters=("Metaspace",),
        tokens=_tokens("<s>", "</s>", "<unk>", both=False),
        done={"add_prefix_space": True},
        fields={**_BPE, "fuse_unk": True, "byte_fallback": True},
        pieces=True,
    ),
    "AlbertTokenizer": replace(
        _UNIGRAM,
        normalizers=("NFKD", "StripAccents", "Lowercase", "Precompiled"),
        tokens=_tokens("[CLS]", "[SEP]", "<unk>", "<pad>", "[MASK]"),
        around=("cls_token", "sep_token"),
        done={"add_prefix_space": True, "do_lower_case": True, "keep_accents": False},
        fields={"byte_fallback": False, "unk_id": 1},
    ),
    "CamembertTokenizer": _UNIGRAM,
    "XLMRobertaTokenizer": replace(_UNIGRAM, fields={"byte_fallback": False, "unk_id": 3}),
    "T5Tokenizer": replace(
        _UNIGRAM,
        tokens={**_tokens("", "</s>", "<unk>", "<pad>", both=False),
                **{f"extra {i}": f"<extra_id_{i}>" for i in range(100)}},
        around=("", "eos_token"),
        fields={"byte_fallback": False, "unk_id": 2},
    ),
}  # fmt: skip
SPACES = {"Replace", "Strip"}  # what files of sentencepiece do to spaces that the cutters drop anyway


def class_of(name: str | None) -> TokenizerClass | None:
    """The class of a name, with or without the ending of those in Rust; None where tokenizer.json is taken as it is.

    Raises:
        KeyError: it is none that is known here.
    """
    return None if name is None or name in AS_IT_IS else CLASSES[name.removesuffix("Fast")]


def differs(known: TokenizerClass, table: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> str:
    """What of a tokenizer.json the library would make otherwise, with these settings; "" where nothing."""
    normalizers = list(parts(tokenizer.get("normalizer"), "normalizers"))
    cutters = list(parts(tokenizer.get("pre_tokenizer"), "pretokenizers"))
    if known is CLASSES["LlamaTokenizer"] and "ByteLevel" in map(_type, cutters):
        return ""  # the library takes the file as it is, since such classes are named by mistake
    if why := _other_model(known, table, tokenizer.get("model") or {}):
        return why
    if why := _other_normalizers(known, normalizers) or _other_cutters(known, table, tokenizer, cutters):
        return why
    done = does(tokenizer)
    if bad := next((name for name, usual in known.done.items() if done[name] != table.get(name, usual)), ""):
        return f"it has {bad} {done[bad]}"
    if "BertNormalizer" in known.normalizers:
        if not normalizers[0].get("clean_text", True):
            return "it keeps control characters"
        if done["strip_accents"] != table.get("strip_accents", done["do_lower_case"]):
            return f"it has strip_accents {done['strip_accents']}"
    again = ("lstrip", "rstrip", "single_word")  # Qwen2's adds its special tokens anew, without these
    if known.pattern and any(token.get(how) for token in tokenizer.get("added_tokens") or () for how in again):
        return "it finds a special token in another way"
    if known.around is not None:
        ids = [[id_of(token, tokenizer)] if (token := _named(known, name, table)) else [] for name in known.around]
        if list(around(tokenizer)) != ids:
            return "it puts other tokens around a text"
    return ""


def _other_model(known: TokenizerClass, table: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    if model.get("type", known.model) != known.model:
        return f"its model is {model['type']}"
    for name, usual in known.fields.items():
        if (model.get(name, usual) or None) != (usual or None):
            return f"its model has {name} {model[name]!r}"
    vocabulary, unknown = model.get("vocab") or {}, model.get("unk_token")
    if known.model == "BPE":  # whose own have no token for what is unknown, which all bytes leave none of
        every = "<0xFF>" in vocabulary or "\u0100" in vocabulary
        if unknown is not None and not (every and unknown == _content(_named(known, "unk_token", table))):
            return f"its model has unk_token {unknown!r}"
    elif known.model == "WordPiece" and unknown != _content(_named(known, "unk_token", table)):
        return f"its model has unk_token {unknown!r}"
    elif known.model == "Unigram" and "unk_id" not in known.fields:
        first = next((i for i, (piece, *_) in enumerate(vocabulary)
                      if piece == _content(_named(known, "unk_token", table))), 0)  # fmt: skip
        if model.get("unk_id") != first:
            return f"its model has unk_id {model.get('unk_id')}"
    return ""


def _other_normalizers(known: TokenizerClass, normalizers: Sequence[Mapping[str, Any]]) -> str:
    kinds = [_type(part) for part in normalizers]
    if known.model == "Unigram":  # each is there as far as a setting, or the file of sentencepiece, asks for it
        extra = next((kind for kind in kinds if kind not in {*known.normalizers, *SPACES}), "")
        patterns = [str(part.get("pattern")) for part in normalizers if _type(part) == "Replace"]
        quotes = [each for each in patterns if "``" in each or "''" in each]
        if extra or len(quotes) != (2 if "NFKD" in known.normalizers else 0):
            return f"it normalizes texts by {extra or 'Replace'}"
        return next((f"it replaces {each}" for each in patterns if each not in quotes and " {2,}" not in each), "")
    if known.pieces and kinds == ["Prepend", "Replace"]:  # as files of older releases have it
        return ""
    return "" if tuple(kinds) == known.normalizers else f"it normalizes texts by {', '.join(kinds) or 'nothing'}"


def _other_cutters(
    known: TokenizerClass, table: Mapping[str, Any], tokenizer: Mapping[str, Any], cutters: Sequence[Mapping[str, Any]]
) -> str:
    kinds = [_type(part) for part in cutters]
    before = {_type(part) for part in parts(tokenizer.get("normalizer"), "normalizers")}
    why = f"it cuts texts by {', '.join(kinds) or 'nothing'}"
    if known.pieces:
        if not kinds and "Prepend" in before:
            return ""
        alone = kinds == ["Metaspace"] and before >= {"Precompiled", "Replace"}
        if tuple(kinds) != known.cutters and not (alone and known.model == "Unigram"):
            return why
        scheme = cutters[-1].get("prepend_scheme")
        usual = "first" if known.model == "BPE" and not table.get("legacy") else "always"
        whole = known.model == "BPE"
        return "" if scheme in (usual, "never", None) and cutters[-1].get("split", True) is not whole else why
    if known.cutters == ("ByteLevel",):
        vocabulary = (tokenizer.get("model") or {}).get("vocab") or {}
        if kinds == ["Digits", "ByteLevel"] and not any(sum(map(str.isdigit, word)) > 1 for word in vocabulary):
            kinds = ["ByteLevel"]  # no two digits are one token, with it and without
    if tuple(kinds) != known.cutters:
        return why
    patterns = [part.get("pattern") for part in cutters if _type(part) == "Split"]
    if patterns != ([{"Regex": known.pattern}] if known.pattern else []):
        return f"it cuts texts by {patterns}"
    own = next((part.get("use_regex", True) for part in cutters if _type(part) == "ByteLevel"), False)
    return why if "ByteLevel" in kinds and own is not (not known.pattern) else ""


def _type(part: Mapping[str, Any]) -> str:
    return str(part.get("type"))


def _content(token: Any) -> Any:
    return token["content"] if isinstance(token, dict) else token


def usual_tokens(known: TokenizerClass | None, table: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> list[str]:
    """The special tokens of a class that nothing names, as far as the vocabulary alone has them."""
    listed = {token["content"] for token in tokenizer.get("added_tokens") or ()}
    unnamed = [token for name, token in (known.tokens if known else {}).items() if token and name not in table]
    return [token for token in unnamed if token not in listed and id_of(token, tokenizer) is not None]


def _named(known: TokenizerClass, name: str, table: Mapping[str, Any]) -> Any:
    return table.get(name) or known.tokens.get(name)


def does(tokenizer: Mapping[str, Any]) -> dict[str, bool]:
    """Settings, by what a tokenizer.json does."""
    normalizers = list(parts(tokenizer.get("normalizer"), "normalizers"))
    kinds = {part.get("type") for part in normalizers}
    bert = next((part for part in normalizers if part.get("type") == "BertNormalizer"), {})
    lowers = bool(bert.get("lowercase")) or "Lowercase" in kinds
    own = bert.get("strip_accents")
    strips = (lowers if own is None else bool(own)) if bert else "StripAccents" in kinds
    spaces = (
        any(
            part.get("add_prefix_space") or part.get("prepend_scheme", "never") != "never"
            for part in parts(tokenizer.get("pre_tokenizer"), "pretokenizers")
        )
        or "Prepend" in kinds
    )
    return {
        "do_lower_case": lowers,
        "strip_accents": strips,
        "keep_accents": not strips,
        "tokenize_chinese_chars": bool(bert.get("handle_chinese_chars")),
        "add_prefix_space": spaces,
    }


def around(tokenizer: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """The ids that a tokenizer.json puts in front of a text and after it."""
    front: list[int] = []
    back: list[int] = []
    for part in parts(tokenizer.get("post_processor"), "processors"):
        if part.get("type") in ("BertProcessing", "RobertaProcessing"):
            front, back = [*front, part["cls"][1]], [*back, part["sep"][1]]
        elif part.get("type") == "TemplateProcessing":
            side, tokens = front, part.get("special_tokens") or {}
            for piece in part.get("single") or ():
                if "Sequence" in piece:
                    side = back
                else:
                    side += tokens[piece["SpecialToken"]["id"]]["ids"]
    return front, back


def parts(value: Any, name: str) -> Iterator[Mapping[str, Any]]:
    """A part of tokenizer.json, or those that a sequence of them has."""
    if isinstance(value, dict):
        if value.get("type") == "Sequence":
            for each in value.get(name) or ():
                yield from parts(each, name)
        else:
            yield value


def id_of(token: Any, tokenizer: Mapping[str, Any]) -> int | None:
    """The id of a token, a word or a table of one; None where it has none."""
    content = _content(token)
    for each in tokenizer.get("added_tokens") or ():
        if each["content"] == content:
            return int(each["id"])
    vocabulary = (tokenizer.get("model") or {}).get("vocab")
    if isinstance(vocabulary, list):
        return next((i for i, (piece, *_) in enumerate(vocabulary) if piece == content), None)
    return vocabulary.get(content) if isinstance(vocabulary, dict) else None
