"""Texts that are nearly the same: by the runs of five words that they share (Broder 1997).

MinHash with banding finds pairs to look at; the shingles themselves decide. Parts of one document that share no words
are not found.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

WORDS = 5  # of a shingle; a shorter text is not looked at: that two say "not good" is no copy
ALIKE = 0.7  # of the shingles of both texts that they have in common (Jaccard's index)
BANDS, ROWS = 16, 4  # of the MinHash: pairs that have .7 in common are looked at with a probability of .99
_WORD = re.compile(r"\w+")


def shingles(text: str) -> frozenset[int]:
    """The runs of words of a text, each as a number of 32 bits."""
    words = _WORD.findall(text.casefold())
    runs = (" ".join(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1))
    return frozenset(zlib.crc32(run.encode("utf8", "surrogatepass")) for run in runs)


def same_texts(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """The pairs that are nearly the same; of many that are the same, each with the first."""
    sets = [shingles(text) for text in texts]
    first: dict[frozenset[int], int] = {}
    for row, its in enumerate(sets):
        if its and (same := first.setdefault(its, row)) != row:
            yield same, row
    rows = list(first.values())
    signatures = _signatures([sets[row] for row in rows])
    looked: set[tuple[int, int]] = set()
    for band in range(BANDS):
        buckets: dict[bytes, list[int]] = {}
        for row, signature in zip(rows, signatures, strict=True):
            buckets.setdefault(signature[band * ROWS : (band + 1) * ROWS].tobytes(), []).append(row)
        for bucket in buckets.values():
            for one, other in pairwise(bucket):  # neighbors: links make the rest
                pair = (min(one, other), max(one, other))
                if pair in looked:
                    continue
                looked.add(pair)
                if len(sets[one] & sets[other]) >= ALIKE * len(sets[one] | sets[other]):
                    yield pair


def _signatures(sets: Sequence[frozenset[int]]) -> npt.NDArray[np.uint64]:
    """The MinHash (N, 64) of sets that are not empty, by multiply-shift hashing (Dietzfelbinger et al. 1997)."""
    generator = np.random.default_rng(0)
    factors = generator.integers(1, 2**63, BANDS * ROWS, np.uint64) | np.uint64(1)
    offsets = generator.integers(0, 2**63, BANDS * ROWS, np.uint64)
    found = np.zeros((len(sets), BANDS * ROWS), np.uint64)
    for row, its in enumerate(sets):
        values = np.fromiter(its, np.uint64, len(its))[:, None]
        found[row] = ((values * factors + offsets) >> np.uint64(32)).min(0)
    return found
