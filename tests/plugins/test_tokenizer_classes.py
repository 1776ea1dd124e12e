"""Tokenizers of each class of the library, with one setting changed at a time: its own ids, or an error that names it.

The oracle is what ``AutoTokenizer`` opens from the same folder.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import AutoTokenizer

from pocketzoo.core.errors import UnsupportedModelError
from pocketzoo.plugins.transformers import texts
from pocketzoo.zoo.catalog.specs import Repository
from pocketzoo.zoo.data.processors.text_encoder import TextEncoder

POSITIONS = 40
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,'!-"
PAIRS = [("t", "h"), ("th", "e"), ("i", "s"), ("m", "o")]
BERT_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{each}" for each in LETTERS), "the", "is",
              "The", "##the", "cafe", "caf\u00e9", "\u4e2d"]  # fmt: skip


def _numbered(words: list[str]) -> dict[str, int]:
    return {word: i for i, word in enumerate(dict.fromkeys(words))}


def _pieces(*special: str) -> list[tuple[str, float]]:
    words = [*special, "\u2581", *LETTERS, *(f"\u2581{each}" for each in LETTERS), "\u2581the", "\u2581is", "the"]
    return [(word, -float(i)) for i, word in enumerate(dict.fromkeys(words))]


def _joined(special: list[str], space: str) -> dict[str, Any]:
    words = [*special, space, *LETTERS, *("".join(pair) for pair in PAIRS), f"{space}a", f"{space}the"]
    return {"vocab": _numbered(words), "merges": [*PAIRS, (space, "a"), (space, "the")]}


ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
MAKERS: dict[str, tuple[str, dict[str, Any]]] = {  # class -> family, arguments
    "BertTokenizer": ("bert", {"vocab": _numbered(BERT_WORDS)}),
    "MPNetTokenizer": ("mpnet", {"vocab": _numbered([*ROBERTA, *BERT_WORDS])}),
    "RobertaTokenizer": ("roberta", _joined(ROBERTA, "\u0120")),
    "GPT2Tokenizer": ("gpt2", _joined(["<|endoftext|>"], "\u0120")),
    "Qwen2Tokenizer": ("qwen2", _joined(["<|endoftext|>"], "\u0120")),
    "LlamaTokenizer": ("llama", _joined(["<unk>", "<s>", "</s>"], "\u2581")),
    "AlbertTokenizer": ("albert", {"vocab": _pieces("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")}),
    "XLMRobertaTokenizer": ("xlm-roberta", {"vocab": _pieces("<s>", "<pad>", "</s>", "<unk>", "<mask>")}),
    "CamembertTokenizer": ("camembert", {"vocab": _pieces("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>",
                                                          "<unk>NOTUSED", "<s>", "</s>", "<mask>")}),
    "T5Tokenizer": ("t5", {"vocab": _pieces("<pad>", "</s>", "<unk>", *(f"<extra_id_{i}>" for i in range(100)))}),
}  # fmt: skip
SETTINGS: dict[str, list[object]] = {
    "tokenizer_class": ["PreTrainedTokenizerFast", "BertTokenizerFast", "GPT2TokenizerFast", "T5Tokenizer",
                        "XLNetTokenizer", "Evil", None],
    "do_lower_case": [True, False, None],
    "strip_accents": [True, False],
    "tokenize_chinese_chars": [True, False],
    "keep_accents": [True, False],
    "add_prefix_space": [True, False],
    "add_bos_token": [True, False],
    "add_eos_token": [True, False],
    "legacy": [True, False],
    "model_max_length": [8, int(1e30), 0],
    "truncation_side": ["left", "right"],
    "padding_side": ["left", "right"],
    "split_special_tokens": [True, False],
    "clean_up_tokenization_spaces": [True, False],
    "model_input_names": [["input_ids"], ["pixel_values"]],
    "use_fast": [False],
    "trim_offsets": [True],
    "errors": ["strict"],
    "extra_ids": [100],
    "never_split": [[]],
    "do_basic_tokenize": [True, False],
    "sp_model_kwargs": [{}],
    "chat_template": ["{{ messages }}"],
    "unheard_of": [1],
    "cls_token": ["the", None],
    "eos_token": ["the"],
    "pad_token": ["the", None],
    "mask_token": ["is"],
    "unk_token": [None],
    "additional_special_tokens": [["mo"]],
    "extra_special_tokens": [{"image_token": "mo"}, ["mo"]],
}  # fmt: skip
SAYS = [
    "the cat is The caf\u00e9 \u4e2d",
    "a the  mo\tis\nthe, it's 42 the!",
    "the <s> is </s> [SEP] the [CLS] a <|endoftext|> the [MASK] is<mask>",
    "the " * 60,
    " the",
]
SPACES = [{"type": "Prepend", "prepend": "\u2581"},
          {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]  # fmt: skip
BERT = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
        "lowercase": True}  # fmt: skip
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
METASPACE = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
FIRST = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "x", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"x": {"id": "x", "ids": [1], "tokens": ["x"]}},
}
PARTS: dict[str, list[object]] = {
    "normalizer": [None, {"type": "Lowercase"}, {"type": "NFKC"}, {"type": "NFC"}, BERT, {**BERT, "lowercase": False},
                   {**BERT, "clean_text": False}, {**BERT, "strip_accents": False},
                   {**BERT, "handle_chinese_chars": False}],
    "pre_tokenizer": [None, {"type": "Whitespace"}, BYTES, {**BYTES, "use_regex": False}, METASPACE,
                      {**BYTES, "add_prefix_space": True}, {**METASPACE, "prepend_scheme": "never"},
                      {"type": "Sequence", "pretokenizers": [DIGITS, BYTES]},
                      {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, METASPACE]}],
    "post_processor": [None, {**BYTES, "trim_offsets": False}, FIRST],
    "truncation": [{"direction": "Left", "max_length": 6, "strategy": "LongestFirst", "stride": 0}],
    "padding": [{"strategy": {"Fixed": 20}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0,
                 "pad_type_id": 0, "pad_token": "<pad>"}],
    "added_tokens": [[]],
}  # fmt: skip
OF_MODEL: dict[str, list[object]] = {
    "ignore_merges": [True], "byte_fallback": [True, False], "fuse_unk": [True, False],
    "continuing_subword_prefix": ["##", "@@"], "unk_token": ["a"], "end_of_word_suffix": ["</w>"],
    "max_input_chars_per_word": [2], "unk_id": [5],
}  # fmt: skip
OF_TOKENS = ("lstrip", "single_word", "normalized")
CHANGES = [((key,), value) for key, values in PARTS.items() for value in values]
CHANGES += [(("model", key), value) for key, values in OF_MODEL.items() for value in values]
CHANGES += [(("added_tokens", 0, key), True) for key in OF_TOKENS]
FILES = [(kind, path, value) for kind in MAKERS for path, value in CHANGES]
VARIATIONS = [(kind, key, value) for kind in MAKERS for key, values in SETTINGS.items() for value in values]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A repository's small files for each class, as the library writes them."""
    root = tmp_path_factory.mktemp("classes")
    for kind, (family, arguments) in MAKERS.items():
        tokenizer = getattr(transformers, kind)(**arguments)
        tokenizer.save_pretrained(root / kind)
        (root / kind / "config.json").write_text(json.dumps({"model_type": family}))
    return root


