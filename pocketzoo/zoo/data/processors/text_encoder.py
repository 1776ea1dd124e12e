"""Tokenize texts to token ids: the same code for training and on the device."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.errors import BundleError, DataError
from pocketzoo.core.optional import require
from pocketzoo.core.reading.utf8 import is_utf8
from pocketzoo.zoo.catalog.specs import TextSpec
from pocketzoo.zoo.data.processors.tokenizer_bounds import check_tokenizer

PANIC = "PanicException"  # of pyo3, no ``Exception``: each library has one of its own
SHOWN = 60  # characters of a text in an error


class TextEncoder:
    """Texts to token ids (B, T), as the model's own tokenizer makes them."""

    def __init__(self, spec: TextSpec, files: Mapping[str, Path]) -> None:
        """Read the tokenizer.

        Raises:
            MissingDependencyError: the package tokenizers is not installed.
            BundleError: the tokenizer is missing or cannot be read.
            TooLargeError: it would take memory or time without end; see ``tokenizer_bounds``.
        """
        if spec.tokenizer not in files:
            raise BundleError(f"the model has no {spec.tokenizer}", "rebuild the bundle, from a model that has one")
        tokenizers = require("tokenizers", extra="text")
        self.file = files[spec.tokenizer]
        check_tokenizer(self.file)
        with _explained(self.file), _QUIET:
            self.tokenizer: Any = tokenizers.Tokenizer.from_file(str(self.file))
            if spec.special:
                self.tokenizer.add_special_tokens(list(spec.special))
            if spec.lowercase:
                kinds = tokenizers.normalizers
                own = self.tokenizer.normalizer
                self.tokenizer.normalizer = kinds.Sequence([kinds.Lowercase(), *([] if own is None else [own])])
            self.tokenizer.no_padding()
            with suppress(Exception):  # of this text, and not of the tokenizer
                self.tokenizer.encode("a")  # what panics at any text does here
        self.spec, self.pad = spec, spec.pad
        self._cut_long_texts()

    def _cut_long_texts(self) -> None:
        with _explained(self.file):
            self.tokenizer.enable_truncation(self.spec.max_length, direction=self.spec.cut)

    def _encodings(self, texts: Sequence[str]) -> Iterator[Any]:
        """What the tokenizer makes of each text, its prefix in front.

        Raises:
            DataError: a text is not UTF-8.
            BundleError: the tokenizer fails, as one does whose vocabulary lacks a token that it needs.
        """
        if (bad := next((text for text in texts if not is_utf8(text)), None)) is not None:
            raise DataError(f"a text is not UTF-8: {bad[:SHOWN]!a}", "write it in UTF-8")
        for start in range(0, len(texts), 1000):
            with _explained(self.file):
                encodings = self.tokenizer.encode_batch([self.spec.prefix + t for t in texts[start : start + 1000]])
            yield from encodings

    def cut(self, texts: Sequence[str]) -> int:
        """How many of the texts have more tokens than the model expects."""
        return sum(bool(encoding.overflowing) for encoding in self._encodings(texts))

    def whole(self, texts: Sequence[str]) -> list[npt.NDArray[np.int64]]:
        """Ids of each text, however long it is."""
        self.tokenizer.no_truncation()
        try:
            return [np.array(encoding.ids, np.int64) for encoding in self._encodings(texts)]
        finally:
            self._cut_long_texts()

    def spans(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """From which character of each text to before which one each of its tokens is; (0, 0) for those it adds."""
        before = len(self.spec.prefix)
        return [
            [
                (0, 0) if special or end <= before else (max(start - before, 0), end - before)
                for (start, end), special in zip(each.offsets, each.special_tokens_mask, strict=True)
            ]
            or [(0, 0)]
            for each in self._encodings(texts)
        ]

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Ids (B, longest), filled up with the padding's id."""
        return self.masked(texts)[0]

    def masked(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Ids (B, longest), and ones where they are tokens of a text, whatever their id. An empty text is padding.

        Raises:
            DataError: a text has a token after the model's vocabulary, or, with ``spec.checked``, the padding's id.
        """
        rows = [encoding.ids for encoding in self._encodings(texts)]
        self._check_ids(texts, rows)
        ids = np.full((len(rows), max(1, *map(len, rows))), self.pad, np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : max(len(row), 1)] = 1
        return ids, mask

    def _check_ids(self, texts: Sequence[str], rows: Sequence[Sequence[int]]) -> None:
        known = self.spec.vocabulary
        for text, row in zip(texts, rows, strict=True):
            last = max(row, default=0)
            if self.spec.checked and self.pad in row:
                number, why = self.pad, "which this model takes for padding"
            elif known and last >= known:  # a tokenizer may list more tokens than the model was made for
                number, why = last, f"which is none of the model's {known}"
            else:
                continue
            word = self.tokenizer.id_to_token(number)
            shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
            raise DataError(f"the text {shown!r} has the token {word!r}, {why}", "leave it out of the text")


class _Quiet:
    """While it holds, what goes to stderr is kept, and shown afterwards unless a panic ended it.

    A panic of Rust is written there before it is an error, past Python. One at a time, since the stream is the
    process's; so for the moment when a tokenizer is read, not for each text.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __enter__(self) -> None:
        self.lock.acquire()
        self.kept = tempfile.TemporaryFile()
        self.stream: int | None = None
        with suppress(OSError):  # it is closed
            sys.stderr.flush()
            self.stream = os.dup(2)
            os.dup2(self.kept.fileno(), 2)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if self.stream is not None:
                os.dup2(self.stream, 2)
                os.close(self.stream)
                self.kept.seek(0)
                if kind is None or kind.__name__ != PANIC:
                    os.write(2, self.kept.read())
        finally:
            self.kept.close()
            self.lock.release()


_QUIET = _Quiet()


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    """Around the library: its Rust side raises Exception itself, and for what it did not foresee a panic."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != PANIC:
            raise
        raise BundleError(f"{file} is not a tokenizer: {error}", "rebuild the bundle") from error
