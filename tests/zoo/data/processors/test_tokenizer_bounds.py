"""Tokenizers that are small as files and endless once a text comes: refused before the library has them."""

from __future__ import annotations

import json

import pytest

from pocketzoo.core.errors import BundleError, PocketzooError, TooLargeError
from pocketzoo.zoo.catalog.specs import TextSpec
from pocketzoo.zoo.data.processors.text_encoder import TextEncoder
from pocketzoo.zoo.data.processors.tokenizer_bounds import AMBIGUOUS, check_tokenizer, degree

VOCABULARY = {"type": "WordLevel", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]"}
# Of tokenizers that people use: GPT-2 and Llama 2's are built in; these are Llama 3's, Qwen2's, o200k's, XLM-R's.
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
IN_USE = (
    rf"{WORDS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{REST}",
    rf"{WORDS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{REST}",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s",
    rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}\p{{M}}]*[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}]+{WORDS}?|\p{{N}}{{1,3}}",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r" ?[^(\s|[.,!?\u2026\u3002])]+", r" {2,}", r"[\r\n]", r"\s?\p{L}+", r"\d{1,3}(?=(?:\d{3})*\b)", r"\n+",
    r"(?#x)(?i)a+", r"[\]\-a-z]+|[]a]+|[^]a]+", r"\x{20}+", r"^\[UNK\]$",
)  # fmt: skip
ENDLESS = (
    "(a+)+$", "(a*)*b", "(a|a)*b", "(a|aa)+$", "((a+))+b", "(?:a+)+b", "(?=(a+)+$)", "(a?){1,}b", "([a-z]+)*$",
    "(\\s*)+x", "(a{1,3})+b", "((a{2,})){2,}", "a*a*a*a*a*a*a*a*a*b", "(a*){20}b", "((a{1,900}){1,900}){1,900}",
    "(?:x|(a+)+)", "(.*a){12}", "(?<n>a+)+b", "(a|(b|c)+)*d", "a{9999}",
)  # fmt: skip


@pytest.mark.parametrize("pattern", IN_USE)
def test_patterns_in_use_are_fine(pattern):
    assert degree(pattern) <= 3


@pytest.mark.parametrize("pattern", ENDLESS)
def test_patterns_that_try_every_way_are_not(pattern):
    assert degree(pattern) > 8


def test_the_degree_is_the_power_of_the_time():
    """Repeats that follow one another add up, branches do not, and a repeat of a repeat is none of these."""
    assert [degree("a*" * n + "b") for n in range(1, 6)] == [1, 2, 3, 4, 5]
    assert degree("a*b*|c*") == 2
    assert degree("(a*b*|c*)d*") == 3
    assert degree("(?:ab)*") == 1
    assert degree("(a*)*") >= AMBIGUOUS
    for broken in ("(((", ")))", "[", "\\", "{", "*", "(?", "(?i", "a{99999999999}", "(?<n"):
        assert degree(broken) >= 0


def written(path, **stages):
    path.write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": VOCABULARY, **stages}))
    return path


def replace(string, content, kind="String"):
    return {"type": "Replace", "pattern": {kind: string}, "content": content}


def sequence(steps):
    return {"type": "Sequence", "normalizers": steps}


TOO_MUCH = {
    "thirty that double": ({"normalizer": sequence([replace("a", "aa")] * 30)}, "1,073,741,824 characters", "GROWTH"),
    "nested": ({"normalizer": sequence([sequence([replace("a", "aaaaaaaa")] * 3)] * 4)}, "for each", "GROWTH"),
    "one that is long": ({"normalizer": replace("a", "b" * 5000)}, "5,000 characters for each", "GROWTH"),
    "of an empty pattern": ({"normalizer": sequence([replace("", "bbb", "Regex")] * 9)}, "for each", "GROWTH"),
    "prefixes": ({"normalizer": sequence([{"type": "Prepend", "prepend": "▁" * 100}] * 3)}, "for each", "GROWTH"),
    "in the decoder": ({"decoder": {"type": "Sequence", "decoders": [replace("a", "aa")] * 40}}, "decoder", "GROWTH"),
    "many steps": ({"normalizer": sequence([{"type": "NFC"}] * 1200)}, "1,201 steps", "STEPS"),
    "a pattern": ({"normalizer": replace("(a+)+$", "b", "Regex")}, "the pattern '(a+)+$'", "REPEATS"),
    "a cut": (
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a|a)*b"}, "behavior": "Isolated", "invert": False}},
        "the pattern '(a|a)*b'", "REPEATS",
    ),
    "a word": ({"model": {**VOCABULARY, "max_input_chars_per_word": 10**9}}, "characters in one word", "WORD"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TOO_MUCH)
