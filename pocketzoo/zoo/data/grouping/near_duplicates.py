"""Samples that are nearly the same, found: those are of one source where nobody says what is.

Photos by what they show in small, frames of a recording by their numbers and likeness, texts by shared runs of words,
rows of arrays by equal numbers, any other file by its bytes. Another crop of the same photo and another page of the
same document are not found: ``--group-by`` names those.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.files import sha256
from pocketzoo.core.keys import digest_of
from pocketzoo.zoo.catalog.dataset import LONGEST_PATH, Groups, LazyImages, Split
from pocketzoo.zoo.data.grouping.group_by import NOTHING_SAID, GroupBy, each_its_own
from pocketzoo.zoo.data.grouping.image_likeness import same_photos, small_images
from pocketzoo.zoo.data.grouping.links import Links
from pocketzoo.zoo.data.grouping.recordings import recordings
from pocketzoo.zoo.data.grouping.text_shingles import same_texts

FOUND = "near-duplicates"
IMAGES = frozenset((".png", ".jpg", ".jpeg", ".webp"))  # files that may be images of a format that is read
MOST = {"images": 2000, "texts": 10_000}  # that are compared: of more, copies alone are found
DIGITS = 3  # decimal places, in standard deviations of all numbers, that equal rows of arrays agree in
SCALED = 1_000_000  # numbers that the standard deviation is of
BY_CHANCE = 4  # times as many equal rows as chance makes of such columns, below which they are no copies


def grouped(split: Split, by: GroupBy = NOTHING_SAID, root: Path = Path()) -> Split:
    """A split whose samples have sources: those it has, what ``by`` says or, where that says nothing, what is found.

    ``root`` is the folder that names of files are taken from.

    Raises:
        DataError: ``by`` is of files or of a table, and the samples are none.
    """
    if split.groups is not None:
        return split
    if by.kind == "sample":
        return replace(split, groups=each_its_own(len(split)))
    samples: Any = split.samples
    return replace(split, groups=by.of_files(samples, root) if by.kind else near_duplicates(samples))


def near_duplicates(samples: Any) -> Groups:
    """The sources of samples by what they have in common; see above for what is found. Deterministic."""
    links, notes = Links(len(samples)), list[str]()
    if isinstance(samples, np.ndarray):
        _link(links, equal_rows(samples))
        return Groups(links.ids(), FOUND)
    if isinstance(samples, LazyImages):
        _images(links, list(range(len(samples))), samples, notes)
        return Groups(links.ids(), FOUND, tuple(notes))
    files: dict[int, Path] = {}
    texts: dict[int, str] = {}
    others: dict[bytes, list[int]] = {}
    for row, sample in enumerate(samples):
        if isinstance(sample, Path) or (isinstance(sample, str) and _is_file(sample)):
            files[row] = Path(sample)
        elif isinstance(sample, str):
            texts[row] = sample
        elif (key := _key(sample)) is not None:
            others.setdefault(key, []).append(row)
    for rows in others.values():
        links.link_all(rows)
    images = [row for row, file in files.items() if file.suffix.lower() in IMAGES]
    _link(links, _same_bytes({row: file for row, file in files.items() if file.suffix.lower() not in IMAGES}))
    _images(links, images, files, notes)
    if len(texts) <= MOST["texts"]:
        rows = list(texts)
        _link(links, [[rows[a], rows[b]] for a, b in same_texts(list(texts.values()))])
    else:
        equal: dict[str, list[int]] = {}
        for row, text in texts.items():
            equal.setdefault(text, []).append(row)
        _link(links, equal.values())
        notes.append(_too_many(len(texts), "texts"))
    return Groups(links.ids(), FOUND, tuple(notes))


def _link(links: Links, groups: Any) -> None:
    for rows in groups:
        links.link_all(rows)


def _is_file(text: str) -> bool:
    return len(text) <= LONGEST_PATH and "\0" not in text and os.path.isfile(text)


def _images(links: Links, rows: Sequence[int], samples: Any, notes: list[str]) -> None:
    """Link the rows that show the same photo, or are frames of one recording."""
    if len(rows) > MOST["images"]:
        notes.append(_too_many(len(rows), "images"))
        _link(links, _same_bytes({row: samples[row] for row in rows} if isinstance(samples, Mapping) else {}))
        return
    if len(rows) < 2:
        return
    small = small_images(samples, rows)
    if isinstance(samples, Mapping):  # what cannot be read is of its own
        _link(links, _same_bytes({row: samples[row] for row, read in zip(rows, small.read, strict=True) if read}))
    pairs = [[rows[a], rows[b]] for a, b in same_photos(small)]
    _link(links, pairs)
    if isinstance(samples, Mapping):
        frames = [[rows[i] for i in found] for found in recordings([samples[row] for row in rows], small)]
        _link(links, frames)
        if frames:
            notes.append(
                f"{sum(map(len, frames))} files are frames of {len(frames)} recording{'s' * (len(frames) > 1)}, by "
                "their numbers and likeness"
            )


def _too_many(count: int, what: str) -> str:
    return f"near-duplicates are not looked for among {count:,} {what}, more than {MOST[what]:,}: copies alone"


def _same_bytes(files: Mapping[int, Path]) -> Iterator[list[int]]:
    """Rows of files with the same bytes; a file is read only where another has its size."""
    sizes: dict[int, list[int]] = {}
    for row, file in files.items():
        if file.is_file():
            sizes.setdefault(file.stat().st_size, []).append(row)
    for rows in sizes.values():
        contents: dict[str, list[int]] = {}
        for row in rows if len(rows) > 1 else ():
            contents.setdefault(sha256(files[row]), []).append(row)
        yield from contents.values()


def _key(sample: Any) -> bytes | None:
    """What two samples have in common that are the same; None where that cannot be told, or is not worth a word."""
    try:
        return bytes.fromhex(digest_of(sample))
    except (TypeError, OSError):
        return None


def equal_rows(samples: npt.NDArray[Any]) -> Iterator[list[int]]:
    """Rows (N, ...) that are equal but for noise; none where columns of few values make as many by chance."""
    if samples.dtype.hasobject or not samples.size:
        return
    rows = samples.reshape(len(samples), -1)
    some = rows[: max(1, SCALED // rows.shape[1])]
    scale = float(np.std(some, where=np.isfinite(some))) if some.dtype.kind == "f" and np.isfinite(some).any() else 0.0
    found: dict[bytes, list[int]] = {}
    for row, values in enumerate(rows):
        found.setdefault(hashlib.blake2b(_rounded(values, scale).tobytes(), digest_size=16).digest(), []).append(row)
    copies = [group for group in found.values() if len(group) > 1]
    pairs = sum(len(group) * (len(group) - 1) / 2 for group in copies)
    if pairs and pairs >= BY_CHANCE * _pairs_by_chance(rows, scale):
        yield from copies


def _rounded(values: npt.NDArray[Any], scale: float) -> npt.NDArray[Any]:
    """Floats by their first decimal places, in units of ``scale``; other numbers as they are."""
    if values.dtype.kind != "f":
        return values
    known = np.isfinite(values)
    whole = (np.where(known, values, 0).astype(np.float64) / (scale or 1.0)).round(DIGITS) + 0.0  # no negative zeros
    return np.where(known, whole, np.nan)


def _pairs_by_chance(rows: npt.NDArray[Any], scale: float) -> float:
    """How many pairs of rows would be equal if their columns were drawn each for itself."""
    pairs = len(rows) * (len(rows) - 1) / 2
    for column in rows.T:
        if pairs < 1 / BY_CHANCE:
            break
        counts = np.unique(_rounded(column, scale), return_counts=True)[1]
        pairs *= float(((counts / len(rows)) ** 2).sum())
    return pairs
