"""Tokenize texts to token ids: the same code for training and on the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.errors import BundleError, DataError
from pocketzoo.core.optional import require
from pocketzoo.core.reading.utf8 import is_utf8
from pocketzoo.zoo.catalog.specs import TextSpec


class TextEncoder:
    """Texts to token ids (B, T), as the model's own tokenizer makes them."""

    def __init__(self, spec: TextSpec, files: Mapping[str, Path]) -> None:
        """Read the tokenizer.

        Raises:
            MissingDependencyError: the package tokenizers is not installed.
            BundleError: the tokenizer is missing or cannot be read.
        """
        if spec.tokenizer not in files:
            raise BundleError(f"the model has no {spec.tokenizer}", "rebuild the bundle, from a model that has one")
        tokenizers = require("tokenizers", extra="text")
        self.file = files[spec.tokenizer]
        with _explained(self.file):
            self.tokenizer: Any = tokenizers.Tokenizer.from_file(str(self.file))
        with _explained(self.file):
            self.tokenizer.enable_truncation(spec.max_length)
            self.tokenizer.no_padding()
        self.pad, self.longest = spec.pad, spec.max_length

    def cut(self, texts: Sequence[str]) -> int:
        """How many of the texts have more tokens than the model expects."""
        rows = range(0, len(texts), 1000)
        return sum(bool(encoding.overflowing) for i in rows for encoding in self._encoded(texts[i : i + 1000]))

    def whole(self, texts: Sequence[str]) -> list[npt.NDArray[np.int64]]:
        """Ids of each text, however long it is."""
        self.tokenizer.no_truncation()
        try:
            starts = range(0, len(texts), 1000)
            batches = (self._encoded(texts[i : i + 1000]) for i in starts)
            return [np.array(encoding.ids, np.int64) for batch in batches for encoding in batch]
        finally:
            self.tokenizer.enable_truncation(self.longest)

    def spans(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """From which character of each text to before which one each of its tokens is; (0, 0) for those it adds."""
        rows = range(0, len(texts), 1000)
        batches = (self._encoded(texts[i : i + 1000]) for i in rows)
        return [
            [(0, 0) if special else span for span, special in zip(each.offsets, each.special_tokens_mask, strict=True)]
            or [(0, 0)]
            for batch in batches
            for each in batch
        ]

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Ids (B, longest), filled up with the padding's id."""
        return self.masked(texts)[0]

    def masked(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Ids (B, longest), and ones where they are tokens of a text, whatever their id. An empty text is padding."""
        rows = [encoding.ids or [self.pad] for encoding in self._encoded(texts)]
        ids = np.full((len(rows), max(map(len, rows))), self.pad, np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = 1
        return ids, mask

    def _encoded(self, texts: Sequence[str]) -> list[Any]:
        """What the tokenizer makes of some texts.

        Raises:
            DataError: one is not UTF-8.
            BundleError: the tokenizer fails, as one does whose vocabulary lacks a token that it needs.
        """
        if bad := next((text for text in texts if not is_utf8(text)), None):
            raise DataError(f"a text is not UTF-8: {bad[:60]!a}", "write it in UTF-8")
        with _explained(self.file):
            encodings: list[Any] = self.tokenizer.encode_batch(list(texts))
        return encodings


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    """Around the library: its Rust side raises Exception itself, and for what it did not foresee a panic."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise BundleError(f"{file} is not a tokenizer: {error}", "rebuild the bundle") from error
