"""Texts whose words have tags: files in the columns of CoNLL, and tags of words put on the tokens of a model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pocketzoo.core.errors import DataError, message_of
from pocketzoo.zoo.catalog.dataset import SPLITS, Dataset, Split, SplitName
from pocketzoo.zoo.catalog.task import ModelFacts
from pocketzoo.zoo.data.folder_listing import is_hidden
from pocketzoo.zoo.data.processors.encoded_text import lines_of
from pocketzoo.zoo.data.processors.text_encoder import TextEncoder
from pocketzoo.zoo.data.target_kinds import IGNORED, read_targets

SUFFIXES = (".conll", ".bio", ".iob", ".iob2", ".bioes")
PERHAPS = (".txt", ".tsv")  # files of these may be plain texts, or tables: what is in them tells
NAMES: dict[SplitName, tuple[str, ...]] = {
    "train": ("train",),
    "val": ("val", "valid", "validation", "dev", "testa"),
    "test": ("test", "testb"),
}
TAG = re.compile(r"O|[BIESLU]-\S+")
DOCUMENT = "-DOCSTART-"
Sentence = tuple[str, list[str]]  # its words with a space between, and the tag of each


def read_conll(path: Path) -> Dataset | None:
    """A file in the columns of CoNLL, or a folder of train, dev and test; None for what is not such.

    A line has a word and, last of its columns, its tag, with spaces or a tab between; a line that is empty ends a
    text. Lines of ``-DOCSTART-`` and of comments (``# ...``, before a text) are left out. A ``.txt`` or ``.tsv`` is
    read so where its first line has a tag of the schemes BIO or BIOES.

    Raises:
        DataError: a line has no tag, there is no text, or it is not UTF-8.
    """
    if path.is_dir():
        files = {name: _split_file(path, words) for name, words in NAMES.items()}
        if files["train"] is None:
            return None
        found = {name: _sentences(file) for name, file in files.items() if file is not None}
    elif path.is_file() and (path.suffix in SUFFIXES or (path.suffix in PERHAPS and _looks_tagged(path))):
        found = {"train": _sentences(path)}
    else:
        return None
    everything = [tags for sentences in found.values() for _, tags in sentences]
    cells = np.empty(len(everything), object)
    for i, tags in enumerate(everything):
        cells[i] = tags
    labels, targets = read_targets("tags", str(path), cells, len(cells))
    splits: dict[SplitName, Split] = {}
    start = 0
    for name, sentences in found.items():
        splits[name] = Split([text for text, _ in sentences], targets[start : start + len(sentences)])
        start += len(sentences)
    return Dataset(path.stem, labels, splits, None if len(splits) == len(SPLITS) else 0)


def _split_file(folder: Path, words: Sequence[str]) -> Path | None:
    """The file of a split, by its name: the first whose letters are one of the words."""
    for file in sorted(each for each in folder.iterdir() if not is_hidden(each.name)):
        stem = re.sub(r"[^a-z]", "", file.stem.lower()) if file.suffix in SUFFIXES + PERHAPS else ""
        if any(stem == word for word in words) and (file.suffix in SUFFIXES or _looks_tagged(file)):
            return file
    return None


def _looks_tagged(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8-sig") as file:
            line = next((line for line in file if line.strip() and not _is_left_out(line)), "")
    except (OSError, UnicodeDecodeError):
        return False
    columns = line.split()
    return len(columns) > 1 and TAG.fullmatch(columns[-1]) is not None


def _is_left_out(line: str) -> bool:
    return line.startswith((DOCUMENT, "# "))


def _sentences(path: Path) -> list[Sentence]:
    try:
        read = lines_of(path.read_bytes(), str(path))
        for number, what in read.bad.items():
            raise DataError(f"cannot read {path}: line {number} {what}", "it must be UTF-8")
        sentences = list(_read(path, [line.rstrip("\r\n") for _, line in read.lines]))
    except OSError as error:
        raise DataError(f"cannot read {path}: {message_of(error)}", "it must be UTF-8") from error
    if not sentences:
        raise DataError(f"{path} has no words", "give a word and its tag on each line, and an empty line after a text")
    return sentences


def _read(path: Path, lines: Sequence[str]) -> Iterator[Sentence]:
    words, tags = list[str](), list[str]()
    for number, line in enumerate([*lines, ""], start=1):
        columns = line.split("\t") if "\t" in line else line.split()
        if not line.strip() or line.startswith(DOCUMENT):
            if words:
                yield " ".join(words), tags
            words, tags = [], []
        elif not words and line.startswith("# "):
            continue
        elif len(columns) < 2 or not columns[-1].strip() or not columns[0].strip():
            raise DataError(
                f"line {number} of {path} has no word with its tag: {line.strip()!r:.60}", "give both on each line"
            )
        else:
            words.append("".join(columns[0].split()))  # a space would be another word
            tags.append(columns[-1].strip())


def on_tokens(dataset: Dataset, model: ModelFacts) -> Dataset:
    """Targets of words (N, words) as those of a model's tokens (N, T): a word's on its first, the others ``IGNORED``.

    Words are what spaces divide. T is the length of the longest text, as the model's tokenizer cuts it. Samples that
    are no texts, and so are token ids already, keep their targets.

    Raises:
        DataError: the model does not read text, or a text has not as many words as tags.
    """
    splits = {name: _on_tokens(split, dataset.name, model) for name, split in dataset.splits.items()}
    return Dataset(dataset.name, dataset.labels, splits, dataset.seed, dataset.columns)


def _on_tokens(split: Split, name: str, model: ModelFacts) -> Split:
    texts, tags = split.samples, split.targets
    if tags is None or isinstance(texts, np.ndarray) or not len(texts) or not all(isinstance(t, str) for t in texts):
        return split
    if not hasattr(model.input, "tokenizer"):
        raise DataError(f"{model.name} does not read text, and {name} has tags of words", "use a language model")
    encoder = TextEncoder(model.input, model.files)
    rows = [
        _tokens_of(str(text), of_words[of_words != IGNORED], spans, name)
        for text, of_words, spans in zip(texts, tags, encoder.spans([str(text) for text in texts]), strict=True)
    ]
    targets = np.full((len(rows), max(map(len, rows))), IGNORED, np.int64)
    for target, row in zip(targets, rows, strict=True):
        target[: len(row)] = row
    return Split(texts, targets)


def _tokens_of(
    text: str, tags: npt.NDArray[np.int64], spans: Sequence[tuple[int, int]], name: str
) -> npt.NDArray[np.int64]:
    """The target of each token of a text, by its place: (T,)."""
    starts = [match.start() for match in re.finditer(r"\S+", text)]
    if len(starts) != len(tags):
        raise DataError(f"a text of {name} has {len(starts)} words and {len(tags)} tags: {text!r:.60}", "give as many")
    out, last = np.full(len(spans), IGNORED, np.int64), -1
    for i, (start, end) in enumerate(spans):
        begin = start + len(text[start:end]) - len(text[start:end].lstrip())  # some tokens have the space before a word
        if begin >= end:  # none of its own: [CLS]
            continue
        word = int(np.searchsorted(starts, begin, "right")) - 1
        if word != last:
            out[i], last = tags[word], word
    return out
