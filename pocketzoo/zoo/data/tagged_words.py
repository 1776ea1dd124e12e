"""Texts whose words have tags: files in the columns of CoNLL, and tags of words put on the tokens of a model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pocketzoo.core.errors import DataError, message_of
from pocketzoo.zoo.catalog.dataset import SPLITS, Dataset, Split, SplitName
from pocketzoo.zoo.catalog.task import ModelFacts
from pocketzoo.zoo.data.batches import Skipped
from pocketzoo.zoo.data.folder_listing import is_hidden
from pocketzoo.zoo.data.processors.encoded_text import TextLines, lines_of
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
UTF8 = "it must be UTF-8"
GIVE = "give both on each line"


@dataclass(frozen=True, slots=True)
class Sentence:
    """A text: its words with a space between, and the tag of each."""

    text: str
    tags: list[str]
    place: str  # "line 3 of train.conll", its first line
    wrong: str = ""  # where a line of it cannot be read: which, and why
    hint: str = ""


def read_conll_leniently(path: Path) -> Dataset | None:
    """As ``read_conll``, without the texts of which a line cannot be read."""
    return read_conll(path, Skipped())


def read_conll(path: Path, skipped: Skipped | None = None) -> Dataset | None:
    """A file in the columns of CoNLL, or a folder of train, dev and test; None for what is not such.

    A line has a word and, last of its columns, its tag, with spaces or a tab between; a line that is empty ends a
    text. Lines of ``-DOCSTART-`` and of comments (``# ...``, before a text) are left out. A ``.txt`` or ``.tsv`` is
    read so where its first line has a tag of the schemes BIO or BIOES. A text with a line that cannot be read is an
    error, or noted in ``skipped``.

    Raises:
        DataError: a line has no tag, there is no text, or it is not UTF-8.
    """
    if path.is_dir():
        files = {name: _split_file(path, words) for name, words in NAMES.items()}
        if files["train"] is None:
            return None
        found = {name: _sentences(file, skipped) for name, file in files.items() if file is not None}
    elif path.is_file() and (path.suffix in SUFFIXES or (path.suffix in PERHAPS and _looks_tagged(path))):
        found = {"train": _sentences(path, skipped)}
    else:
        return None
    everything = [sentence.tags for sentences in found.values() for sentence in sentences]
    cells = np.empty(len(everything), object)
    for i, tags in enumerate(everything):
        cells[i] = tags
    labels, targets = read_targets("tags", str(path), cells, len(cells))
    splits: dict[SplitName, Split] = {}
    start = 0
    for name, sentences in found.items():
        texts, places = [each.text for each in sentences], [each.place for each in sentences]
        splits[name] = Split(texts, targets[start : start + len(sentences)], places)
        start += len(sentences)
    seed = None if len(splits) == len(SPLITS) else 0
    return Dataset(path.stem, labels, splits, seed, skipped=tuple(skipped.listed()) if skipped is not None else ())


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


def _sentences(path: Path, skipped: Skipped | None) -> list[Sentence]:
    try:
        read = lines_of(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"cannot read {path}: {message_of(error)}", UTF8) from error
    sentences = []
    for each in _read(path, read):
        if not each.wrong:
            sentences.append(each)
        elif skipped is None:
            raise DataError(each.wrong, f"{each.hint}, or use --skip-bad")
        else:
            skipped.names.add(each.place)
    if not sentences:
        raise DataError(f"{path} has no words", "give a word and its tag on each line, and an empty line after a text")
    return sentences


def _read(path: Path, read: TextLines) -> Iterator[Sentence]:
    lines: dict[int, str] = {number: line.rstrip("\r\n") for number, line in read.lines}
    last = max([*lines, *read.bad], default=0)
    words, tags, wrong, first = list[str](), list[str](), ("", ""), 0
    for number in range(1, last + 2):
        line = lines.get(number, "")
        columns = line.split("\t") if "\t" in line else line.split()
        if number in read.bad:
            wrong = wrong if wrong[0] else (f"cannot read {path}: line {number} {read.bad[number]}", UTF8)
        elif not line.strip() or line.startswith(DOCUMENT):
            if words or wrong[0]:
                yield Sentence(" ".join(words), tags, f"line {first} of {path}", *wrong)
            words, tags, wrong, first = [], [], ("", ""), 0
            continue
        elif not words and line.startswith("# "):
            continue
        elif len(columns) < 2 or not columns[-1].strip() or not columns[0].strip():
            said = f"line {number} of {path} has no word with its tag: {line.strip()!r:.60}"
            wrong = wrong if wrong[0] else (said, GIVE)
        else:
            words.append("".join(columns[0].split()))  # a space would be another word
            tags.append(columns[-1].strip())
        first = first or number


def on_tokens(dataset: Dataset, model: ModelFacts) -> Dataset:
    """Targets of words (N, words) as those of a model's tokens (N, T): a word's on its first, the others ``IGNORED``.

    Words are what spaces divide. T is the length of the longest text, as the model's tokenizer cuts it. Samples that
    are no texts, and so are token ids already, keep their targets.

    Raises:
        DataError: the model does not read text, or a text has not as many words as tags.
    """
    splits = {name: _on_tokens(split, dataset.name, model) for name, split in dataset.splits.items()}
    return replace(dataset, splits=splits)


def _on_tokens(split: Split, name: str, model: ModelFacts) -> Split:
    texts, tags = split.samples, split.targets
    if tags is None or isinstance(texts, np.ndarray) or not len(texts) or not all(isinstance(t, str) for t in texts):
        return split
    if not hasattr(model.input, "tokenizer"):
        raise DataError(f"{model.name} does not read text, and {name} has tags of words", "use a language model")
    encoder = TextEncoder(model.input, model.files)
    rows = [
        _tokens_of(
            str(text),
            of_words[of_words != IGNORED],
            spans,
            f"in {split.called(row)}" if len(split.places) else f"of {name}",
        )
        for row, (text, of_words, spans) in enumerate(
            zip(texts, tags, encoder.spans([str(text) for text in texts]), strict=True)
        )
    ]
    targets = np.full((len(rows), max(map(len, rows))), IGNORED, np.int64)
    for target, row in zip(targets, rows, strict=True):
        target[: len(row)] = row
    return replace(split, targets=targets)


def _tokens_of(
    text: str, tags: npt.NDArray[np.int64], spans: Sequence[tuple[int, int]], name: str
) -> npt.NDArray[np.int64]:
    """The target of each token of a text, by its place: (T,)."""
    starts = [match.start() for match in re.finditer(r"\S+", text)]
    if len(starts) != len(tags):
        said = f"{len(starts)} words and {len(tags)} tags: {text!r:.60}"
        raise DataError(f"a text {name} has {said}", "give as many")
    out, last = np.full(len(spans), IGNORED, np.int64), -1
    for i, (start, end) in enumerate(spans):
        begin = start + len(text[start:end]) - len(text[start:end].lstrip())  # some tokens have the space before a word
        if begin >= end:  # none of its own: [CLS]
            continue
        word = int(np.searchsorted(starts, begin, "right")) - 1
        if word != last:
            out[i], last = tags[word], word
    return out