def test_what_would_be_endless_is_refused_by_a_limit_that_can_be_raised(kind, tmp_path, refused, monkeypatch):
    stages, says, limit = TOO_MUCH[kind]
    path = written(tmp_path / "tokenizer.json", **stages)
    spec = TextSpec(vocabulary=2, pad=1, max_length=8)
    with refused(TooLargeError, says, hint=f"POCKETZOO_MAX_TOKENIZER_{limit}"):
        TextEncoder(spec, {"tokenizer.json": path})
    monkeypatch.setenv(f"POCKETZOO_MAX_TOKENIZER_{limit}", str(10**15))
    check_tokenizer(path)


def test_a_large_file_is_refused_unread(tmp_path, refused, monkeypatch):
    path = written(tmp_path / "tokenizer.json")
    monkeypatch.setenv("POCKETZOO_MAX_TOKENIZER_BYTES", "20")
    with refused(TooLargeError, "bytes, more than 20", hint="POCKETZOO_MAX_TOKENIZER_BYTES"):
        check_tokenizer(path)


@pytest.mark.parametrize(
    "text", ["", "[]", "3", "{", '{"normalizer": 3, "decoder": [[]], "model": []}', '{"model": null}']
)
def test_anything_else_is_an_error_of_ours(text, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(text)
    with pytest.raises(PocketzooError) as error:
        TextEncoder(TextSpec(vocabulary=2, pad=1, max_length=8), {"tokenizer.json": path})
    assert isinstance(error.value, BundleError)


@pytest.mark.parametrize("table", ["AAAA", "/////w==", "", "no base64", "AwAAAAAAAAA="])
def test_a_table_of_characters_that_is_larger_than_it_is_ends_no_process(table, tmp_path, refused):
    path = tmp_path / "tokenizer.json"
    step = {"type": "Precompiled", "precompiled_charsmap": table}
    path.write_text(json.dumps({"normalizer": {"type": "Sequence", "normalizers": [step]}, "model": VOCABULARY}))
    with refused(BundleError, "precompiled_charsmap", hint="rebuild"):
        check_tokenizer(path)


PANICS = {
    "merges": {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a a"], "unk_token": "x"}},
    "template": {
        "model": VOCABULARY,
        "post_processor": {
            "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "X", "type_id": 0}}], "pair": [],
            "special_tokens": {},
        },
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", PANICS)
def test_a_panic_of_the_library_is_an_error_of_ours_and_nothing_else_is_said(kind, tmp_path, refused, capfd):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"version": "1.0", "added_tokens": [], **PANICS[kind]}))
    spec = TextSpec(vocabulary=2, pad=1, max_length=16)
    with refused(BundleError, "is not a tokenizer"):
        TextEncoder(spec, {spec.tokenizer: path}).masked(["a b"])
    assert capfd.readouterr().err == ""


def test_deep_nesting_is_refused(tmp_path, refused):
    path = tmp_path / "tokenizer.json"
    path.write_text('{"normalizer":' + '{"a":' * 5000 + "1" + "}" * 5001)
    with refused(BundleError, "is not a tokenizer"):
        check_tokenizer(path)


def test_a_plain_one_still_reads_a_long_text(tmp_path):
    path = written(tmp_path / "tokenizer.json", pre_tokenizer={"type": "Whitespace"}, normalizer=replace("b", "a"))
    ids = TextEncoder(TextSpec(vocabulary=2, pad=1, max_length=8), {"tokenizer.json": path})(["a b " * 100_000])
    assert ids.tolist() == [[0] * 8]
