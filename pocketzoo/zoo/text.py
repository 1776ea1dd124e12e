"""Texts: read from tables, and turned into the token ids a model reads; the same when fitting and on the device."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.errors import BundleError, DataError
from pocketzoo.optional import require
from pocketzoo.zoo.specs import TextSpec

TEXT = ("text", "sentence", "content", "document", "question")  # what a column of texts is called, best first
LABEL = ("label", "class", "target", "category", "intent")


class TextEncoder:
    """Texts to token ids (B, T), as the model's own tokenizer makes them."""

    def __init__(self, spec: TextSpec, files: Mapping[str, Path]) -> None:
        """Read the tokenizer.

        Raises:
            MissingDependencyError: the package tokenizers is not installed.
            BundleError: the tokenizer is missing or cannot be read.
        """
        if spec.tokenizer not in files:
            raise BundleError(f"the model has no {spec.tokenizer}", "make the bundle again, from a model that has one")
        tokenizers = require("tokenizers", extra="text")
        try:
            self.tokenizer: Any = tokenizers.Tokenizer.from_file(str(files[spec.tokenizer]))
        except Exception as error:  # its Rust side raises Exception itself
            raise BundleError(f"{files[spec.tokenizer]} is no tokenizer: {error}", "make the bundle again") from error
        self.tokenizer.enable_truncation(spec.max_length)
        self.tokenizer.no_padding()
        self.pad = spec.pad

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Ids (B, longest), filled up with the padding's id."""
        rows = [encoding.ids or [self.pad] for encoding in self.tokenizer.encode_batch(list(texts))]
        ids = np.full((len(rows), max(map(len, rows))), self.pad, np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
        return ids


def read_texts(path: Path) -> tuple[list[str], list[str] | None]:
    """The texts of a table, and their classes where it has a column of them.

    ``.csv`` and ``.tsv`` have a header; the columns are found by name (``text``, ``label``, ...). ``.jsonl`` has an
    object a line with such fields, ``.txt`` a text a line and no classes.

    Raises:
        DataError: it is empty or damaged, or has no column of texts.
    """
    try:
        with path.open(encoding="utf8", newline="") as file:
            if path.suffix == ".txt":
                rows: list[dict[str, Any]] = [{"text": line.strip()} for line in file if line.strip()]
            elif path.suffix == ".jsonl":
                rows = [json.loads(line) for line in file if line.strip()]
            else:
                rows = list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))
    except (ValueError, csv.Error) as error:
        raise DataError(
            f"cannot read {path}: {error}", "it must be UTF-8; see docs/recipes.md for the forms"
        ) from error
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path} has no rows", "give a header and one text a row")
    columns = [name for name in rows[0] if isinstance(name, str)]
    text = next((c for want in TEXT for c in columns if c.lower() == want), None)
    label = next((c for want in LABEL for c in columns if c.lower() == want), None)
    if text is None:
        raise DataError(f"{path} has no column of texts among: {', '.join(columns)}", f"call it {TEXT[0]!r}")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get(text), str) or (label is not None and row.get(label) in (None, "")):
            raise DataError(f"row {number} of {path} lacks its {text} or {label}", "complete or remove it")
    return [row[text] for row in rows], None if label is None else [str(row[label]) for row in rows]
