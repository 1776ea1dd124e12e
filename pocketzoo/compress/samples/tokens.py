"""More texts of texts: rows of token ids in which words, or runs of words, are replaced by those of other samples.

Calibration texts are few, and a layer sees few of the combinations that it may read. What is made has no meaning, but
the model answers it all the same, and its answers are what layers are fitted to. LLM-QAT (Liu et al. 2023,
arXiv:2305.17888) has the model write such texts; here words come from the samples, so that no id is beyond the
vocabulary, none was never trained, and common words stay common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.arrays import Arrays

Ids = npt.NDArray[np.int64]
Row = npt.NDArray[np.integer[Any]]  # (T,)

SHORTEST = 4  # words between the first token and the last of a text that is changed
WORDS = (0.1, 0.6)  # fraction of the words that are replaced one by one
RUNS = 3  # of words, that are replaced at most
MARK = 0.5  # fraction of the texts that begin or end with an id, above which it is no word
VALUES = 8  # an input with fewer different values is a mask or a type
LENGTHS = 8  # lengths are rounded up to a multiple of this, where there is padding: more texts go into one batch


@dataclass(frozen=True)
class TokenMaker:
    """More of some samples, each a mapping of input -> (1, T); ``name`` is the input that has the token ids."""

    samples: Sequence[Arrays]
    ids: Ids  # the source of each
    name: str
    spans: tuple[tuple[int, int], ...]  # of each sample where its words begin and end
    pool: Row  # all words, each as often as it occurs
    reach: tuple[Row, Row] | None  # least and largest ids (T,) of each position, where these may differ in meaning
    padding: int | None  # the id that rows may be filled up with on the right; None: rows keep their length

    @classmethod
    def of(cls, samples: Sequence[Arrays], ids: Ids, image: object = None) -> TokenMaker | None:
        """None where it is not plain which input has the token ids, or there is too little to replace."""
        name = token_input(samples)
        if name is None:
            return None
        rows = [sample[name][0] for sample in samples]
        padding = _padding(rows)
        texts = [_text(row, padding) for row in rows]
        marks = _marks([row[start:end] for row, (start, end) in zip(rows, texts, strict=True) if end > start])
        spans = tuple((start + 1, max(end - 1, start + 1)) for start, end in texts)
        pool = np.concatenate([row[start:end] for row, (start, end) in zip(rows, spans, strict=True)])
        pool = pool[~np.isin(pool, marks)]
        if max(end - start for start, end in spans) < SHORTEST or len(np.unique(pool)) < VALUES:
            return None
        # Rows of one length may be those of a table, whose columns differ in what their numbers mean.
        alike = len({end - start for start, end in texts}) == 1 and len({len(row) for row in rows}) == 1
        reach = (np.min(rows, axis=0), np.max(rows, axis=0)) if alike else None
        at_end = padding is not None and all(start == 0 for start, _ in texts)
        alone = all(len(sample) == 1 for sample in samples)  # a mask would have to be filled up too
        return cls(samples, np.asarray(ids), name, spans, pool, reach, padding if at_end and alone else None)

    def __call__(self, generator: np.random.Generator) -> tuple[Arrays, int]:
        """One more sample, and the source that it is of: that of the text whose words were replaced."""
        place = int(generator.integers(len(self.samples)))
        start, end = self.spans[place]
        row = self.samples[place][self.name][0].copy()
        if end - start >= SHORTEST:
            if generator.random() < 0.5:
                places = start + np.flatnonzero(generator.random(end - start) < generator.uniform(*WORDS))
                self._put(row, places, generator.choice(self.pool, len(places)))
            else:
                for _ in range(int(generator.integers(1, RUNS + 1))):
                    self._splice(row, start, end, generator)
        if self.padding is not None:
            row = row[: end + 1]
            row = np.pad(row, (0, -len(row) % LENGTHS), constant_values=self.padding)
        return {**self.samples[place], self.name: row[None]}, int(self.ids[place])

    def _splice(self, row: Row, start: int, end: int, generator: np.random.Generator) -> None:
        """A run of words of another sample in place of as many."""
        other = int(generator.integers(len(self.samples)))
        first, last = self.spans[other]
        longest = min((end - start) // 2, last - first)
        if longest > 0:
            length = int(generator.integers(1, longest + 1))
            here = int(generator.integers(start, end - length + 1))
            there = int(generator.integers(first, last - length + 1))
            run = self.samples[other][self.name][0][there : there + length]
            self._put(row, np.arange(here, here + length), run)

    def _put(self, row: Row, places: Ids, ids: Row) -> None:
        if self.reach is not None:
            low, high = (ends[places] for ends in self.reach)
            known = (low <= ids) & (ids <= high)
            places, ids = places[known], ids[known]
        row[places] = ids


def token_input(samples: Sequence[Arrays]) -> str | None:
    """The one input of integers (1, T) that has token ids; None where there is none, or more than one may be it.

    All other inputs are integers of that shape too, position for position: masks, types and numbers of positions, whose
    neighbors differ by one at most.
    """
    inputs = [x for sample in samples for x in sample.values()]
    if not inputs or any(x.dtype.kind not in "iub" or x.ndim != 2 or len(x) != 1 for x in inputs):
        return None
    if any(len({x.shape for x in sample.values()}) != 1 for sample in samples):
        return None
    found = [name for name in samples[0] if _are_tokens([sample[name][0] for sample in samples])]
    return found[0] if len(found) == 1 else None


def _are_tokens(rows: Sequence[Row]) -> bool:
    if len(np.unique(np.concatenate(rows))) < VALUES:
        return False
    steps = np.concatenate([np.abs(np.diff(row.astype(np.int64))) for row in rows])
    return int((steps > 1).sum()) > int((steps == 1).sum())


def _padding(rows: Sequence[Row]) -> int | None:
    """The id that rows begin or end with several times over, and that is nowhere else; None where there is none."""
    ends = [int(row[place]) for row in rows if len(row) > 1 for place in (0, -1) if row[place] == row[(1, -2)[place]]]
    return next((one for one in set(ends) if all(_at_ends(row, one) for row in rows)), None)


def _at_ends(row: Row, one: int) -> bool:
    """Whether what is not that id is in one piece."""
    return bool((np.diff(np.flatnonzero(row != one)) == 1).all())


def _text(row: Row, padding: int | None) -> tuple[int, int]:
    """Where the tokens of a row begin and end, without padding."""
    real = np.arange(len(row)) if padding is None else np.flatnonzero(row != padding)
    return (int(real[0]), int(real[-1]) + 1) if len(real) else (0, 0)


def _marks(texts: Sequence[Row]) -> list[int]:
    """The ids that most texts begin or end with."""
    firsts, lasts = [int(text[0]) for text in texts], [int(text[-1]) for text in texts]
    return [one for ends in (firsts, lasts) for one in set(ends) if ends.count(one) > MARK * len(texts)]
