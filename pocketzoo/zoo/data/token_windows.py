"""Texts as token windows with next-token targets, for training and evaluating language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import SPLITS, Dataset, Split
from pocketzoo.zoo.catalog.specs import WINDOW, GenerationSpec, TextSpec
from pocketzoo.zoo.data.processors.text_encoder import TextEncoder
from pocketzoo.zoo.data.target_kinds import IGNORED

Ids = npt.NDArray[np.int64]


def as_windows(
    data: Dataset, spec: TextSpec, generation: GenerationSpec | None, files: Mapping[str, Path], size: int = WINDOW
) -> Dataset:
    """A data set of texts, or of rows of token ids, as windows of ``size`` tokens at most, split by split.

    The texts of a split are joined, each with the first of ``generation.end`` after it, and cut: the samples are ids
    (N, T), the targets (N, T) the ids that follow them. It is ``IGNORED`` after the last one, and after a token whose
    id is the padding's, which models do not look at: where a text's end is written so, what begins the next is not
    learned. Classes are left out.

    Raises:
        DataError: they are not texts, or a split has less than two tokens.
    """
    encode = TextEncoder(spec, files)
    end = generation.end[0] if generation is not None and generation.end else None
    length = min(size, spec.max_length)
    splits = {}
    for name in SPLITS:
        texts = _ids(data.split(name).samples, encode, spec)
        splits[name] = _cut(_joined(texts, end), length, spec.pad, f"the {name} split of {data.name}")
    return replace(data, labels=(), splits=splits, columns=())


def _ids(samples: Any, encode: TextEncoder, spec: TextSpec) -> list[Ids]:
    if len(samples) and isinstance(samples[0], str):
        return encode.whole(samples)
    rows = samples if isinstance(samples, np.ndarray) else np.empty(0)
    if (
        rows.ndim != 2
        or (rows != np.round(rows)).any()
        or (rows < 0).any()
        or ((rows >= spec.vocabulary) & (rows != spec.pad)).any()
    ):
        raise DataError(
            "a language model is trained on texts, and the data are not",
            f"give texts, or an .npz whose x has token ids from 0 to {spec.vocabulary - 1}",
        )
    used = [np.flatnonzero(row != spec.pad).max(initial=-1) + 1 for row in rows]
    return [row[:count].astype(np.int64) for row, count in zip(rows, used, strict=True)]


def _joined(texts: Sequence[Ids], end: int | None) -> Ids:
    parts: list[Ids] = []
    for ids in texts:
        parts.append(ids)
        if end is not None and (not len(ids) or ids[-1] != end):  # some tokenizers write it themselves
            parts.append(np.array([end], np.int64))
    return np.concatenate([np.empty(0, np.int64), *parts])


def _cut(ids: Ids, size: int, pad: int, what: str) -> Split:
    known = len(ids) - 1
    if known < 1:
        raise DataError(
            f"{what} has {len(ids)} tokens, too few to predict a next one", "give more texts, or longer ones"
        )
    size = min(size, known)
    count = -(-known // size)
    x, y = np.full(count * size, pad, np.int64), np.full(count * size, IGNORED, np.int64)
    x[:known], y[:known] = ids[:-1], ids[1:]
    y[x == pad] = IGNORED
    taught = (y != IGNORED).reshape(count, size).any(1)
    if not taught.any():
        raise DataError(f"{what} has no two tokens in a row", "give longer texts")
    return Split(x.reshape(count, size)[taught], y.reshape(count, size)[taught])
