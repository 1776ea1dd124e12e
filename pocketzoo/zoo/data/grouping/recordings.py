"""Frames of one recording: files whose names differ in a running number, and that change little from one to the next.

A running number alone says nothing: photos of a camera have one, and so have those of most data sets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from pocketzoo.zoo.data.grouping.image_likeness import SmallImages

NUMBERED = re.compile(r"(.*?)(\d{1,18})$")
LEAST = 6  # frames in a row
STILL = 0.95  # the median correlation of neighbors that says by itself that they are frames
MOVING = 0.6  # that says so where frames further apart correlate less,
LESS = 0.25  # by this


def recordings(files: Sequence[Path], small: SmallImages) -> Iterator[list[int]]:
    """The rows of each recording, in the order of its numbers."""
    runs: dict[tuple[Path, str, str], list[tuple[int, int]]] = {}
    for row, file in enumerate(files):
        if small.known[row] and (match := NUMBERED.fullmatch(file.stem)):
            runs.setdefault((file.parent, match[1], file.suffix), []).append((int(match[2]), row))
    for numbered in runs.values():
        for rows in _consecutive(sorted(numbered)):
            if len(rows) >= LEAST and _is_recording(rows, small):
                yield rows


def _consecutive(numbered: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
    """Rows of numbers without a gap."""
    run: list[int] = []
    before = 0
    for number, row in numbered:
        if run and number != before + 1:
            yield run
            run = []
        run.append(row)
        before = number
    yield run


def _is_recording(rows: Sequence[int], small: SmallImages) -> bool:
    near = np.array([small.correlation(a, b) for a, b in pairwise(rows)])
    apart = len(rows) // 2
    far = np.array([small.correlation(a, b) for a, b in zip(rows[:-apart], rows[apart:], strict=True)])
    middle = float(np.median(near))
    return middle >= STILL or (middle >= MOVING and middle >= float(np.median(far)) + LESS)
