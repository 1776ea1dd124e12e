"""CoNLL files and folders, what is none, and tags of words on the tokens of real tokenizers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import SPLITS, Dataset, Split
from pocketzoo.zoo.catalog.specs import TextSpec
from pocketzoo.zoo.catalog.task import ModelFacts
from pocketzoo.zoo.data.batches import Skipped
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.data.tagged_words import on_tokens, read_conll, read_conll_leniently
from pocketzoo.zoo.data.target_kinds import IGNORED

CONLL_2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
German JJ B-NP B-MISC

Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER
"""
COMMENTED = "# text = EU rejects\nEU\tB-ORG\n# \tO\n\n\n# next\nPeter\tB-PER\n"
WINDOWS = "EU B-ORG\r\nrejects O\r\n \r\nPeter B-PER\r\n"


@pytest.mark.parametrize(
    ("name", "text", "texts", "tags"),
    [
        ("a.conll", CONLL_2003, ["EU rejects German", "Peter Blackburn"], ["B-ORG O B-MISC", "B-PER I-PER"]),
        ("a.txt", CONLL_2003, ["EU rejects German", "Peter Blackburn"], ["B-ORG O B-MISC", "B-PER I-PER"]),
        ("a.tsv", COMMENTED, ["EU #", "Peter"], ["B-ORG O", "B-PER"]),
        ("a.bio", WINDOWS, ["EU rejects", "Peter"], ["B-ORG O", "B-PER"]),
        ("a.iob2", "\ufeffNew York\tB-LOC\nwins\tO", ["NewYork wins"], ["B-LOC O"]),
        ("a.conll", "the DET\ncat NOUN\n", ["the cat"], ["DET NOUN"]),
    ],
)
def test_a_file_in_columns(name, text, texts, tags, tmp_path: Path):
    (tmp_path / name).write_bytes(text.encode())
    data = read_conll(tmp_path / name)
    assert data is not None
    split = data.split("train")
    assert list(split.samples) == texts
    named = [[data.labels[i] for i in row if i != IGNORED] for row in split.targets]
    assert named == [each.split() for each in tags]
    assert list(data.labels) == sorted(data.labels)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "one text\nanother text\n"),
        ("a.txt", ""),
        ("a.txt", "A grade of P\n"),
        ("a.tsv", "text\tlabel\nI like it\tgood\n"),
        ("a.csv", CONLL_2003),
        ("a.npz", CONLL_2003),
    ],
)
def test_what_is_something_else_is_left_to_others(name, text, tmp_path: Path):
    (tmp_path / name).write_text(text)
    assert read_conll(tmp_path / name) is None
    assert read_conll(tmp_path) is None
    assert read_conll(tmp_path / "missing.conll") is None


@pytest.mark.parametrize(
    ("text", "why", "hint"),
    [
        ("EU B-ORG\nrejects\n", "line 2 of .* has no word with its tag: 'rejects'", "both on each line"),
        ("EU B-ORG\n\tO\n", "line 2", "both"),
        ("EU B-ORG\nword\t \n", "line 2", "both"),
        ("-DOCSTART- O\n\n", "has no words", "empty line after a text"),
    ],
)
def test_a_line_without_a_tag_is_named(text, why, hint, tmp_path: Path, refused):
    (tmp_path / "a.conll").write_text(text)
    with refused(DataError, hint=hint) as caught:
        read_conll(tmp_path / "a.conll")
    assert re.search(why, caught.value.message)


@pytest.mark.parametrize(
    ("text", "kept", "left"),
    [
        (b"a O\n\nb O\nrejects\nc O\n\nd B-X\n", ["a", "d"], ["line 3"]),
        (b"a O\n\nb O\nM\xfcller O\nc O\n\nd B-X\n", ["a", "d"], ["line 3"]),
        (b"a O\n\nM\xfcller O\n\nd B-X\n", ["a", "d"], ["line 3"]),
        (b"rejects\n\na O\r\n\r\n\r\nb\tO\r\nc\t\r\n\r\nd\tO", ["a", "d"], ["line 1", "line 6"]),
        (b"-DOCSTART- O\n\n# text = a\na O\n\n# text = b\nb\n\nd O\n", ["a", "d"], ["line 7"]),
    ],
)
def test_texts_with_a_line_that_cannot_be_read_are_left_out(text, kept, left, tmp_path: Path, refused):
    path = tmp_path / "a.conll"
    path.write_bytes(text)
    with refused(DataError, str(path), hint="--skip-bad"):
        read_conll(path)
    how = {"targets": "tags", "reader": read_conll, "lenient": read_conll_leniently}
    skipped = Skipped()
    data = load_data(path, **how, skipped=skipped)
    assert sorted(text for name in SPLITS for text in data.split(name).samples) == kept
    assert data.skipped == tuple(f"{place} of {path}" for place in left) == tuple(skipped.listed())
    whole = read_conll_leniently(path).split("train")
    lines = path.read_bytes().decode("latin-1").splitlines()
    for i, first in enumerate(whole.samples):
        number = int(whole.called(i).split()[1])
        assert lines[number - 1].split()[0] == first