def outcome(source: Path, folder: Path, name: str, change: Any, says: Sequence[str] = SAYS) -> str:
    """ "followed" or "refused" for a repository with one file changed; anything else fails."""
    shutil.copytree(source, folder)
    table = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    change(table)
    (folder / name).write_text(json.dumps(table))
    files = {path.name: path for path in folder.iterdir()}
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    said = json.loads((folder / texts.FILE).read_text())
    config = {"model_type": kind, "vocab_size": 1000, "max_position_embeddings": POSITIONS}
    if kind in texts.OFFSET:
        config["max_position_embeddings"] = POSITIONS + 2
    try:
        spec = texts.text_spec(Repository(repo_id="acme/tiny", commit="0" * 40, files=files), config)
    except UnsupportedModelError as error:
        assert error.message.startswith("its "), error.message  # noqa: PT017
        assert error.hint  # noqa: PT017
        return "refused"
    theirs = AutoTokenizer.from_pretrained(folder)
    encoder = TextEncoder(spec, files)
    for text in says:
        wanted = theirs([text], truncation=True, max_length=min(theirs.model_max_length, POSITIONS))["input_ids"][0]
        ids, _ = encoder.masked([text])
        assert ids[0].tolist() == wanted, (said, text, theirs.convert_ids_to_tokens(wanted))
    return "followed"