def test_bytes_of_another_encoding_are_refused(tmp_path: Path, refused):
    (tmp_path / "a.conll").write_bytes("Müller B-PER\n".encode("latin-1"))
    with refused(DataError, "cannot read", hint="UTF-8"):
        read_conll(tmp_path / "a.conll")


def test_a_folder_has_a_file_for_each_split_and_the_rest_is_divided_off(tmp_path: Path):
    lines = "".join(f"w{i} B-A\nx O\n\n" for i in range(20))
    (tmp_path / "train.txt").write_text(lines)
    (tmp_path / "dev.txt").write_text("only B-B\n")
    data = load_data(tmp_path, targets="tags", reader=read_conll)
    assert data.labels == ("B-A", "B-B", "O")
    assert [len(data.split(name)) for name in SPLITS] == [16, 1, 4]
    assert list(data.split("val").samples) == ["only"]
    assert not set(data.split("train").samples) & set(data.split("test").samples)
    (tmp_path / "test.txt").write_text("last B-B\n")
    whole = load_data(tmp_path, targets="tags", reader=read_conll)
    assert ([len(whole.split(name)) for name in SPLITS], whole.seed) == ([20, 1, 1], None)


# -- on tokens


def saved(tokenizer: Tokenizer, folder: Path) -> ModelFacts:
    tokenizer.save(str(folder / "tokenizer.json"))
    spec = TextSpec(vocabulary=300, pad=0, max_length=8)
    return ModelFacts(name="m", labels=(), input=spec, files={"tokenizer.json": folder / "tokenizer.json"})


def word_pieces() -> Tokenizer:
    """As BERT's: lower case, punctuation apart, pieces of words, [CLS] and [SEP]."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##believ", "##able", "paris", "is", ".", "new", "york", "-"]
    tokenizer = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def byte_level() -> Tokenizer:
    """As GPT-2's: bytes, the space before a word part of its first token."""
    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def metaspace() -> Tokenizer:
    """As T5's and Llama's: a mark for the space before each word."""
    pieces = [("<unk>", 0.0), ("\u2581", -3.0), ("\u2581a", -2.0), *((c, -4.0) for c in "abc")]
    tokenizer = Tokenizer(models.Unigram(pieces, 0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


@pytest.mark.parametrize(
    ("tokenizer", "text", "expected"),
    [
        (word_pieces, "Unbelievable Paris", "- 1 - - 2 -"),
        (word_pieces, "New-York is", "- 1 - - 2 -"),  # punctuation within a word is the word's
        (word_pieces, "is  .", "- 1 2 -"),
        (word_pieces, "is is is is is is is", "- 1 2 3 4 5 6 -"),  # the seventh is cut off
        (word_pieces, "Xyz paris", "- 1 2 -"),  # unknown, and a word all the same
        (byte_level, "ab c", "1 - - 2"),
        (byte_level, "\u00e9 c", "1 - - 2"),
        (metaspace, "ab ac", "1 - 2 -"),
        (metaspace, "c a", "1 - 2"),  # the mark before the first word is a token of its own, and has its place
    ],
)
def test_the_first_token_of_a_word_has_its_tag(tokenizer, text, expected, tmp_path: Path):
    model = saved(tokenizer(), tmp_path)
    tags = np.arange(1, 1 + len(text.split()))[None]
    data = Dataset("d", (), {name: Split([text], tags) for name in SPLITS})
    out = on_tokens(data, model).split("train")
    assert out.targets[0].tolist() == [IGNORED if part == "-" else int(part) for part in expected.split()]
    assert list(out.samples) == [text]


def test_targets_are_filled_up_and_their_tokens_are_those_of_the_processor(tmp_path: Path):
    from pocketzoo.zoo.data.processors.text_processor import TextProcessor

    model = saved(word_pieces(), tmp_path)
    texts = ["paris is unbelievable", ".", "new york"]
    tags = np.array([[1, 2, 3], [4, IGNORED, IGNORED], [5, 6, IGNORED]])
    data = Dataset("d", ("a",) * 7, {name: Split(texts, tags) for name in SPLITS})
    out = on_tokens(data, model).split("val")
    ids = TextProcessor(model.input, model.files)(texts)["input_ids"]
    assert out.targets.shape == ids.shape
    pieces = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    firsts = {"paris": 1, "is": 2, "un": 3, ".": 4, "new": 5, "york": 6}
    known = {int(ids[i, j]): int(out.targets[i, j]) for i, j in np.argwhere(out.targets != IGNORED)}
    assert known == {pieces[piece]: tag for piece, tag in firsts.items()}


def test_token_ids_have_their_targets_already(tmp_path: Path):
    model = saved(word_pieces(), tmp_path)
    ids = np.zeros((2, 3), np.int64)
    data = Dataset("d", (), {name: Split(ids, ids) for name in SPLITS})
    assert on_tokens(data, model).split("test").targets is ids


def test_what_has_other_words_than_tags_is_refused(tmp_path: Path, refused):
    model = saved(word_pieces(), tmp_path)
    data = Dataset("d", (), {name: Split(["paris is"], np.array([[1]])) for name in SPLITS})
    with refused(DataError, "a text of d has 2 words and 1 tags: 'paris is'", hint="as many"):
        on_tokens(data, model)
    with refused(DataError, "m does not read text", hint="language model"):
        on_tokens(data, ModelFacts(name="m", labels=(), input=None))