def changed(key: str, value: object) -> Any:
    def change(table: dict[str, Any]) -> None:
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value

    return change


def edited(path: tuple[Any, ...], value: object) -> Any:
    def change(table: dict[str, Any]) -> None:
        *way, last = path
        for step in way:
            table = table[step]
        if last in table:
            table[last] = value

    return change


def settings_outcome(number: int, root: Path, folder: Path) -> str:
    kind, key, value = VARIATIONS[number]
    return outcome(root / kind, folder, texts.FILE, changed(key, value))


def file_outcome(number: int, root: Path, folder: Path) -> str:
    kind, path, value = FILES[number]
    return outcome(root / kind, folder, texts.TOKENIZER, edited(path, value))


@pytest.mark.parametrize("number", range(0, len(VARIATIONS), 29))
def test_a_setting_of_a_class_is_followed_or_refused(number, folders, tmp_path):
    assert settings_outcome(number, folders, tmp_path / "x")


@pytest.mark.parametrize("number", range(0, len(FILES), 17))
def test_a_tokenizer_unlike_its_class_is_refused_or_makes_the_same_ids(number, folders, tmp_path):
    assert file_outcome(number, folders, tmp_path / "x")


@pytest.mark.slow
@pytest.mark.parametrize("outcome_of", [settings_outcome, file_outcome])
def test_every_setting_of_every_class_is_followed_or_refused(outcome_of, folders, tmp_path):
    count = len(VARIATIONS if outcome_of is settings_outcome else FILES)
    ends = Counter(outcome_of(i, folders, tmp_path / str(i)) for i in range(count))
    assert min(ends["followed"], ends["refused"]) > 100, ends


@pytest.mark.parametrize("kind", MAKERS)
def test_the_same_tokens_go_by_special_tokens_map(kind, folders, tmp_path):
    """A file of older releases, which AutoTokenizer reads as well."""

    def moved(table: dict[str, Any]) -> None:
        settings = json.loads((tmp_path / "x" / texts.FILE).read_text())
        table.update({name: settings.pop(name) for name in texts.NAMED if settings.get(name)})
        (tmp_path / "x" / texts.FILE).write_text(json.dumps(settings))

    assert outcome(folders / kind, tmp_path / "x", texts.SPECIAL, moved) == "followed"


def test_files_of_older_releases_of_llama_are_read_as_they_are(folders, tmp_path):
    """Today's differs after a special token in the midst of a text, where those have one more space."""
    source = tmp_path / "llama"
    shutil.copytree(folders / "LlamaTokenizer", source)
    settings = json.loads((source / texts.FILE).read_text())
    (source / texts.FILE).write_text(json.dumps({**settings, "legacy": True}))

    def former(table: dict[str, Any]) -> None:
        table.update(normalizer={"type": "Sequence", "normalizers": SPACES}, pre_tokenizer=None)

    assert outcome(source, tmp_path / "x", texts.TOKENIZER, former, (SAYS[0], SAYS[1], SAYS[3])) == "followed"


@pytest.mark.parametrize("kind", MAKERS)
def test_what_is_refused_says_in_what_the_two_differ(kind, folders, tmp_path, refused):
    table = json.loads((folders / kind / texts.TOKENIZER).read_text())
    table["pre_tokenizer"] = {"type": "Punctuation", "behavior": "Isolated"}
    (tmp_path / texts.TOKENIZER).write_text(json.dumps(table))
    files = {texts.TOKENIZER: tmp_path / texts.TOKENIZER}
    config = {"model_type": MAKERS[kind][0], "vocab_size": 1000, "tokenizer_class": f"{kind}Fast"}
    facts = Repository(repo_id="acme/tiny", commit="0" * 40, files=files)
    with refused(UnsupportedModelError, "it cuts texts by Punctuation", hint="choose another repository"):
        texts.text_spec(facts, config)


@pytest.mark.parametrize("kind", MAKERS)
def test_what_the_library_writes_is_read_as_it_reads_it(kind, folders, tmp_path):
    assert outcome(folders / kind, tmp_path / "x", texts.FILE, lambda table: None) == "followed"
